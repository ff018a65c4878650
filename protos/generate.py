"""Generates the protobuf modules of `protos/`, beside the .proto files or under another root.

Usage: python protos/generate.py [OUTPUT_ROOT]

Messages get `_pb2.py` and `_pb2.pyi`, services `_pb2_grpc.py` and `_pb2_grpc.pyi` on top. Nothing is edited afterwards:
the import path of a module is the path of its .proto file below `protos/`.
"""

import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent


def generate(output_root: Path) -> None:
    """Writes the modules of every .proto file below `PROTO_ROOT` to the same place below `output_root`."""
    protos = sorted(path.relative_to(PROTO_ROOT).as_posix() for path in PROTO_ROOT.rglob("*.proto"))
    # The gRPC plugins write a module for every file, an empty one where there is no service.
    services = [proto for proto in protos if proto.endswith("_service.proto")]
    run_protoc(["--python_out", "--mypy_out"], output_root, protos)
    run_protoc(["--grpc_python_out", "--mypy_grpc_out"], output_root, services)


def run_protoc(outputs: list[str], output_root: Path, protos: list[str]) -> None:
    """Runs the compiler for the given kinds of output, and leaves the program if it finds fault with the files."""
    scripts = Path(sysconfig.get_path("scripts"))  # the plugins of this environment, whether or not it is on the PATH
    options = [
        "--fatal_warnings",
        f"--proto_path={PROTO_ROOT}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        *(f"{output}={'quiet:' if 'mypy' in output else ''}{output_root}" for output in outputs),
    ]
    if status := protoc.main(["protoc", *options, *protos]):
        raise SystemExit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO_ROOT)
