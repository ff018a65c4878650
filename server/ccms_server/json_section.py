"""Objects of a JSON file, read key by key: the reader says what may be there, and every fault is named by its path."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final, NoReturn

from ccms_server.duration import DURATION_FORM, parse_seconds
from ccms_server.errors import ConfigError

_PLAIN_KEY: Final = re.compile(r"[^\s.\[\]]+")


class JsonObject(dict[str, object]):
    """An object of the file that remembers which keys it names twice: a plain one keeps the last of them in silence."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.repeated: Final = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


class Section:
    """One object of the file. A key that is `null` counts as absent.

    Attributes:
        path: Where the object is in the file, `nats[0].subscriptions[1]`; empty for the file itself.
    """

    def __init__(self, path: str, value: object, *, known: Collection[str] | None) -> None:
        """Takes what the file holds at `path`.

        Args:
            path: Where it is.
            value: What is there.
            known: Keys it may have; None where keys are names of the user's choice.

        Raises:
            ConfigError: It is no object, or has a key that is unknown or repeated.
        """
        self.path: Final = path
        if not isinstance(value, JsonObject):
            raise wrong_type(path or "file", value, "an object")
        self._value_by_key: Final = value
        for key in value.repeated:
            self.fail(key, None, "is there more than once")
        for key in value:
            if known is not None and key not in known:
                # Without its value, which may be a password under a misspelt key.
                self.fail(key, None, f"unknown key; {_suggestion(key, known)}")

    def path_of(self, key: str) -> str:
        """Path of one of the object's keys; a name that would not read well there is quoted."""
        if not (_PLAIN_KEY.fullmatch(key) and key.isprintable()):
            return f"{self.path}[{key!r}]"
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, value: object, rule: str) -> NoReturn:
        """Reports a key that breaks a rule; its value is left out when None."""
        raise ConfigError(self.path_of(key), value, rule)

    def text(self, key: str, default: str | None = None, *, form: str = "text", secret: bool = False) -> str:
        """Reads text.

        Args:
            key: Where it is.
            default: What an absent key stands for; None: the key is required.
            form: What the text should be, for the message when it is something else.
            secret: Keep the value out of that message.
        """
        value = self._required(key, default)
        if not isinstance(value, str):
            raise wrong_type(self.path_of(key), value, form, secret=secret)
        return value

    def truth(self, key: str, default: bool | None = None) -> bool:
        """Reads `true` or `false`; None as default makes it required."""
        value = self._required(key, default)
        if not isinstance(value, bool):
            raise wrong_type(self.path_of(key), value, "true or false")
        return value

    def whole_number(self, key: str, default: int | None = None, *, least: int, most: int) -> int:
        """Reads a whole number from `least` to `most`, both included; None as default makes it required."""
        value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(self.path_of(key), value, "a whole number")
        if not least <= value <= most:
            self.fail(key, value, f"must be from {least:,} to {most:,}")
        return value

    def number(self, key: str, default: float | None = None, *, least: int, most: int) -> float:
        """Reads a number from `least` to `most`, both included; None as default makes it required."""
        value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(self.path_of(key), value, "a number")
        if not least <= value <= most:
            self.fail(key, value, f"must be from {least:,} to {most:,}")
        return value

    def seconds(self, key: str, default: int | None = None) -> int:
        """Reads a duration into whole seconds, rounded away from zero; None as default makes it required."""
        if default is not None and self._value_by_key.get(key) is None:
            return default
        text = self.text(key, form=DURATION_FORM)
        try:
            return parse_seconds(text)
        except ValueError as error:
            raise ConfigError(self.path_of(key), text, str(error)) from None

    def section(self, key: str, *, known: Collection[str] | None) -> "Section | None":
        """Reads an object below this one; None when it is absent."""
        value = self._value_by_key.get(key)
        return None if value is None else Section(self.path_of(key), value, known=known)

    def required_section(self, key: str, *, known: Collection[str] | None) -> "Section":
        """Reads an object below this one."""
        return Section(self.path_of(key), self._required(key, None), known=known)

    def list_of_sections(self, key: str, *, known: Collection[str]) -> "list[Section]":
        """Reads a list of objects; an absent one is empty."""
        values = self._value_by_key.get(key)
        if values is None:
            return []
        if not isinstance(values, list):
            raise wrong_type(self.path_of(key), values, "a list")
        return [Section(f"{self.path_of(key)}[{index}]", value, known=known) for index, value in enumerate(values)]

    def sections_by_name(self, *, known: Collection[str]) -> "Iterator[tuple[str, Section]]":
        """Reads an object whose keys are names of the user's choice, and whose values are objects alike."""
        for name, value in self._value_by_key.items():
            yield name, Section(self.path_of(name), value, known=known)

    def _required(self, key: str, default: object) -> object:
        value = self._value_by_key.get(key)
        if value is None:
            value = default
        if value is None:
            self.fail(key, None, "is required")
        return value


def parse_json(text: str) -> object:
    """Parses a file whose objects are to be read as a `Section`.

    Raises:
        ConfigError: It is no JSON; the line and the column are named.
    """
    try:
        return json.loads(text, object_pairs_hook=JsonObject, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"line {error.lineno}, column {error.colno}", None, f"this is not JSON: {error.msg}"
        ) from None
    except RecursionError:
        raise ConfigError("file", None, "is nested too deeply") from None
    except ValueError:  # what Python says of an integer of more than 4300 digits
        raise ConfigError("file", None, "holds a number of thousands of digits") from None


def wrong_type(path: str, value: object, wanted: str, *, secret: bool = False) -> ConfigError:
    """What to raise for a value of the wrong type; lists, objects and secrets are named by their type alone."""
    if value is None or secret or isinstance(value, list | dict):
        return ConfigError(path, None, f"must be {wanted}, is {_type_name(value)}")
    return ConfigError(path, value, f"must be {wanted}")


def _type_name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


def _suggestion(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key.lower().replace("_", "-"), known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(f'`{name}`' for name in sorted(known))}"


def _refuse_constant(name: str) -> NoReturn:
    raise ConfigError("file", None, f"is not JSON: {name} is no number there")
