"""Names of hosts and components: ranges of them, and the order people expect."""

import re
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final

NAMES_MAX: Final = 100_000
"""Names that ranges may amount to: as many hosts as the server tells the health of at a time."""

_GROUP: Final = re.compile(r"\[([^\[\]]*)\]")
_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?")


def expand(texts: Iterable[str]) -> list[str]:
    """Names from lists and ranges of them, as resource managers write them.

    Args:
        texts: Each is a name, `e[0101-0108]`, `n[1-3,7]`, or several with commas between them; leading zeros are kept.

    Returns:
        The names, each once, in that order.

    Raises:
        ValueError: A range is none, or there are too many names.

    >>> expand(["n[1-3,7]", "login,e[08-10]"])
    ['n1', 'n2', 'n3', 'n7', 'login', 'e08', 'e09', 'e10']
    """
    names: dict[str, None] = {}
    for text in texts:
        for item in _split(text):
            for name in _expand_one(item):
                names[name] = None
                if len(names) > NAMES_MAX:
                    raise ValueError(f"{text!r} amounts to more than {NAMES_MAX:,} names: ask for less at a time")
    return list(names)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts names by the numbers in them: `hwthread2` comes before `hwthread10`.

    >>> sorted(["n10", "n2", "login"], key=natural_key)
    ['login', 'n2', 'n10']
    """
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def _split(text: str) -> list[str]:
    """The items between commas that are not within brackets."""
    items = [item.strip() for item in re.split(r",(?![^\[]*\])", text)]
    if not all(items):
        raise ValueError(f"{text!r} has an empty name: remove the comma")
    return items


def _expand_one(item: str) -> Iterator[str]:
    pieces = _GROUP.split(item)  # text, inside of brackets, text, ...
    if any(bracket in piece for piece in pieces[::2] for bracket in "[]"):
        raise ValueError(f"{item!r} has a bracket too many: write `n[1-3,7]`")
    choices = [[piece] if place % 2 == 0 else _numbers(piece, item) for place, piece in enumerate(pieces)]
    return map("".join, product(*choices))


def _numbers(inside: str, item: str) -> list[str]:
    numbers: list[str] = []
    for part in inside.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{item!r}: {part!r} is neither a number nor a range of numbers: write `n[1-3,7]`")
        first, last = found[1], found[2] or found[1]
        if int(last) < int(first):
            raise ValueError(f"{item!r}: {part!r} ends before it begins: swap the numbers")
        if int(last) - int(first) >= NAMES_MAX:
            raise ValueError(f"{item!r} amounts to more than {NAMES_MAX:,} names: ask for less at a time")
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return numbers


def literal_pattern(name: str) -> str:
    """A shell pattern that matches one name.

    >>> literal_pattern("n[1]*")
    'n[[]1][*]'
    """
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
