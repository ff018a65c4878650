"""JSON Web Tokens: who signed one, when it is valid, and which roles it names.

Only EdDSA with an Ed25519 key is known here. What a token's header asks for decides nothing.
"""

import base64
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ccms_server.errors import UnauthenticatedError

ALGORITHM: Final = "EdDSA"
TOKEN_BYTES_MAX: Final = 4096
"""Longest token that is looked at: those of cc-backend have some 300 bytes."""
CLOCK_LEEWAY_SECONDS: Final = 60
"""How far the issuer's clock may be ahead of ours: a token is often used as soon as it is made."""


@dataclass(frozen=True, slots=True)
class Token:
    """What counts of a token whose signature is good."""

    valid_from: float
    """The later of `nbf` and `iat`, in seconds since the epoch; minus infinity: it has neither."""
    valid_until: float
    """`exp`, in seconds since the epoch, exclusive; infinity: it has none."""
    roles: frozenset[str] | None
    """None: it says nothing of roles."""

    def check_time(self, now: float) -> None:
        """Refuses a token that is not valid now.

        Raises:
            UnauthenticatedError: It has expired, or is not valid yet.
        """
        if now >= self.valid_until:
            raise UnauthenticatedError(f"the token expired {now - self.valid_until:.0f} s ago; get a new one")
        if now < self.valid_from - CLOCK_LEEWAY_SECONDS:
            raise UnauthenticatedError(
                f"the token is valid in {self.valid_from - now:.0f} s only (`nbf`, `iat`); wait, or compare the clocks "
                "of its issuer and of this server"
            )


class _Claims(msgspec.Struct):
    """The claims that are looked at; times of any other type, null and NaN included, are refused."""

    exp: int | float = inf
    nbf: int | float = -inf
    iat: int | float = -inf
    roles: Any = msgspec.UNSET


class TokenVerifier:
    """Checks signatures with one public key."""

    def __init__(self, public_key: str) -> None:
        """Takes the key.

        Args:
            public_key: The 32 bytes of an Ed25519 key in base64.
        """
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key))
        self._signatures = jwt.PyJWS(algorithms=[ALGORITHM])
        self._claims = msgspec.json.Decoder(_Claims)

    def verify(self, text: str) -> Token:
        """Reads a token; its times are not compared with any clock here.

        Raises:
            UnauthenticatedError: It is no token, not signed with the key, or has claims of a wrong type.
        """
        if len(text) > TOKEN_BYTES_MAX:
            raise UnauthenticatedError(f"the token is longer than {TOKEN_BYTES_MAX:,} bytes; get one with fewer claims")
        payload = self._signed_payload(text)
        try:
            claims = self._claims.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UnauthenticatedError(f"the token's claims cannot be read: {error}; get a new one") from None
        return Token(max(claims.nbf, claims.iat), claims.exp, _roles(claims.roles))

    def _signed_payload(self, text: str) -> bytes:
        if not text.isascii():
            raise UnauthenticatedError("the token is no JWT: it has characters beyond ASCII")
        try:
            payload: bytes = self._signatures.decode(text, self._key, algorithms=[ALGORITHM])
        except jwt.InvalidAlgorithmError:
            raise UnauthenticatedError(
                f"the token is not signed with {ALGORITHM}, the only algorithm accepted; get one that is"
            ) from None
        except jwt.InvalidSignatureError:
            raise UnauthenticatedError(
                "the token's signature does not fit `jwt-public-key`; get one from the issuer that this server trusts"
            ) from None
        except (jwt.InvalidTokenError, RecursionError):  # its message may hold parts of the token
            raise UnauthenticatedError(
                "the token is no JWT: it should be three parts of base64 with dots in between"
            ) from None
        return payload


def _roles(claim: object) -> frozenset[str] | None:
    """Roles that a claim names; one that is no list of names is a claim all the same, and names none."""
    if claim is msgspec.UNSET:
        return None
    return frozenset(role for role in claim if isinstance(role, str)) if isinstance(claim, list) else frozenset()
