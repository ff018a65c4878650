"""nats-py's client, with what it lacks: it insists on TLS where that is configured, and survives failed handshakes.

By itself it takes `tls://` for `nats://`: whether there is TLS is left to the broker, and so to whoever sits in
between.
"""

import ssl
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from ccms_server.config import NatsConfig
from ccms_server.ingest.nats_credentials import TlsFiles, UserCredentials


class BrokerClient(Client):
    """A client of the broker that an entry of the configuration names; `connect` is given `access` and the rest."""

    def __init__(self, config: NatsConfig) -> None:
        """Makes a client that is not connected."""
        super().__init__()
        self._config = config
        self._tls_files = TlsFiles(config)
        # Credentials are sent also to brokers that would let anybody in, perhaps with fewer rights.
        self._auth_configured = bool(config.username or config.creds_file_path)

    @property
    def access(self) -> dict[str, Any]:
        """Where to connect to, and as whom: arguments of `connect`."""
        config = self._config
        access: dict[str, Any] = {
            "servers": config.servers,
            "user": config.username or None,
            "password": config.password or None,
        }
        if config.creds_file_path:
            credentials = UserCredentials(config.creds_file_path)
            access |= {"user_jwt_cb": credentials.jwt, "signature_cb": credentials.sign}
        return access

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """What nats-py connects with, whenever it does with TLS."""
        return self._tls_files.context()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Takes a broker's greeting; nats-py decides by it whether to start TLS, and sends credentials afterwards."""
        if initial_connection and self._wants_tls and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise nats.errors.SecureConnWantedError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_connect_init(self) -> None:
        """Greets a broker, with TLS and credentials.

        After a handshake that failed, nats-py would wait for ever for its connection to be closed, and never try again:
        nobody tells its streams any more. While it reconnects, it would leave the socket open.
        """
        try:
            await super()._process_connect_init()
        except BaseException:
            if isinstance(self._transport, TcpTransport):
                self._transport.close()  # type: ignore[no-untyped-call]
                self._transport = None
            raise

    @property
    def _wants_tls(self) -> bool:
        """Whether the server that is being connected to must speak TLS after its greeting; `wss` does before."""
        assert self._current_server is not None
        scheme = self._current_server.uri.scheme
        return scheme == "tls" or (scheme == "nats" and self._tls_files.named)
