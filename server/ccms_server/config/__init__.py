"""The configuration: what it says (`model`), how it is read from a file (`load`), and how it is shown (`effective`)."""

from ccms_server.config.address import split_address
from ccms_server.config.effective import effective_settings
from ccms_server.config.load import FILE_BYTES_MAX, load_config, parse_config
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
from ccms_server.config.notes import inactive_features

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
    "effective_settings",
    "inactive_features",
    "load_config",
    "parse_config",
    "split_address",
]
