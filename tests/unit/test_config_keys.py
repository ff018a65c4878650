"""The keys of both layouts: each is read, each has a name in the other layout, and any other file is refused."""

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccms_server.config import Config, Layout, inactive_features, load_config, parse_config
from ccms_server.config.keys import _OF_2024_AND_1_5, KEYS
from ccms_server.errors import ConfigError

CORPUS = Path(__file__).parents[1] / "data" / "config"
FULL = {
    layout: json.loads((CORPUS / name).read_text())
    for layout, name in [
        (Layout.OF_2024, "everything-new.good.json"),
        (Layout.OF_1_5, "layout-1.5-everything-new.good.json"),
    ]
}
PATHS = sorted(
    {
        (layout, path)
        for pair in _OF_2024_AND_1_5
        for layout, path in zip((Layout.OF_2024, Layout.OF_1_5), pair, strict=True)
        if path is not None
    }
)


def placed(layout, path, value):
    """A good file, with a value at a path: in the first entries of lists, below the name `cpu_load`."""
    content = copy.deepcopy(FULL[layout])
    *way, last = path.replace("{name}", "cpu_load").split(".")
    at = content
    for step in way:
        at = at.setdefault(step.removesuffix("[]"), [{}] if step.endswith("[]") else {})
        at = at[0] if step.endswith("[]") else at
    at[last] = value
    return json.dumps(content)


def shown(path):
    return path.replace("[]", "[0]").replace("{name}", "cpu_load")


@pytest.mark.parametrize(("layout", "path"), PATHS)
def test_every_key_is_read(layout, path):
    with pytest.raises(ConfigError) as caught:
        parse_config(placed(layout, path, {"an": "object"}))
    assert caught.value.key == shown(path)
    assert caught.value.rule.startswith("must be ")


@pytest.mark.parametrize(("layout", "path"), PATHS)
def test_unknown_keys_are_refused_everywhere(layout, path):
    place = path.rpartition(".")[0]
    with pytest.raises(ConfigError) as caught:
        parse_config(placed(layout, f"{place}.nonsense" if place else "nonsense", 1))
    assert caught.value.key == shown(f"{place}.nonsense" if place else "nonsense")
    assert caught.value.rule.startswith("unknown key; ")


@pytest.mark.parametrize(
    ("of_2024", "of_1_5"), [pair for pair in _OF_2024_AND_1_5 if pair[0] != pair[1] and pair[1] is not None]
)
def test_both_layouts_know_what_the_other_calls_a_key(of_2024, of_1_5):
    assert KEYS[Layout.OF_2024].named(of_2024) == of_2024
    name = KEYS[Layout.OF_1_5].named(of_2024)
    assert name == of_1_5 or (of_2024.startswith("debug.") and name == f"main.{of_2024}")


@pytest.mark.parametrize("key", ["checkpoints.restore", "archive.interval"])
def test_what_release_1_5_does_not_have_has_no_name_there(key):
    with pytest.raises(KeyError):
        KEYS[Layout.OF_1_5].named(key)


LEAVES = sorted({path.rpartition(".")[2] for _, path in PATHS} | {path.partition(".")[0] for _, path in PATHS})


PLACES = sorted({(layout, path.rpartition(".")[0]) for layout, path in PATHS})


@pytest.mark.parametrize(("layout", "place"), PLACES)
def test_there_is_advice_for_any_key_in_any_place(layout, place):
    own = {path for each, path in PATHS if each is layout}
    objects = {path[: dot.start()].removesuffix("[]") for path in own for dot in re.finditer(r"\.", path)}
    for key in set(LEAVES) - KEYS[layout].known(place):
        advice = KEYS[layout].advice(place, key)
        if found := re.search("(?:it is|its place is) `(.*)`$", advice):
            assert found[1] in own | objects
        else:
            assert re.search("^did you mean `.*`[?]$|^known here: `|, it does not exist: ", advice)


words = st.sampled_from([*LEAVES, "cpu_load", "48h", "localhost:1", "updates", "json", "archive", "always", ""])
texts = st.text(st.sampled_from("aZ09.,:/@-[]'\"\\ \n\0\x85\ud800\u00fc\u0663\U0001f600"), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | texts, inner, max_size=6),
    max_leaves=12,
)
anyhow = settings(deadline=None)  # the first example pays for what Python compiles only once


def outcome(text):
    """What reading a configuration comes to."""
    try:
        return parse_config(text)
    except ConfigError as error:
        return error


def is_in_order(found):
    """Whether that is a configuration, or an error that can be told in a line."""
    if isinstance(found, Config):
        return all(inactive_features(found))
    return bool(found.key and found.rule) and "\n" not in str(found)


@anyhow
@given(values)
def test_any_json_is_a_configuration_or_an_error_in_it(value):
    assert is_in_order(outcome(json.dumps(value)))


@anyhow
@given(st.sampled_from(PATHS), values)
def test_any_value_of_any_key_is_good_or_an_error_in_it(key, value):
    assert is_in_order(outcome(placed(*key, value)))


@anyhow
@given(st.sampled_from(list(Layout)), st.dictionaries(words, values, max_size=4))
def test_any_further_sections_are_good_or_an_error_in_them(layout, sections):
    assert is_in_order(outcome(json.dumps(FULL[layout] | sections)))


@anyhow
@given(st.binary(max_size=100))
def test_any_bytes_are_an_error_in_them(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(path)
