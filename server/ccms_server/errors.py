"""What can go wrong, told apart by what the caller can do about it.

MetricStoreError
├── ConfigError          the configuration breaks a rule: mend the file
├── RequestError         the request breaks a rule: mend the request
│   ├── InvalidRequestError   a field has a wrong type or value
│   └── LimitExceededError    the answer or the request would be larger than allowed: ask for less
├── QueueFullError       the server is behind: send again later
└── NotReadyError        the server is starting or stopping: send again later

What is wrong with a single sample is no exception: it is a `RejectReason`, counted beside the samples that were stored.
Front ends translate exceptions into status codes in one table each.
"""

from enum import IntEnum


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
