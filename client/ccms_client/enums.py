"""Values of enums, as their names."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

_Number = TypeVar("_Number", bound=int)


class _Enum(Protocol[_Number]):
    """What is generated for an enum."""

    def Name(self, number: _Number) -> str: ...  # noqa: N802  name of protobuf
    def values(self) -> Sequence[_Number]: ...


def enum_name(enum: _Enum[_Number], number: _Number, prefix: str) -> str:
    """Name of a value without the prefix of its enum; that of a newer server has none here, and stays a number."""
    return enum.Name(number).removeprefix(prefix) if number in enum.values() else str(number)
