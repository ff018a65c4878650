"""Keys that differ by their host only, so that the keys of a new host need not be read one by one.

Hosts of a cluster send the same keys but for their names. What is left of a key without the name is its template:

    load,cluster=c,hostname=n1,type=node   ->   load,cluster=c,hostname=⏎,type=node

It tells the metric, the component, and whether a cluster is named and which one. So a key with a known template means
the same as the one the template was made of, below another host, as long as that host is known to have a good name and
nothing in the key is escaped: that is why only keys without a backslash become templates, and why `decode_like_others`
takes nothing but lines of the host and cluster of the line before them.
"""

import re
from collections.abc import Sequence
from typing import Final

from ccms_server.ingest.key_table import KEY_BYTES_MEAN_MAX, Key, KeyTable
from ccms_server.ingest.line_protocol import Sample

TEMPLATES_MAX: Final = 16384
"""A cluster has some thousands: metrics times components."""

KEYS_PER_TEMPLATE: Final = 16
"""Keys that take as much memory as a template: some 100 bytes each, and 1,600 with its text and path as objects."""

TEMPLATE_BYTES_MAX: Final = KEY_BYTES_MEAN_MAX
"""Longer ones are not kept."""

BLANK: Final = b"\n"
"""Stands for the host: lines hold none."""

_HOST_TAG: Final = re.compile(rb",host(?:name)?=([^,]*)")
_SPECIAL: Final = re.compile(rb"[\\ ,=]")
"""What must be escaped within a name."""


class KeyTemplates:
    """The templates that are known.

    Attributes:
        keys: Finds the number of a template by its text.
        below_host: By number: the metric, and the path below the host.
    """

    def __init__(self, templates_max: int) -> None:
        self._templates_max = templates_max
        self.clear()

    def clear(self) -> None:
        """Forgets all templates."""
        self.keys = KeyTable(self._templates_max)
        self.below_host: list[tuple[int, tuple[str, ...]]] = []
        self._known: set[bytes] = set()

    def __len__(self) -> int:
        """Number of templates."""
        return len(self._known)

    def learn(self, samples: Sequence[Sample]) -> None:
        """Makes templates of the keys of samples. Those of one-off keys are forgotten with all others, in the end."""
        learned: list[Key] = []
        for sample in samples:
            text = template_of(sample.key, sample.path[1])
            if text is None or len(text) > TEMPLATE_BYTES_MAX or text in self._known:
                continue
            if len(self._known) == self._templates_max:
                self.clear()
                learned.clear()
            learned.append(
                Key(text, len(self.below_host), cluster=sample.path[0], is_cluster_implicit=sample.is_cluster_implicit)
            )
            self.below_host.append((sample.metric_id, sample.path[2:]))
            self._known.add(text)
        self.keys.add(learned)

    def cluster_number(self, cluster: str) -> int:
        """Number of a cluster among those that templates name; NO_NAME if none does."""
        return self.keys.name_number(cluster)


def template_of(key: bytes, host: str) -> bytes | None:
    """A key without its host; None if it is not as simple as that."""
    if b"\\" in key:
        return None
    tags = list(_HOST_TAG.finditer(key))
    if len(tags) != 1 or tags[0][1] != host.encode():
        return None
    begin, end = tags[0].span(1)
    return key[:begin] + BLANK + key[end:]


def plain_name(name: str) -> bytes:
    """A name as it stands in a line; empty if it must be escaped there."""
    text = name.encode()
    return b"" if _SPECIAL.search(text) else text
