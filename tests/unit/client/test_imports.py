"""What the client drags in."""

import subprocess
import sys


def test_the_client_needs_nothing_of_the_server():
    program = "import sys, ccms_client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(output.stdout.split())
    assert {"ccms_client", "ccms", "grpc", "numpy"} <= loaded
    assert not loaded & {"ccms_server", "ccms_gateway", "numba", "aiohttp", "nats", "orjson", "msgspec"}
