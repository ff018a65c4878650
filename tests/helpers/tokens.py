"""Tokens, and the public key that goes with them."""

import base64
import time

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SAMPLE_KEY = "kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0="
"""The key in the sample configuration of the predecessor."""
SAMPLE_TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9.eyJ1c2VyIjoiYWRtaW4iLCJyb2xlcyI6WyJST0xFX0FETUlOIiwiUk9MRV9BTkFMWVNUIiwiUk9MR"
    "V9VU0VSIl19.d-3_3FZTsadPjDEdsWrrQ7nS0edMAR4zjl-eK7rJU3HziNBfI9PDHDIpJVHTNN5E5SlLGLFXctWyKAkwhXL-Dw"
)
"""Signed with it, without an end: an administrator's."""


class Issuer:
    """Signs tokens.

    Attributes:
        public_key: What a server that trusts the issuer has in its configuration.
    """

    def __init__(self):
        self._key = Ed25519PrivateKey.generate()
        self.public_key = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def token(self, **claims):
        """A token with these claims and no others."""
        return jwt.encode(claims, self._key, "EdDSA")

    def lasting(self, seconds=3600, **claims):
        """A token that is valid from now on, for so long."""
        now = int(time.time())
        return self.token(iat=now, exp=now + seconds, **claims)
