"""The plot shows what was measured, and changes only with it."""

from xml.etree import ElementTree

from benchmarks.figures import SeriesCost
from benchmarks.plot import write_plot

COSTS = [
    SeriesCost(series, lines_per_batch, cpu_ns_per_line, 1.5)
    for lines_per_batch, ns in ((426, 600.0), (4260, 150.0))
    for series, cpu_ns_per_line in ((10_224, ns), (100_110, ns + 10), (1_000_248, ns + 50))
]


def test_axes_have_titles_and_units_and_each_curve_its_name(tmp_path):
    write_plot(tmp_path / "plot.svg", COSTS)

    texts = {element.text for element in ElementTree.parse(tmp_path / "plot.svg").iter() if element.text}
    assert {
        "What a line costs, by the number of series",
        "series in the server",
        "CPU time of the server per line (ns)",
        "batches of 426 lines",
        "batches of 4,260 lines",
        "10 k",
        "1 M",
    } <= texts


def test_the_same_figures_make_the_same_file(tmp_path):
    write_plot(tmp_path / "first.svg", COSTS)
    write_plot(tmp_path / "second.svg", COSTS[::-1])
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
    assert "date" not in (tmp_path / "first.svg").read_text()
