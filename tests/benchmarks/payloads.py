"""What a cluster's collectors send: one batch of lines for each host and time step, the same keys every time."""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

INTERVAL_SECONDS = 60
CLUSTER = "bench"
_STAMP = b"@TS@"
CONSTANT_SHARE = 0.25
"""Of the series, which never change; all others walk at random."""
STEP_SIZES = (0.1, 10.0)
"""Standard deviations of the steps from one value of a series to the next, which are logarithmically uniform. Values
from 0 to 1000 with three decimals that walk like that take about as many bytes as those of real jobs do.
"""

LINES_PER_HOST = 426
HWTHREADS = 64
SOCKETS = 2
ACCELERATORS = 4

SUMMED, AVERAGED, NOT_AGGREGATED = "sum", "avg", None
OF_HOST = {
    "cpu_load": NOT_AGGREGATED,
    "mem_used": NOT_AGGREGATED,
    "net_bw": NOT_AGGREGATED,
    "file_bw": NOT_AGGREGATED,
    "cpu_user": AVERAGED,
    "cpu_system": AVERAGED,
    "cpu_idle": AVERAGED,
    "cpu_iowait": AVERAGED,
    "net_bytes_in": NOT_AGGREGATED,
    "net_bytes_out": NOT_AGGREGATED,
    "nfs4_read": NOT_AGGREGATED,
    "nfs4_write": NOT_AGGREGATED,
    "lustre_open": NOT_AGGREGATED,
    "lustre_close": NOT_AGGREGATED,
    "lustre_read_bytes": NOT_AGGREGATED,
    "lustre_write_bytes": NOT_AGGREGATED,
    "ib_recv": SUMMED,
    "ib_xmit": SUMMED,
    "ib_recv_pkts": SUMMED,
    "ib_xmit_pkts": SUMMED,
}
OF_HWTHREAD = {
    "flops_any": SUMMED,
    "flops_dp": SUMMED,
    "flops_sp": SUMMED,
    "ipc": AVERAGED,
    "clock": AVERAGED,
    "vectorization_ratio": AVERAGED,
}
OF_SOCKET = {"mem_bw": SUMMED, "cpu_power": SUMMED, "mem_power": SUMMED}
OF_ACCELERATOR = {"acc_utilization": AVERAGED, "acc_mem_used": SUMMED, "acc_power": SUMMED, "nv_temp": AVERAGED}


def metrics() -> dict[str, dict[str, object]]:
    """The section `metrics` of a configuration that knows all that is sent."""
    every = OF_HOST | OF_HWTHREAD | OF_SOCKET | OF_ACCELERATOR
    return {name: {"frequency": INTERVAL_SECONDS, "aggregation": rule} for name, rule in every.items()}


class Batch:
    """Lines that are sent together at every time step, with values that go on from one to the next.

    Attributes:
        n_lines: How many they are.
    """

    def __init__(self, text: bytes, values: NDArray[np.float64], step_sizes: NDArray[np.float64]) -> None:
        """Makes a batch.

        Args:
            text: Its lines, with `%.3f` for each value.
            values: float64 array of shape (n_lines,): the first ones, not negative.
            step_sizes: float64 array of the same shape: standard deviations of the steps from one value to the next.
        """
        self.n_lines = len(values)
        self._text = text
        self._values = values
        self._step_sizes = step_sizes
        self._generator = np.random.default_rng(len(values))

    def at(self, timestamp: int) -> bytes:
        """The lines of the next time step, which is at this time, in seconds."""
        text = self._text % tuple(self._values.tolist())
        self._values = np.abs(self._values + self._generator.standard_normal(self.n_lines) * self._step_sizes)
        return text.replace(_STAMP, b"%d" % timestamp)

    @classmethod
    def joined(cls, batches: Sequence["Batch"]) -> "Batch":
        """The lines of several batches; they do not change."""
        return cls(
            b"".join(batch._text for batch in batches),
            np.concatenate([batch._values for batch in batches]),
            np.concatenate([batch._step_sizes for batch in batches]),
        )


def host_batches(hosts: int, *, first: int = 0, cluster: str = CLUSTER) -> list[Batch]:
    """A batch of each host, 426 lines; always the same ones.

    Args:
        hosts: How many.
        first: Number of the first one.
        cluster: They belong to.
    """
    generator = random.Random(426)
    return [_host_batch(generator, cluster, host_name(first + number)) for number in range(hosts)]


def host_name(number: int) -> str:
    """Name of a host."""
    return f"n{number:04d}"


def joined(batches: list[Batch], hosts_per_batch: int) -> list[Batch]:
    """The same lines in larger batches."""
    return [Batch.joined(batches[first : first + hosts_per_batch]) for first in range(0, len(batches), hosts_per_batch)]


def _host_batch(generator: random.Random, cluster: str, host: str) -> Batch:
    groups = [
        (OF_HOST, ["type=node"]),
        (OF_HWTHREAD, [f"type=hwthread,type-id={thread}" for thread in range(HWTHREADS)]),
        (OF_SOCKET, [f"type=socket,type-id={socket}" for socket in range(SOCKETS)]),
        (OF_ACCELERATOR, [f"type=accelerator,type-id=0000:{bus:02x}:00.0" for bus in range(ACCELERATORS)]),
    ]
    stamp = _STAMP.decode()
    lines = [
        f"{name},cluster={cluster},hostname={host},{component} value=%.3f {stamp}\n"
        for names, components in groups
        for name in names
        for component in components
    ]
    values = [generator.uniform(0, 1000) for _ in lines]
    return Batch("".join(lines).encode(), np.array(values), np.array([_step_size(generator) for _ in lines]))


def _step_size(generator: random.Random) -> float:
    is_constant = generator.random() < CONSTANT_SHARE
    least, largest = STEP_SIZES
    return 0.0 if is_constant else least * (largest / least) ** generator.random()
