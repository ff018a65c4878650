"""Measures everything in one run and prints one table, which is written as JSON as well: python -m benchmarks.

Rates of the server are per second of its CPU time, and stand beside what a plain Python loop reaches in the same
minute: the ratio is what can be compared between machines, and between quiet and busy hours.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.calibration import QUIET, Calibration, calibrate
from benchmarks.figures import Findings, document, table
from benchmarks.parts import PARTS
from benchmarks.payloads import metrics
from benchmarks.plot import write_plot
from benchmarks.running_peer import PeerError, RunningPeer
from benchmarks.scale import FULL, QUICK, Scale


async def measure(scale: Scale, only: str = "", peer: RunningPeer | None = None) -> Findings:
    """Runs the parts whose name contains `only`, one after another, and says on stderr how long each takes."""
    findings = Findings()
    for name, part in PARTS.items():
        if only in name:
            begin = time.monotonic()
            print(f"measuring {name} ... ", end="", file=sys.stderr, flush=True)  # noqa: T201
            findings.add(await part(scale, peer))
            print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr)  # noqa: T201
    return findings


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints and writes; None: what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small inputs: shows that it runs, not how fast it is")
    parser.add_argument("--only", default="", metavar="WORD", help=f"parts to run: {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE", help="default: bench.json")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the cost by the number of series as SVG")
    parser.add_argument("--peer", metavar="URL", help="a server to measure in turns with ours, http://host:port")
    parser.add_argument("--peer-pid", type=int, metavar="PID", help="its process; default: who listens on its port")
    parser.add_argument("--peer-path", default="/api/write", metavar="PATH", help="where it takes lines: /api/write")
    parser.add_argument("--print-metrics", action="store_true", help="print the `metrics` that a peer has to know")
    options = parser.parse_args(arguments)
    if options.print_metrics:
        print(json.dumps({"metrics": metrics()}, indent=2))  # noqa: T201
        return
    if not any(options.only in name for name in PARTS):
        parser.error(f"--only {options.only} is none of {', '.join(PARTS)}")
    if options.plot and options.only not in "series-count":
        parser.error("--plot needs the part series-count")
    try:
        peer = RunningPeer(options.peer, pid=options.peer_pid, write_path=options.peer_path) if options.peer else None
    except PeerError as error:
        parser.error(f"--peer {options.peer}: {error}")
    findings = asyncio.run(measure(QUICK if options.quick else FULL, options.only, peer))
    now, beside = datetime.now(UTC), calibrate()
    print(_introduction(now, beside, is_quick=options.quick))  # noqa: T201
    print(table(findings))  # noqa: T201
    options.json.write_text(
        json.dumps(_about(now, beside, is_quick=options.quick) | document(findings), indent=1) + "\n"
    )
    if options.plot:
        write_plot(options.plot, findings.series_costs)


def _introduction(now: datetime, beside: Calibration, *, is_quick: bool) -> str:
    quick = "small inputs: the figures say that it runs, not how fast or small it is\n" if is_quick else ""
    return (
        f"{quick}{now:%Y-%m-%d}, {beside.line_rate:.2f} M lines/s decoded and {beside.json_rate:.2f} M values/s dumped "
        f"by plain loops\nper calibration: rates divided by the plain loop's, "
        f"milliseconds as of a machine that dumps {QUIET.json_rate} M values/s"
    )


def _about(now: datetime, beside: Calibration, *, is_quick: bool) -> dict[str, object]:
    return {
        "date": f"{now:%Y-%m-%d}",
        "is_quick": is_quick,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "line_rate": beside.line_rate,
        "json_rate": beside.json_rate,
    }


if __name__ == "__main__":
    main()
