"""What the client drags in."""

import subprocess
import sys
from inspect import ismodule

import ccms_client


def test_the_client_needs_nothing_of_the_server():
    program = "import sys, ccms_client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(output.stdout.split())
    assert {"ccms_client", "ccms", "grpc", "numpy"} <= loaded
    assert not loaded & {
        "ccms_server",
        "ccms_gateway",
        "numba",
        "aiohttp",
        "nats",
        "orjson",
        "msgspec",
        "pandas",
        "pyarrow",
    }


def test_all_that_is_public_is_listed():
    names = {name for name, value in vars(ccms_client).items() if not name.startswith("_") and not ismodule(value)}
    assert set(ccms_client.__all__) == names
    assert sorted(ccms_client.__all__) == ccms_client.__all__


def test_help_on_the_command_line_needs_little():
    """It is to be there at once: neither gRPC nor numpy, let alone the server."""
    program = "import sys, ccms_cli.app; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(output.stdout.split())
    assert {"ccms_cli", "typer"} <= loaded
    assert not loaded & {"ccms_client", "ccms_server", "grpc", "numpy", "pyarrow", "pandas", "plotext"}
