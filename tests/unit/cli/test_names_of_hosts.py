"""Ranges of names, and the order of names."""

import pytest

from ccms_cli.names import expand, natural_key


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["n1"], ["n1"]),
        (["n[1-3,7]"], ["n1", "n2", "n3", "n7"]),
        (["e[08-10]", "e09"], ["e08", "e09", "e10"]),
        (["r[1-2]n[1-2]"], ["r1n1", "r1n2", "r2n1", "r2n2"]),
        (["a,b[1-2]"], ["a", "b1", "b2"]),
        ([], []),
    ],
)
def test_ranges(texts, names):
    assert expand(texts) == names


@pytest.mark.parametrize("text", ["n[1-", "n]1[", "n[a-b]", "n[3-1]", "n[]", "a,,b", "n[1-999999]", "n[1-400][1-400]"])
def test_what_is_no_range_is_told(text):
    with pytest.raises(ValueError, match=r"write `n|empty name|ends before|more than 100,000"):
        expand([text])


def test_numbers_in_names_count_as_numbers():
    names = ["n10", "n2", "login", "n2-hwthread10", "n2-hwthread9"]
    assert sorted(names, key=natural_key) == ["login", "n2", "n2-hwthread9", "n2-hwthread10", "n10"]
