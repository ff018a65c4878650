"""The keys of both layouts: what a file may hold where, and what each key is called in the other layout.

A key is written as its path: `nats[].subscriptions[].subscribe-to` is in objects of lists, `metrics.{name}.frequency`
below a name of the user's choice. The *place* of an object is its path in the same form; that of the file is empty.
"""

import difflib
from collections.abc import Iterable
from typing import Final

from ccms_server.config.model import Layout

NAME: Final = "{name}"
"""Stands for names of the user's choice."""

_IN_BOTH: Final = (
    "metrics.{name}.frequency",
    "metrics.{name}.aggregation",
    "metrics.{name}.unit",
    "grpc-api.address",
    "auth.enforce-roles",
    "auth.basic[].username",
    "auth.basic[].password",
    "limits.series",
    "limits.request-bytes",
    "limits.queue-bytes",
    "limits.line-bytes",
    "limits.query-points",
    "limits.query-series",
    "limits.future",
    "limits.open-window-bytes",
)
_OF_2024_AND_1_5: Final[tuple[tuple[str, str | None], ...]] = (
    *((key, key) for key in _IN_BOTH),
    ("http-api.address", "main.addr"),
    ("http-api.https-cert-file", "main.https-cert-file"),
    ("http-api.https-key-file", "main.https-key-file"),
    ("http-api.client-ca-file", "main.client-ca-file"),
    ("http-api.compression", "main.compression"),
    ("jwt-public-key", "main.jwt-public-key"),
    ("user", "main.user"),
    ("group", "main.group"),
    ("backend-url", "main.backend-url"),
    ("backend-token-file", "main.backend-token-file"),
    ("debug.dump-to-file", "main.debug.dump-to-file"),
    ("debug.gops", "main.debug.gops"),
    ("debug.dump-to-file", "metric-store.debug.dump-to-file"),
    ("debug.gops", "metric-store.debug.gops"),
    ("retention-in-memory", "metric-store.retention-in-memory"),
    ("memory-cap", "metric-store.memory-cap"),
    ("num-workers", "metric-store.num-workers"),
    ("checkpoints.file-format", "metric-store.checkpoints.file-format"),
    ("checkpoints.interval", "metric-store.checkpoint-interval"),
    ("checkpoints.directory", "metric-store.checkpoints.directory"),
    ("checkpoints.restore", None),
    ("checkpoints.sync", "metric-store.checkpoints.sync"),
    ("checkpoints.wal-bytes", "metric-store.checkpoints.wal-bytes"),
    ("checkpoints.max-wal-size", "metric-store.checkpoints.max-wal-size"),
    ("checkpoints.retention", "metric-store.checkpoints.retention"),
    ("archive.interval", None),
    ("archive.directory", "metric-store.cleanup.directory"),
    ("archive.delete-instead", "metric-store.cleanup.mode"),
    ("archive.file-format", "metric-store.cleanup.file-format"),
    ("nats[].address", "nats.address"),
    ("nats[].username", "nats.username"),
    ("nats[].password", "nats.password"),
    ("nats[].creds-file-path", "nats.creds-file-path"),
    ("nats[].tls-ca-file", "nats.tls-ca-file"),
    ("nats[].tls-cert-file", "nats.tls-cert-file"),
    ("nats[].tls-key-file", "nats.tls-key-file"),
    ("nats[].subscriptions[].subscribe-to", "metric-store.nats-subscriptions[].subscribe-to"),
    ("nats[].subscriptions[].cluster-tag", "metric-store.nats-subscriptions[].cluster-tag"),
)
_WHY_NOT_IN_1_5: Final = {
    "checkpoints.restore": "all samples that are retained are there after a start",
    "archive.interval": "samples are cleaned up when they are older than `metric-store.retention-in-memory`",
}


class Keys:
    """The keys of one layout.

    Attributes:
        paths: All of them.
        top: Those of the file itself.
    """

    def __init__(self, layout: Layout) -> None:
        """Lists them.

        Args:
            layout: Whose keys they are.
        """
        pairs = [pair if layout is Layout.OF_2024 else pair[::-1] for pair in _OF_2024_AND_1_5]
        self._layout: Final = layout
        self.paths: Final = tuple(dict.fromkeys(own for own, _ in pairs if own is not None))
        self._known: Final = _keys_by_place(self.paths)
        self.top: Final = frozenset(self._known[""])
        self._other_places: dict[str, list[str]] = {}
        """By place: places in the other layout with keys that belong there in this one."""
        self._own_names: dict[str, str | None] = {}
        """By key or object of the other layout: what it is called in this one; None: it has no such thing."""
        for own, other in pairs:
            if other is not None:
                self._own_names.setdefault(other, own)
            if own is not None and other is not None:
                self._other_places.setdefault(_place(own), []).append(_place(other))
                self._own_names.setdefault(_place(other).removesuffix("[]"), _place(own).removesuffix("[]"))

    def known(self, place: str) -> frozenset[str] | None:
        """Keys that the object at a place may have; None where they are names of the user's choice."""
        known = self._known[place]
        return None if NAME in known else frozenset(known)

    def advice(self, place: str, key: str) -> str:
        """What to do about an unknown key of the object at a place."""
        for other in (joined(place, key) for place in self._other_places.get(place, ())):
            if other in self._own_names:
                own = self._own_names[other]
                is_ = f"is `{own}`" if own else f"does not exist: {_WHY_NOT_IN_1_5[other]}"
                return f"in {title(self._layout)}, which this file has, it {is_}"
        if close := difflib.get_close_matches(key.lower().replace("_", "-"), self._known[place], n=1):
            return f"did you mean `{close[0]}`?"
        elsewhere = [path for path in self.paths if path.endswith(f".{key}") or path == key]
        if len(elsewhere) == 1:
            return f"its place is `{elsewhere[0]}`"
        return f"known here: {', '.join(f'`{name}`' for name in sorted(self._known[place]))}"

    def named(self, key_of_2024: str) -> str:
        """What this layout calls a key, or an object, of the 2024 layout.

        Raises:
            KeyError: It has no such thing.
        """
        name = key_of_2024 if self._layout is Layout.OF_2024 else self._own_names[key_of_2024]
        if name is None:
            raise KeyError(key_of_2024)
        return name


def title(layout: Layout) -> str:
    """A layout, for messages."""
    return "the layout of 2024" if layout is Layout.OF_2024 else f"the layout of release {layout}"


def joined(place: str, key: str) -> str:
    """Path of a key of the object at a place."""
    return f"{place}.{key}" if place else key


def _place(path: str) -> str:
    """Place of the object that has a key."""
    return path.rpartition(".")[0]


def _keys_by_place(paths: Iterable[str]) -> dict[str, list[str]]:
    """The keys of every object, in order, each once."""
    known: dict[str, list[str]] = {}
    for path in paths:
        steps = path.split(".")
        for depth, step in enumerate(steps):
            keys = known.setdefault(".".join(steps[:depth]), [])
            if (key := step.removesuffix("[]")) not in keys:
                keys.append(key)
    return known


KEYS: Final = {layout: Keys(layout) for layout in Layout}
"""By layout."""
