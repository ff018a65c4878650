"""The configuration: what it says (`model`), and how it is read from a file."""

from ccms_server.config.load import FILE_BYTES_MAX, inactive_features, load_config, parse_config, split_address
from ccms_server.config.model import (
    ArchiveConfig,
    ArchiveFormat,
    AuthConfig,
    BasicUser,
    CheckpointFormat,
    CheckpointsConfig,
    Config,
    DebugConfig,
    GrpcApiConfig,
    HttpApiConfig,
    Layout,
    LimitsConfig,
    NatsConfig,
    NatsSubscription,
)

__all__ = [
    "FILE_BYTES_MAX",
    "ArchiveConfig",
    "ArchiveFormat",
    "AuthConfig",
    "BasicUser",
    "CheckpointFormat",
    "CheckpointsConfig",
    "Config",
    "DebugConfig",
    "GrpcApiConfig",
    "HttpApiConfig",
    "Layout",
    "LimitsConfig",
    "NatsConfig",
    "NatsSubscription",
    "inactive_features",
    "load_config",
    "parse_config",
    "split_address",
]
