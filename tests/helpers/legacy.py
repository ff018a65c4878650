"""Files of the predecessor, made for tests, and a way to have them imported without a server."""

import json
import struct
from pathlib import Path
from zlib import crc32

from ccms_server.config import parse_config
from ccms_server.legacy.predecessor import LegacyFiles
from helpers.durable import DurableStore
from helpers.server import config_text

START = 1_700_000_040
"""On the grid of a minute."""


def level(metrics=None, children=None, start=START, end=START + 600):
    """A level as in a JSON checkpoint; `metrics` are given as values, at one a minute, or as they are in the file."""
    found = {name: data if isinstance(data, dict) else metric(data, start) for name, data in (metrics or {}).items()}
    return {"from": start, "to": end, "metrics": found, "children": children or {}}


def metric(values, start=START, frequency=60):
    return {"frequency": frequency, "start": start, "data": values}


def json_bytes(host):
    return json.dumps(host).encode()


def snapshot_bytes(host):
    """A binary snapshot of the same."""
    return struct.pack("<Iqq", 0xCC5B0001, host["from"], host["to"]) + _level_bytes(host)


def _level_bytes(host):
    parts = [struct.pack("<I", len(host["metrics"]))]
    for name, found in host["metrics"].items():
        values = [float("nan") if value is None else value for value in found["data"]]
        parts += [_name(name), struct.pack("<qqI", found["frequency"], found["start"], len(values))]
        parts.append(struct.pack(f"<{len(values)}f", *values))
    parts.append(struct.pack("<I", len(host["children"])))
    for name, child in host["children"].items():
        parts += [_name(name), _level_bytes(child)]
    return b"".join(parts)


def _name(name):
    return struct.pack("<H", len(name.encode())) + name.encode()


WAL_HEAD = struct.pack("<I", 0xCC1DA701)


def wal_record(time, metric, path=(), value=1.0):
    payload = struct.pack("<q", time) + _name(metric) + bytes([len(path)])
    payload += b"".join(bytes([len(name.encode())]) + name.encode() for name in path) + struct.pack("<f", value)
    return wal_frame(payload)


def wal_frame(payload):
    return struct.pack("<II", 0xCC1DA7A1, len(payload)) + payload + struct.pack("<I", crc32(payload))


def put_file(directory, key, content):
    """Writes a file at `<cluster>/<host>/<name>`."""
    path = Path(directory) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class LegacyStore(DurableStore):
    """A store in a directory, with the predecessor's files around it.

    Attributes:
        legacy: These files.
        now: What its clock says.
    """

    def __init__(self, directory, *, metrics, now=START + 3600, imports=True, retention="0", **sections):
        self.now = now
        checkpoints = {"file-format": sections.pop("file_format", "wal")}
        for key in ("interval", "restore"):
            if key in sections:
                checkpoints[key] = sections[key]
        super().__init__(directory, metrics=metrics, **sections)
        config = parse_config(
            config_text(
                metrics=metrics,
                checkpoints={"directory": str(directory), **checkpoints},
                **{"retention-in-memory": retention},
            )
        )
        self.legacy = LegacyFiles(config, config.checkpoints, self.store, self.keeper, lambda: self.now)
        if imports:
            self.import_all()

    def import_all(self):
        for _ in self.legacy.import_all():
            pass
        return self.imported

    @property
    def imported(self):
        """Samples that were imported."""
        return self.legacy._import.samples

    @property
    def skipped(self):
        return {reason: count for reason, count in self.legacy._import.skipped.items() if count}

    def bits(self):
        """All it holds, every bit of it."""
        return {key: {time: value.hex() for time, value in samples.items()} for key, samples in self.held().items()}

    def write_checkpoints(self, now):
        """Writes JSON checkpoints."""
        self.now = now
        self.legacy.write()


def contents(directory):
    """All files below a directory but those of the store, by path."""
    paths = [path for path in Path(directory).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in paths if "cc-metric-store" not in path.parts
    }


def written_samples(directory):
    """Samples in all JSON checkpoints below a directory, by metric and path, as hex; and what each of them says.

    Checks on its way what the predecessor wants: a chain of files, in order of their names, that do not overlap.
    """
    samples, documents = {}, {}
    for host in sorted({path.parent for path in Path(directory).glob("*/*/*.json")}):
        ends = {}
        for path in sorted(host.glob("*.json"), key=lambda path: int(path.stem)):
            document = documents[str(path.relative_to(directory))] = json.loads(path.read_bytes())
            assert int(path.stem) == document["from"] < document["to"]
            for key, found in samples_of(document, (host.parent.name, host.name)):
                assert min(found) >= ends.get(key, document["from"]), "it begins behind the one before"
                ends[key] = max(found) + 1
                assert ends[key] <= document["to"]
                samples.setdefault(key, {}).update(found)
    return samples, documents


def samples_of(document, path):
    """Metric and path, and samples as hex, of all series of a checkpoint."""
    assert document.keys() == {"from", "to", "metrics", "children"}
    assert document["metrics"] or document["children"]
    for name, found in document["metrics"].items():
        assert found.keys() == {"frequency", "start", "data"}
        assert found["data"][0] is not None
        assert found["data"][-1] is not None
        values = enumerate(found["data"])
        yield (
            (name, path),
            {found["start"] + at * found["frequency"]: float(value).hex() for at, value in values if value is not None},
        )
    for name, child in document["children"].items():
        yield from samples_of(child, (*path, name))
