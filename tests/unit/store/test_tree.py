import pytest

from ccms_server.store.tree import Tree

POWER, CLOCK = 0, 1


def anything_has_samples(_series):
    return True


@pytest.fixture
def tree():
    tree = Tree()
    for number, name in enumerate(["hwthread0", "hwthread1", "socket0"]):
        tree.make(("alpha", "n1", name)).series[POWER] = number
    tree.make(("alpha", "n2")).series[POWER] = 10
    return tree


def group(tree, path, metric=POWER, has_samples=anything_has_samples, version=0):
    return tree.find(path).group(metric, version, has_samples).tolist()


def test_a_level_without_a_series_is_made_of_those_below(tree):
    assert group(tree, ("alpha", "n1")) == [0, 1, 2]
    assert group(tree, ("alpha",)) == [0, 1, 2, 10]


def test_a_levels_own_series_wins(tree):
    tree.make(("alpha", "n1")).series[POWER] = 7
    assert group(tree, ("alpha", "n1")) == [7]


def test_an_own_series_without_samples_does_not_win(tree):
    tree.make(("alpha", "n1")).series[POWER] = 7
    assert group(tree, ("alpha", "n1"), has_samples=lambda series: series != 7) == [0, 1, 2]


def test_a_metric_nobody_has_is_an_empty_group(tree):
    assert group(tree, ("alpha", "n1"), metric=CLOCK) == []


def test_a_group_is_remembered_until_the_version_changes(tree):
    assert group(tree, ("alpha", "n1")) == [0, 1, 2]
    tree.make(("alpha", "n1", "hwthread9")).series[POWER] = 9
    assert group(tree, ("alpha", "n1")) == [0, 1, 2]
    assert group(tree, ("alpha", "n1"), version=1) == [0, 1, 2, 9]


def test_what_does_not_exist_is_not_made_by_looking(tree):
    assert tree.find(("alpha", "n3")) is None
    assert tree.find(("beta", "n1", "socket0")) is None
    assert tree.names_below(("beta",)) == []
    assert tree.names_below(("alpha",)) == ["n1", "n2"]


def test_walk_visits_a_level_and_all_below(tree):
    assert len(tree.find(("alpha",)).walk()) == 1 + 2 + 3
