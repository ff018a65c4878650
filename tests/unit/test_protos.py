"""The generated protobuf modules: committed, importable, and those of the .proto files beside them."""

import subprocess
import sys
import tomllib
from pathlib import Path

from ccms.v1 import metric_store_service_pb2, metric_store_service_pb2_grpc, sample_pb2
from ccms_server.errors import RejectReason
from ccms_server.model import SeriesErrorReason

ROOT = Path(__file__).parents[2]


def generated_files(root: Path) -> dict[str, str]:
    paths = [path for path in root.rglob("*_pb2*") if path.suffix in {".py", ".pyi"}]
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


def test_committed_modules_are_those_of_the_proto_files(tmp_path):
    command = [sys.executable, str(ROOT / "protos" / "generate.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    fresh, committed = generated_files(tmp_path), generated_files(ROOT / "protos")
    assert sorted(fresh) == sorted(committed), "run `make proto`, and remove modules that have lost their .proto file"
    stale = [path for path, text in fresh.items() if text != committed[path]]
    assert not stale, "run `make proto`"


def test_only_services_have_grpc_modules():
    services = ("admin_service", "catalog_service", "metric_store_service")
    assert {path for path in generated_files(ROOT / "protos") if "_grpc" in path} == {
        f"ccms/v1/{service}_pb2_grpc.{suffix}" for service in services for suffix in ("py", "pyi")
    }


def test_required_grpcio_is_what_the_modules_were_generated_for():
    """An older one would be installed without complaint, and refuse to import the modules."""
    generated = f"grpcio>={metric_store_service_pb2_grpc.GRPC_GENERATED_VERSION}"
    assert generated in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def test_required_protobuf_is_what_the_modules_were_generated_for():
    [line] = [line for line in Path(sample_pb2.__file__).read_text().splitlines() if "Protobuf Python Version" in line]
    generated = f"protobuf>={line.rsplit(maxsplit=1)[-1]}"
    assert generated in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def test_reject_reasons_have_the_numbers_and_names_of_the_contract():
    contract = {
        number: name.removeprefix("REJECT_REASON_") for name, number in sample_pb2.RejectReason.items() if number != 0
    }
    assert contract == {reason.value: reason.name for reason in RejectReason}


def test_series_error_reasons_have_the_numbers_and_names_of_the_contract():
    contract = {
        number: name.removeprefix("SERIES_ERROR_REASON_")
        for name, number in metric_store_service_pb2.SeriesErrorReason.items()
        if number != 0
    }
    assert contract == {reason.value: reason.name for reason in SeriesErrorReason}
