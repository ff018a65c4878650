"""What a configuration says, whatever its file looks like; the defaults are here, and nowhere else."""

from dataclasses import dataclass, field
from enum import StrEnum

from ccms_server.config.address import nats_servers
from ccms_server.store.metric import Metric


class Layout(StrEnum):
    """Which release of the predecessor a file was made for."""

    OF_2024 = "2024"
    OF_1_5 = "1.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpApiConfig:
    """Where the REST API is served."""

    address: str
    """`host:port`; an empty host is every interface, port 0 any free port."""
    https_cert_file: str = ""
    """PEM file of the certificate; empty: plain HTTP."""
    https_key_file: str = ""
    """PEM file of the certificate's key; set if and only if `https_cert_file` is."""
    client_ca_file: str = ""
    """PEM file of the authorities whose certificates clients must show; empty: clients need none. Needs TLS."""
    compression: bool = False
    """Compress answers with gzip for clients that ask for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcApiConfig:
    """Where the gRPC services are served."""

    address: str = "localhost:8083"
    """`host:port`; an empty host is every interface, port 0 any free port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicUser:
    """Who may write with a user name and a password instead of a token."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """Who may do what, beside `jwt_public_key`."""

    enforce_roles: bool = True
    """Let tokens with roles free and dump only if `ROLE_ADMIN` or `ROLE_API` is one of them."""
    basic: tuple[BasicUser, ...] = ()
    """User names are unique; asked for only with a `jwt_public_key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSubscription:
    """A subject that collectors publish to."""

    subscribe_to: str
    """Subject, with the wildcards `*` and `>` where wanted."""
    cluster_tag: str = ""
    """Cluster of lines without a `cluster` tag; empty: such lines are rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """A NATS server, or a cluster of them, to take samples from."""

    address: str = field(repr=False)
    """One or more servers, separated by commas: `nats://a:4222,b`. A URL may hold a password."""
    username: str = ""
    """Set if and only if `password` is."""
    password: str = field(default="", repr=False)
    creds_file_path: str = ""
    """File with a user's JWT and key; empty: none."""
    tls_ca_file: str = ""
    """PEM file of the authorities that servers are checked against; empty: those of the system."""
    tls_cert_file: str = ""
    """PEM file of the certificate to show to servers; empty: none."""
    tls_key_file: str = ""
    """PEM file of the certificate's key; set if and only if `tls_cert_file` is."""
    subscriptions: tuple[NatsSubscription, ...]
    """Empty: nothing is taken from it."""

    @property
    def servers(self) -> list[str]:
        """URLs of the servers, each with a scheme."""
        return nats_servers(self.address)


class CheckpointFormat(StrEnum):
    """Whether the predecessor's files are written as well."""

    WAL = "wal"
    """Only the store's own files."""
    JSON = "json"
    """JSON checkpoints too, which the predecessor can load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointsConfig:
    """Where samples outlive the process, and how."""

    file_format: CheckpointFormat = CheckpointFormat.WAL
    interval: int = 0
    """Time after which samples are in blocks, and with `JSON` in checkpoints, in seconds; 0: no such bound."""
    directory: str = ""
    """Folder of the store's files; empty: samples are kept in memory only."""
    restore: int = 0
    """How far back the predecessor reads at start, in seconds; no effect: all that is retained is there."""
    sync_seconds: float | None = 0.0
    """Time between two syncs of the WAL, in seconds; 0: before each write is acknowledged, None: left to the system."""
    wal_bytes: int = 1 << 30
    """Size of the WAL from which open windows are written out early, in bytes."""
    wal_bytes_per_host: int = 0
    """The same for each host there is; the smaller bound counts. 0: none, as the predecessor's `max-wal-size`."""
    retention: int | None = None
    """How long samples stay on disk and can be queried, in seconds; 0: for ever; None: see `retention_seconds`."""


class ArchiveFormat(StrEnum):
    """What archives are."""

    PARQUET = "parquet"
    """A Parquet file for each cluster and window."""
    ZIP = "zip"
    """A ZIP file for each host and window, with a JSON checkpoint, as the predecessor's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveConfig:
    """What becomes of samples that the store drops from its directory."""

    interval: int = 0
    """Age at which they are archived, in seconds; 0: never."""
    directory: str = ""
    """Folder of the archives; empty: none."""
    delete_instead: bool = False
    """Delete them rather than archive them."""
    file_format: ArchiveFormat = ArchiveFormat.PARQUET


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugConfig:
    """The predecessor's means to look inside."""

    dump_to_file: str = ""
    """File to write everything held to at exit; empty: none."""
    gops: bool = False
    """Listen for the `gops` tool, which inspects Go programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What the server holds and answers at most."""

    series: int = 4_000_000
    """Series; samples of further ones are rejected."""
    request_bytes: int = 16 << 20
    """Size of one write request, in bytes."""
    queue_bytes: int = 256 << 20
    """Size of all writes that wait, in bytes; at least `request_bytes`."""
    line_bytes: int = 65_536
    """Length of one line of line protocol, in bytes; at most `request_bytes`."""
    query_points: int = 16_777_216
    """Values in the answer to one query."""
    query_series: int = 200_000
    """Series in the answer to one query."""
    future_seconds: int = 3600
    """How far ahead of the clock a sample may be, in seconds."""
    open_window_bytes: int = 0
    """Memory for samples that are not compressed yet, in bytes; 0: a quarter of the machine's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole file, whatever its layout."""

    layout: Layout = Layout.OF_2024
    metrics: tuple[Metric, ...]
    """In the order of the file, names unique; at least one."""
    http_api: HttpApiConfig
    grpc_api: GrpcApiConfig = GrpcApiConfig()
    nats: tuple[NatsConfig, ...] = ()
    """Empty: no samples are taken from NATS."""
    retention_in_memory: int
    """How long samples stay in memory, in seconds; 0: for ever."""
    memory_cap_bytes: int = 0
    """Memory that the process should not exceed, in bytes; 0: no such cap."""
    jwt_public_key: str = ""
    """Ed25519 key that tokens are checked against, 32 bytes in base64; empty: nobody is asked for a token."""
    auth: AuthConfig = AuthConfig()
    user: str = ""
    """User to become once the sockets are bound; empty: stay who started the process."""
    group: str = ""
    """Group to become; empty: that of `user`, if there is one."""
    backend_url: str = field(default="", repr=False)
    """Base URL of cc-backend, asked which nodes are in use: their samples outlive the retention. Empty: nobody is.
    It may hold a password."""
    backend_token_file: str = ""
    """File with the token to show to cc-backend; empty: none."""
    num_workers: int = 0
    """Threads that answer queries; 0: one for each processor."""
    checkpoints: CheckpointsConfig | None = None
    archive: ArchiveConfig | None = None
    debug: DebugConfig = DebugConfig()
    limits: LimitsConfig = LimitsConfig()

    @property
    def is_durable(self) -> bool:
        """Whether samples outlive the process."""
        return self.checkpoints is not None and self.checkpoints.directory != ""

    @property
    def retention_seconds(self) -> int:
        """How long samples can be queried, in seconds; 0: for ever.

        With a directory it is `checkpoints.retention`, or else the longer of `retention-in-memory` and
        `archive.interval`.
        """
        checkpoints = self.checkpoints or CheckpointsConfig()
        if not checkpoints.directory or self.retention_in_memory == 0:
            return self.retention_in_memory
        if checkpoints.retention is not None:
            return checkpoints.retention
        return max(self.retention_in_memory, (self.archive or ArchiveConfig()).interval)
