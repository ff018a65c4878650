"""From a file to a configuration: the text is parsed, its layout recognised, and a reader for it called.

It is checked within and across keys, and read-only from then on; each part of the server gets the section it needs. A
key that is `null` counts as absent. `ConfigError` names the key, its value and the rule it breaks.
"""

from pathlib import Path
from typing import Final

from ccms_server.config import layout_1_5, layout_2024
from ccms_server.config.json_section import Section, parse_json
from ccms_server.config.keys import KEYS, title
from ccms_server.config.model import Config, Layout
from ccms_server.errors import ConfigError

FILE_BYTES_MAX: Final = 4 << 20
"""Largest configuration file that is read; ten thousand metrics need a quarter of it."""

_READ: Final = {Layout.OF_2024: layout_2024.read, Layout.OF_1_5: layout_1_5.read}


def load_config(path: Path) -> Config:
    """Reads a configuration file.

    Raises:
        ConfigError: The file cannot be read, or breaks a rule; its path is part of the key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(str(path), None, f"cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(str(path), None, f"is larger than {FILE_BYTES_MAX:,} bytes")
    try:
        return parse_config(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), None, f"is not UTF-8 text at byte {error.start:,}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.key}", error.value, error.rule) from None


def parse_config(text: str) -> Config:
    """Parses the text of a configuration file of either layout.

    Raises:
        ConfigError: It breaks a rule.
    """
    content = parse_json(text)
    layout = _layout_of(content)
    return _READ[layout](Section(content, KEYS[layout]))


def _layout_of(content: object) -> Layout:
    """The layout whose keys a file has; that of 2024 if it has those of neither.

    Raises:
        ConfigError: It has keys of both.
    """
    if not isinstance(content, dict):
        return Layout.OF_2024
    of_2024, of_1_5 = KEYS[Layout.OF_2024].top, KEYS[Layout.OF_1_5].top
    only_2024 = [key for key in content if key in of_2024 and key not in of_1_5]
    only_1_5 = [key for key in content if key in of_1_5 and key not in of_2024]
    if only_2024 and only_1_5:
        stray = only_2024[0]
        raise ConfigError(
            stray,
            None,
            f"belongs to {title(Layout.OF_2024)}, but `{only_1_5[0]}` to {title(Layout.OF_1_5)}: a file has one "
            f"layout; in that of {Layout.OF_1_5}, `{stray}` is `{KEYS[Layout.OF_1_5].named(stray)}`",
        )
    return Layout.OF_1_5 if only_1_5 else Layout.OF_2024
