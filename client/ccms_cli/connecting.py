"""Which server, and what is shown to it: the options that all commands share."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:  # gRPC and numpy take a while: `ccms --help` does without
    from collections.abc import Iterator

    from ccms_client import Client

DEFAULT_SERVER = "localhost:8083"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options in front of the command."""

    server: str = DEFAULT_SERVER
    """`host:port`."""
    token: str | None = None
    token_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout: float | None = None
    """Seconds for a call; None: as long as it takes."""
    compression: bool = False

    def __post_init__(self) -> None:
        host, colon, port = self.server.rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError(f"the server is {self.server!r}, but has to be host:port, such as {DEFAULT_SERVER}")
        if self.token and self.token_file:
            raise ValueError("there is both a token and a file with one: leave one of them out")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("--cert and --key belong together: give both, or neither")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"the timeout is {self.timeout} s, but has to be more than 0")

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is asked for, if only by naming its files."""
        return self.tls or self.ca is not None or self.certificate is not None


def options_of(context: typer.Context) -> Options:
    """The options that were given in front of the command."""
    found = context.find_object(Options)
    assert found is not None, "the callback of the program sets it"
    return found


@contextmanager
def connected(context: typer.Context) -> Iterator[Client]:
    """A client of the server that was named; whether it is there is found out by the first call."""
    from ccms_client import Client, Tls

    options = options_of(context)
    tls = None
    if options.is_encrypted:
        tls = Tls(
            root_certificates=options.ca.read_bytes() if options.ca else None,
            certificate=options.certificate.read_bytes() if options.certificate else None,
            key=options.key.read_bytes() if options.key else None,
        )
    with Client(
        options.server,
        token=options.token,
        token_file=options.token_file,
        tls=tls,
        compression=options.compression,
        deadline_seconds=options.timeout,
    ) as client:
        yield client
