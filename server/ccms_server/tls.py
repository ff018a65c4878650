"""The certificate of the server: read at start, and again when its files have changed.

Both protocols ask for it anew with every connection, so that a renewed certificate needs no restart. Certificate and
key are only ever replaced together: a pair that does not fit is logged, and the old one goes on being served.
"""

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ccms_server.errors import ConfigError
from ccms_server.pem_files import FileState, check_private_key, file_state, load_authorities, load_pair, read_file

logger = logging.getLogger(__name__)

CHECK_SECONDS: Final = 2.0
"""Time between two looks at the files; only new connections make it look."""
DAY_SECONDS: Final = 86_400
EXPIRY_NOTICE_DAYS: Final = 14
"""A certificate that expires so soon is warned of, once a day."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate with its key, as each protocol wants it."""

    context: ssl.SSLContext
    grpc_configuration: grpc.ServerCertificateConfiguration
    valid_from: float
    """In seconds since the epoch."""
    valid_until: float
    """In seconds since the epoch."""


class Certificates:
    """The certificate, its key and the authorities that clients are checked against. May be used by several threads.

    Attributes:
        context: For TLS servers of this process; connections made through it get the certificate of the moment.
    """

    def __init__(self, cert_file: str, key_file: str, client_ca_file: str, clock: Callable[[], float]) -> None:
        """See `load`."""
        self._cert_file, self._key_file, self._client_ca_file = cert_file, key_file, client_ca_file
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = self._state()
        self._pair = self._load()
        self._check_at = time.monotonic() + CHECK_SECONDS
        self._warn_at = 0.0
        self._warn_of_expiry()
        self.context: ssl.SSLContext = _ContextOfTheMoment(lambda: self._current().context)

    @classmethod
    def load(
        cls, cert_file: str, key_file: str, client_ca_file: str = "", *, clock: Callable[[], float] = time.time
    ) -> Self:
        """Reads the files.

        Args:
            cert_file: PEM file of the certificate, followed by those between it and its authority.
            key_file: PEM file of its key, without a passphrase.
            client_ca_file: PEM file of the authorities whose certificates clients must show; empty: clients need none.
            clock: Seconds since the epoch, to warn of certificates that expire.

        Raises:
            ConfigError: A file cannot be used; names its key and the reason.
        """
        return cls(cert_file, key_file, client_ca_file, clock)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials for one port of a gRPC server; they remember what that port was given last."""
        given = self._current().grpc_configuration

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            current = self._current().grpc_configuration
            if current is given:
                return None
            given = current
            return current

        return grpc.dynamic_ssl_server_credentials(
            given,
            fetch,  # type: ignore[arg-type]  # None says that nothing has changed; the stubs do not know
            require_client_authentication=bool(self._client_ca_file),
        )

    def reload(self) -> None:
        """Reads the files, changed or not; what cannot be used is logged, and the old ones stay in use."""
        with self._lock:
            self._refresh()

    def _current(self) -> _Pair:
        """What a new connection gets; looks at the files now and then."""
        with self._lock:
            now = time.monotonic()
            if now >= self._check_at:
                self._check_at = now + CHECK_SECONDS
                if self._state() != self._seen:
                    self._refresh()
                self._warn_of_expiry()
            return self._pair

    def _refresh(self) -> None:
        self._seen = self._state()
        try:
            pair = self._load()
        except ConfigError as error:
            if self._state() == self._seen:  # else they are just being replaced
                logger.error("the certificate is not replaced, the one read before goes on being served: %s", error)
            return
        if self._state() == self._seen:
            self._pair = pair
            self._warn_at = 0.0
            logger.info("serving the certificate in %s as it is now", self._cert_file)

    def _load(self) -> _Pair:
        cert, key = read_file("https-cert-file", self._cert_file), read_file("https-key-file", self._key_file)
        authorities = read_file("client-ca-file", self._client_ca_file) if self._client_ca_file else None
        certificate = _certificate(cert, self._cert_file)
        check_private_key("https-key-file", self._key_file, key)
        return _Pair(
            self._make_context(),
            grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=authorities),
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
        )

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        load_pair(context, self._cert_file, "https-key-file", self._key_file)
        if self._client_ca_file:
            load_authorities(context, "client-ca-file", self._client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _state(self) -> tuple[FileState, ...]:
        return tuple(map(file_state, (self._cert_file, self._key_file, self._client_ca_file)))

    def _warn_of_expiry(self) -> None:
        now = self._clock()
        if now < self._warn_at:
            return
        self._warn_at = now + DAY_SECONDS
        days_left = (self._pair.valid_until - now) / DAY_SECONDS
        if days_left <= 0:
            logger.warning("the certificate in %s has expired: clients refuse it; replace the file", self._cert_file)
        elif now < self._pair.valid_from:
            logger.warning("the certificate in %s is not valid yet: clients refuse it", self._cert_file)
        elif days_left < EXPIRY_NOTICE_DAYS:
            logger.warning("the certificate in %s expires in %.1f days; replace the file", self._cert_file, days_left)


class _ContextOfTheMoment(ssl.SSLContext):
    """Stands for another context, which may be a different one for each connection.

    Event loops do with the context of a server what `wrap_bio` does, and nothing else.
    """

    def __new__(cls, _: Callable[[], ssl.SSLContext]) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, current: Callable[[], ssl.SSLContext]) -> None:
        self._of_the_moment = current

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401  as there
        return self._of_the_moment().wrap_bio(*args, **kwargs)


def _certificate(cert: bytes, path: str) -> x509.Certificate:
    """The server's own certificate, which comes before those that vouch for it."""
    try:
        certificate = x509.load_pem_x509_certificates(cert)[0]
        public_key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("https-cert-file", path, "must hold a certificate in PEM form") from None
    if isinstance(public_key, EllipticCurvePublicKey):
        usable = isinstance(public_key.curve, SECP256R1 | SECP384R1)
    else:
        usable = isinstance(public_key, RSAPublicKey)
    if not usable:
        rule = "must be of an RSA key, or of an ECDSA key on P-256 or P-384: gRPC clients know no other"
        raise ConfigError("https-cert-file", path, rule)
    return certificate
