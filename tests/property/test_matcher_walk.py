"""Walking the tree for a matcher finds what asking it about every series finds, page by page."""

from itertools import chain, islice

from hypothesis import given
from hypothesis import strategies as st

from ccms_server.matcher import SeriesMatcher, matching_chunks
from ccms_server.model import SeriesName
from ccms_server.store.metric import Metric
from ccms_server.store.store import Store
from ccms_server.store.tile_pool import TILE_BYTES

METRICS = ["a", "ab", "b"]

names = st.text("ab[", min_size=1, max_size=3)
paths = st.one_of(*(st.tuples(*[names] * depth) for depth in (2, 3, 4)))
stored = st.lists(st.tuples(st.integers(0, len(METRICS) - 1), paths), max_size=30)
patterns = st.lists(st.text("ab*?[]!-", min_size=1, max_size=4), max_size=3)
optional = st.lists(st.text("ab*?[]!-", max_size=4), max_size=3)
matchers = st.fixed_dictionaries(
    {"clusters": patterns, "hosts": patterns, "components": optional, "subcomponents": optional, "metrics": patterns}
)


def series_behind(store, matcher, last):
    return chain.from_iterable(matching_chunks(store, matcher, last))


@given(stored, matchers, st.integers(1, 5))
def test_the_pages_of_a_walk_are_all_series_that_match_in_order(stored, patterns, page_size):
    store = Store([Metric(name, 60) for name in METRICS], series_max=100, open_window_bytes=TILE_BYTES)
    for metric_id, path in stored:
        store.series_id(metric_id, path)
    matcher = SeriesMatcher.compile(**patterns)
    series = {SeriesName(METRICS[metric_id], *path) for metric_id, path in stored}
    matching = [name for name in series if matcher.matches(name.path, name.metric)]

    found: list[SeriesName] = []
    while page := list(islice(series_behind(store, matcher, found[-1] if found else None), page_size)):
        found += [SeriesName(METRICS[each.metric_id], *each.path) for each in page]
    assert found == sorted(matching, key=lambda name: (*name[1:], name.metric))
