"""What a client needs to talk to a server over TLS."""

from dataclasses import dataclass, field

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Whom to trust, and what to show. All are files in PEM form, as bytes."""

    root_certificates: bytes | None = None
    """Authorities that the server's certificate is checked against; None: those that gRPC brings along."""
    certificate: bytes | None = None
    """Certificate to show to servers that ask for one; set if and only if `key` is."""
    key: bytes | None = field(default=None, repr=False)
    """The certificate's key, without a passphrase."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` belong together: set both, or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """The same, for a channel of gRPC."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.key, self.certificate)
