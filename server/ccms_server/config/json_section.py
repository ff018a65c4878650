"""Objects of a JSON file, read key by key: `keys` says what may be there, and every fault is named by its path."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NoReturn, TypeVar

from ccms_server.config.keys import NAME, Keys, joined
from ccms_server.duration import DURATION_FORM, parse_seconds
from ccms_server.errors import ConfigError

Choice = TypeVar("Choice", bound=StrEnum)

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

    def __init__(self, value: object, keys: Keys, path: str = "", place: str = "") -> None:
        """Takes what the file holds at `path`.

        Args:
            value: What is there.
            keys: What may be there.
            path: Where it is.
            place: Where it is, as `keys` has it.

        Raises:
            ConfigError: It is no object, or has a key that is unknown or repeated.
        """
        self.path: Final = path
        if not isinstance(value, JsonObject):
            raise wrong_type(path or "file", value, "an object")
        self._value_by_key: Final = value
        self._keys: Final = keys
        self._place: Final = place
        known = keys.known(place)
        for key in value.repeated:
            self.fail(key, None, "is there more than once")
        for key in value:
            if known is not None and key not in known:
                # Without its value, which may be a password under a misspelt key.
                self.fail(key, None, f"unknown key; {keys.advice(place, key)}")

    def path_of(self, key: str) -> str:
        """Path of one of the object's keys; a name that would not read well there is quoted."""
        if not (_PLAIN_KEY.fullmatch(key) and key.isprintable()):
            return f"{self.path}[{key!r}]"
        return joined(self.path, key)

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

    def choice(self, key: str, default: Choice, *, remedy: str = "") -> Choice:
        """Reads one of a few words.

        Args:
            key: Where it is.
            default: What an absent key stands for.
            remedy: What to do about any other word, for the message.
        """
        words = " or ".join(f"`{word}`" for word in type(default))
        text = self.text(key, default, form=words)
        if text not in set(type(default)):
            self.fail(key, text, f"must be {words}{remedy}")
        return type(default)(text)

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

    def require_together(self, first: str, second: str) -> None:
        """Refuses text at one key without text at the other."""
        for absent, present in ((first, second), (second, first)):
            if self._value_by_key.get(present) and not self._value_by_key.get(absent):
                self.fail(absent, None, f"is required with `{present}`")

    def section(self, key: str) -> "Section | None":
        """Reads an object below this one; None when it is absent."""
        value = self._value_by_key.get(key)
        return None if value is None else self._below(key, value)

    def section_or_empty(self, key: str) -> "Section":
        """Reads an object below this one; an absent one is empty."""
        value = self._value_by_key.get(key)
        return self._below(key, JsonObject([]) if value is None else value)

    def required_section(self, key: str) -> "Section":
        """Reads an object below this one."""
        return self._below(key, self._required(key, None))

    def list_of_sections(self, key: str) -> "list[Section]":
        """Reads a list of objects; an absent one is empty."""
        values = self._value_by_key.get(key)
        if values is None:
            return []
        if not isinstance(values, list):
            raise wrong_type(self.path_of(key), values, "a list")
        path, place = self.path_of(key), f"{joined(self._place, key)}[]"
        return [Section(value, self._keys, f"{path}[{index}]", place) for index, value in enumerate(values)]

    def sections_by_name(self) -> "Iterator[tuple[str, Section]]":
        """Reads an object whose keys are names of the user's choice, and whose values are objects alike."""
        for name, value in self._value_by_key.items():
            yield name, Section(value, self._keys, self.path_of(name), joined(self._place, NAME))

    def _below(self, key: str, value: object) -> "Section":
        return Section(value, self._keys, self.path_of(key), joined(self._place, key))

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


def _refuse_constant(name: str) -> NoReturn:
    raise ConfigError("file", None, f"is not JSON: {name} is no number there")
