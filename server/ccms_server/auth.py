"""Who may do what, decided from the `Authorization` of a request, whatever protocol it came with."""

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Final

from ccms_server.config import AuthConfig, BasicUser
from ccms_server.errors import PermissionDeniedError, UnauthenticatedError
from ccms_server.tokens import Token, TokenVerifier

ADMIN_ROLES: Final = frozenset({"ROLE_ADMIN", "ROLE_API", "admin", "api"})
"""Tokens that name roles need one of these to free and dump: cc-backend has called them both ways."""
CACHED_TOKENS_MAX: Final = 1024
"""Tokens whose signature is not checked again; the least recently used one makes room."""


class Access(Enum):
    """What a request is about to do."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    """Drop samples, or dump what is held."""


class Guard:
    """Lets requests pass or not. Without a public key, all do. Belongs to one thread: that of the event loop."""

    def __init__(self, public_key: str, auth: AuthConfig, *, clock: Callable[[], float]) -> None:
        """Makes a guard.

        Args:
            public_key: The Ed25519 key that tokens are checked against, 32 bytes in base64; empty: nobody is asked.
            auth: Roles, and users with a password.
            clock: Seconds since the epoch.
        """
        self._clock = clock
        self.reconfigure(public_key, auth)

    def reconfigure(self, public_key: str, auth: AuthConfig) -> None:
        """Replaces what the guard goes by; tokens seen before are checked anew."""
        self._verifier = TokenVerifier(public_key) if public_key else None
        self._enforce_roles = auth.enforce_roles
        self._user_digests = [_user_digest(user) for user in auth.basic]
        self._tokens: OrderedDict[str, Token] = OrderedDict()

    def check(self, authorization: str | None, access: Access) -> None:
        """Decides about a request.

        Args:
            authorization: `Bearer` and a token, or `Basic` and a user with password; None or empty: nothing was sent.
            access: What the request is about to do.

        Raises:
            UnauthenticatedError: It does not say who sends it, or not credibly.
            PermissionDeniedError: The sender may not do that.
        """
        if self._verifier is None:
            return
        scheme, _, credentials = (authorization or "").strip().partition(" ")
        scheme, credentials = scheme.lower(), credentials.strip()
        if scheme == "bearer" and credentials:
            self._check_roles(self._token(credentials, self._verifier), access)
        elif scheme == "basic" and self._user_digests:
            self._check_user(credentials, access)
        else:
            raise UnauthenticatedError(
                "authentication is required; send `Authorization: Bearer TOKEN`, over gRPC as metadata",
                self.schemes(access),
            )

    def _token(self, text: str, verifier: TokenVerifier) -> Token:
        """The token, if it is valid now."""
        token = self._tokens.get(text)
        if token is None:
            token = verifier.verify(text)
            token.check_time(self._clock())
            self._tokens[text] = token
            if len(self._tokens) > CACHED_TOKENS_MAX:
                self._tokens.popitem(last=False)
        else:
            token.check_time(self._clock())
            self._tokens.move_to_end(text)
        return token

    def _check_roles(self, token: Token, access: Access) -> None:
        if access is not Access.ADMIN or not self._enforce_roles or token.roles is None:
            return
        if token.roles.isdisjoint(ADMIN_ROLES):
            raise PermissionDeniedError(
                f"the token's roles include none of {', '.join(sorted(ADMIN_ROLES))}, which this request needs; use "
                "another token, or set `auth.enforce-roles` to false"
            )

    def _check_user(self, credentials: str, access: Access) -> None:
        """Compares with every user, so that the time it takes tells nothing."""
        try:
            digest = hashlib.sha256(base64.b64decode(credentials, validate=True)).digest()
        except (binascii.Error, ValueError):
            raise UnauthenticatedError(
                "the credentials behind `Basic` are not base64 of `user:password`", self.schemes(access)
            ) from None
        if not sum(hmac.compare_digest(digest, known) for known in self._user_digests):
            raise UnauthenticatedError(
                "user or password is wrong; compare them with `auth.basic`", self.schemes(access)
            )
        if access is not Access.WRITE:
            raise PermissionDeniedError("users with a password may write only; use a token for this request")

    def schemes(self, access: Access) -> tuple[str, ...]:
        """Names of the authentication schemes that may lead to success; empty: nobody is asked."""
        if self._verifier is None:
            return ()
        return ("Bearer", "Basic") if self._user_digests and access is Access.WRITE else ("Bearer",)


def _user_digest(user: BasicUser) -> bytes:
    """Of a fixed length: comparing passwords themselves would tell how long they are."""
    return hashlib.sha256(f"{user.username}:{user.password}".encode()).digest()
