"""What can go wrong, told apart by what the caller can do about it.

MetricStoreError
├── ConfigError          the configuration breaks a rule: mend the file
├── RequestError         the request breaks a rule: mend the request
│   ├── InvalidRequestError   a field has a wrong type or value
│   ├── LimitExceededError    the answer or the request would be larger than allowed: ask for less
│   ├── NotFoundError         what the request names does not exist: look it up
│   └── SequenceGapError      a batch of a stream comes before its turn: send those before it first
├── UnauthenticatedError the request does not say who sends it: show a token
├── PermissionDeniedError the sender may not do that: show another token
├── TooManyCallsError    as many calls as may be are open: send again later
├── QueueFullError       the server is behind: send again later
├── NotReadyError        the server is starting or stopping: send again later
├── DiskUnavailableError the disk takes no writes: send again when it does
└── DirectoryError       the files of the store cannot be used: start another program, or name another directory
    ├── DirectoryInUseError   another process works with them
    └── NewerFormatError      a later release wrote them

What is wrong with a single sample is no exception: it is a `RejectReason`, counted beside the samples that were stored.
Front ends translate exceptions into status codes in one table each.
"""

from enum import IntEnum
from pathlib import Path


class MetricStoreError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(MetricStoreError):
    """The configuration breaks a rule.

    Attributes:
        key: Path of the offending key, `nats[0].address`.
        value: What the file says there.
        rule: What it should say.
    """

    def __init__(self, key: str, value: object, rule: str) -> None:
        super().__init__(f"{key}: {value!r} {rule}" if value is not None else f"{key}: {rule}")
        self.key = key
        self.value = value
        self.rule = rule


class RequestError(MetricStoreError):
    """The request breaks a rule; sending it again unchanged will fail again."""


class InvalidRequestError(RequestError):
    """A field of the request has a wrong type or value.

    Attributes:
        field: Path of the field in the request.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class LimitExceededError(RequestError):
    """The request, or its answer, would be larger than the server allows.

    Attributes:
        what: The thing that is limited.
        asked: How much of it the request needs.
        limit: How much of it is allowed.
    """

    def __init__(self, what: str, asked: int, limit: int, remedy: str) -> None:
        super().__init__(f"{what}: {asked:,} exceed the limit of {limit:,}; {remedy}")
        self.what = what
        self.asked = asked
        self.limit = limit


class NotFoundError(RequestError):
    """What the request names does not exist."""


class SequenceGapError(RequestError):
    """A batch of a stream comes before its turn.

    Attributes:
        number: Its number.
        last: Number of the last batch that is stored.
    """

    def __init__(self, number: int, last: int) -> None:
        super().__init__(
            f"batch {number:,} cannot be stored before those from {last + 1:,} on; open the stream again and send these"
        )
        self.number = number
        self.last = last


class UnauthenticatedError(MetricStoreError):
    """The request does not say who sends it, or not credibly.

    Attributes:
        schemes: Authentication schemes of HTTP to try instead.
    """

    def __init__(self, message: str, schemes: tuple[str, ...] = ("Bearer",)) -> None:
        super().__init__(message)
        self.schemes = schemes


class PermissionDeniedError(MetricStoreError):
    """The sender is known, and may not do what the request asks for."""


class TooManyCallsError(MetricStoreError):
    """As many calls of a kind are open as there may be.

    Attributes:
        what: The kind.
        limit: How many there may be.
        retry_after_seconds: When to try again.
    """

    def __init__(self, what: str, limit: int, retry_after_seconds: int = 1) -> None:
        super().__init__(f"{what}: {limit:,} are open, as many as may be; try again in {retry_after_seconds} s")
        self.what = what
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class QueueFullError(MetricStoreError):
    """The write queue is full.

    Attributes:
        retry_after_seconds: When to try again.
    """

    def __init__(self, queued_bytes: int, limit: int, retry_after_seconds: int = 1) -> None:
        super().__init__(
            f"write queue is full ({queued_bytes:,} of {limit:,} bytes); try again in {retry_after_seconds} s"
        )
        self.retry_after_seconds = retry_after_seconds


class NotReadyError(MetricStoreError):
    """The server is starting or stopping.

    Attributes:
        retry_after_seconds: When to try again.
    """

    def __init__(self, state: str, retry_after_seconds: int = 1) -> None:
        super().__init__(f"server is {state}; try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class DiskUnavailableError(MetricStoreError):
    """Samples cannot be made durable now; those of the request were not stored.

    Attributes:
        reason: What the disk said.
        retry_after_seconds: When to try again.
    """

    def __init__(self, reason: str, retry_after_seconds: int = 5) -> None:
        super().__init__(f"samples cannot be written to disk: {reason}; try again in {retry_after_seconds} s")
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


def reason_of(error: BaseException) -> str:
    """What went wrong, in words, with the file if one is known."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


class DirectoryError(MetricStoreError):
    """The files of the store cannot be used; nothing was changed."""


class DirectoryInUseError(DirectoryError):
    """Another process works with the directory.

    Attributes:
        directory: The directory.
    """

    def __init__(self, directory: Path, holder: str) -> None:
        super().__init__(f"{directory} is in use by {holder}; stop it first, or set another `checkpoints.directory`")
        self.directory = directory


class NewerFormatError(DirectoryError):
    """A file was written by a later release.

    Attributes:
        path: The file.
        version: Its format version.
        known: The latest version this release knows.
    """

    def __init__(self, path: Path, version: int, known: int) -> None:
        super().__init__(
            f"{path} has format version {version}, this release knows versions up to {known}; nothing was changed: "
            "use the release that wrote it, or set another `checkpoints.directory`"
        )
        self.path = path
        self.version = version
        self.known = known


class RejectReason(IntEnum):
    """Why a sample was not stored. Numbers and names are those of `ccms.v1.RejectReason`."""

    MALFORMED_LINE = 1
    LINE_TOO_LONG = 2
    INVALID_UTF8 = 3
    MISSING_CLUSTER = 4
    MISSING_HOST = 5
    INVALID_NAME = 6
    MISSING_VALUE = 7
    UNKNOWN_FIELD = 8
    UNSUPPORTED_VALUE = 9
    INVALID_NUMBER = 10
    INVALID_TIMESTAMP = 11
    UNKNOWN_METRIC = 12
    LENGTH_MISMATCH = 13
    TOO_OLD = 14
    TOO_NEW = 15
    FREED = 16
    SERIES_LIMIT = 17
