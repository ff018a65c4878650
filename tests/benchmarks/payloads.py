"""What a cluster's collectors send: one batch of lines for each host and time step, the same keys every time."""

import random

INTERVAL_SECONDS = 60
CLUSTER = "bench"
STAMP = b"@TS@"
"""Stands for the timestamp of a batch."""

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


def host_batches(hosts: int, *, first: int = 0, cluster: str = CLUSTER) -> list[bytes]:
    """A batch of each host, 426 lines, with STAMP for the timestamp; always the same ones.

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


def joined(batches: list[bytes], hosts_per_batch: int) -> list[bytes]:
    """The same lines in larger batches."""
    return [b"".join(batches[first : first + hosts_per_batch]) for first in range(0, len(batches), hosts_per_batch)]


def _host_batch(generator: random.Random, cluster: str, host: str) -> bytes:
    groups = [
        (OF_HOST, ["type=node"]),
        (OF_HWTHREAD, [f"type=hwthread,type-id={thread}" for thread in range(HWTHREADS)]),
        (OF_SOCKET, [f"type=socket,type-id={socket}" for socket in range(SOCKETS)]),
        (OF_ACCELERATOR, [f"type=accelerator,type-id=0000:{bus:02x}:00.0" for bus in range(ACCELERATORS)]),
    ]
    stamp = STAMP.decode()
    lines = [
        f"{name},cluster={cluster},hostname={host},{component} value={generator.uniform(0, 1000):.3f} {stamp}\n"
        for names, components in groups
        for name in names
        for component in components
    ]
    return "".join(lines).encode()
