"""Line protocol for schemathesis, which knows no more of it than that it is text. Loaded as its hooks."""

import schemathesis
from hypothesis import strategies as st

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=8)


@st.composite
def lines(draw):
    """A line of a sample, with the tags that a collector sends."""
    metric = draw(st.sampled_from(["load_one", "flops_any", "unknown"]))
    tags = f"cluster={draw(NAMES)},hostname={draw(NAMES)},type={draw(st.sampled_from(['node', 'hwthread', 'socket']))}"
    if draw(st.booleans()):
        tags += f",type-id={draw(st.integers(0, 255))}"
    value = draw(st.floats(allow_nan=False, allow_infinity=False, width=32))
    return f"{metric},{tags} value={value} {draw(st.integers(1_500_000_000, 1_700_000_000))}\n"


@schemathesis.hook.apply_to(path="/api/write")
def before_generate_body(context, strategy):
    """Text that is line protocol."""
    return st.lists(lines(), max_size=20).map("".join)
