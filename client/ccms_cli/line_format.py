"""Samples as line protocol."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from ccms_cli.stored_series import Run
from ccms_client import SeriesKey

_TYPES: Final = ("hwthread", "core", "socket", "memoryDomain", "die", "accelerator")
"""Kinds of components that collectors know; of any other, all but a number at the end is taken for the type."""
_NUMBERED: Final = re.compile(r"(.*\D)(\d+)", re.DOTALL)
_SEPARATORS: Final = re.compile(r"([ ,=])")


def lines_of(runs: Iterable[Run]) -> Iterator[bytes]:
    """Lines, each run's as one text."""
    for run in runs:
        head = f"{series_text(run.key)} value="
        yield "".join(
            f"{head}{value!r} {timestamp}\n"
            for timestamp, value in zip(run.timestamps.tolist(), run.values.tolist(), strict=True)
        ).encode()


def series_text(key: SeriesKey) -> str:
    """The beginning of a series' lines: measurement and tags.

    >>> series_text(SeriesKey("flops_any", "alex", "n1", "hwthread3"))
    'flops_any,cluster=alex,hostname=n1,type=hwthread,type-id=3'
    """
    tags = [("cluster", key.cluster), ("hostname", key.host)]
    if key.component:
        tags += zip(("type", "type-id"), type_and_id(key.component), strict=True)
    if key.subcomponent:
        tags += zip(("stype", "stype-id"), type_and_id(key.subcomponent), strict=True)
    return _escaped(key.metric) + "".join(f",{tag}={_escaped(text)}" for tag, text in tags if text)


def type_and_id(name: str) -> tuple[str, str]:
    """A component's name, cut in two; the server runs both together again."""
    for kind in _TYPES:
        if name.startswith(kind):
            return kind, name[len(kind) :]
    found = _NUMBERED.fullmatch(name)
    if found is not None:
        return found[1], found[2]
    return (name[:1], name[1:]) if name == "node" else (name, "")  # as a type it would be the host itself


def _escaped(text: str) -> str:
    return _SEPARATORS.sub(r"\\\1", text)
