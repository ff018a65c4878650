"""Who this server is to a NATS broker, and whom it trusts: the files are read again for every connection.

So a credentials file or a certificate that is replaced counts from the next connection on, and one that cannot be used
then is a failed attempt like any other.
"""

import base64
import ssl
from itertools import pairwise
from typing import Final

import nats.errors
import nkeys

from ccms_server.config import NatsConfig
from ccms_server.errors import ConfigError
from ccms_server.pem_files import FileState, check_private_key, file_state, load_authorities, load_pair, read_file

_JWT_MARKER: Final = b"BEGIN NATS USER JWT"
_SEED_MARKER: Final = b"BEGIN USER NKEY SEED"


class UnusableFileError(nats.errors.Error):
    """A file that the configuration names cannot be used; to nats-py it is one more error of the connection.

    Attributes:
        key: What the configuration calls the file: `creds-file-path`.
        path: The file.
        rule: What is wrong with it.
    """

    def __init__(self, key: str, path: str, rule: str) -> None:
        super().__init__(f"{key}: {path} {rule}")
        self.key = key
        self.path = path
        self.rule = rule

    @classmethod
    def of(cls, error: ConfigError) -> "UnusableFileError":
        """The same for nats-py."""
        return cls(error.key, str(error.value), error.rule)


class UserCredentials:
    """A file with a user's JWT and the seed of the user's nkey. nats-py's own reader never ends on a file without."""

    def __init__(self, path: str) -> None:
        """Names the file; it is read whenever something of it is needed."""
        self._path = path

    def jwt(self) -> bytes:
        """The user's JWT.

        Raises:
            UnusableFileError: The file cannot be used.
        """
        return self._after(_JWT_MARKER)

    def sign(self, nonce: str) -> bytes:
        """A broker's nonce, signed with the user's key; in base64.

        Raises:
            UnusableFileError: The file cannot be used.
        """
        seed = bytearray(self._after(_SEED_MARKER))
        try:
            pair = nkeys.from_seed(seed)
            signature: bytes = pair.sign(nonce.encode())
            pair.wipe()
        except Exception as error:  # nkeys lets through whatever its libraries raise
            raise self._unusable("holds a seed that is no nkey") from error
        return base64.b64encode(signature)

    def check(self) -> None:
        """Finds out whether the file can be used.

        Raises:
            UnusableFileError: It cannot.
        """
        self.jwt()
        self.sign("")

    def _after(self, marker: bytes) -> bytes:
        """The line after the one that holds a marker."""
        try:
            lines = read_file("creds-file-path", self._path).splitlines()
        except ConfigError as error:
            raise UnusableFileError.of(error) from None
        for line, after in pairwise(lines):
            if marker in line:
                return after.strip()
        raise self._unusable(f"has no line `-----{marker.decode()}-----` with another one after it")

    def _unusable(self, rule: str) -> UnusableFileError:
        return UnusableFileError("creds-file-path", self._path, rule)


class TlsFiles:
    """The certificates for an entry of the configuration."""

    def __init__(self, config: NatsConfig) -> None:
        """Names the files; they are read whenever they have changed."""
        self._ca_file, self._cert_file, self._key_file = config.tls_ca_file, config.tls_cert_file, config.tls_key_file
        self._context: ssl.SSLContext | None = None
        self._context_state: tuple[FileState, ...] = ()

    @property
    def named(self) -> bool:
        """Whether the configuration names any, and thereby asks for TLS."""
        return bool(self._ca_file or self._cert_file)

    def context(self) -> ssl.SSLContext:
        """What to connect with: TLS 1.2 or newer; certificates of brokers are checked, and the names in them.

        Raises:
            UnusableFileError: A file cannot be used.
        """
        state = tuple(map(file_state, (self._ca_file, self._cert_file, self._key_file)))
        if self._context is None or state != self._context_state:
            self._context, self._context_state = self._make_context(), state
        return self._context

    def check(self) -> None:
        """Finds out whether the files can be used.

        Raises:
            UnusableFileError: One cannot.
        """
        if self.named:
            self.context()

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self._ca_file:
                load_authorities(context, "tls-ca-file", self._ca_file)
            else:
                context.load_default_certs()
            if self._cert_file:
                self._load_certificate(context)
        except ConfigError as error:
            raise UnusableFileError.of(error) from None
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        if b"BEGIN CERTIFICATE-----" not in read_file("tls-cert-file", self._cert_file):
            raise ConfigError("tls-cert-file", self._cert_file, "must hold a certificate in PEM form")
        check_private_key("tls-key-file", self._key_file, read_file("tls-key-file", self._key_file))
        load_pair(context, self._cert_file, "tls-key-file", self._key_file)
