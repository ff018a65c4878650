"""The asyncio client."""

from os import PathLike
from pathlib import Path
from typing import Self

from ccms_client.admin import AdminCalls
from ccms_client.catalog import CatalogCalls
from ccms_client.connection import Connection
from ccms_client.reading import ReadingCalls
from ccms_client.tls import Tls
from ccms_client.tokens import FixedToken, TokenFile
from ccms_client.writing import WritingCalls


class AsyncClient(WritingCalls, ReadingCalls, CatalogCalls, AdminCalls):
    """Writes samples to a server and reads them, over one gRPC connection that is made when needed and kept.

    Calls are independent of each other and may run at the same time. Those that fail because the server cannot be
    reached, or is behind, are made again some times by gRPC itself; writes have ids, and are stored once all the same.

    Every method takes the time allowed for the whole call, `deadline_seconds`.

    >>> from ccms_client import AsyncClient, SeriesQuery
    >>> async with AsyncClient(address) as client:
    ...     result = await client.write_lines(b"cpu_load,hostname=n1 value=0.5 1700000000", default_cluster="alex")
    ...     [series] = await client.query("alex", 1700000000, 1700000060, [SeriesQuery(metric="cpu_load", host="n1")])
    >>> series.values
    array([0.5])
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        tls: Tls | None = None,
        compression: bool = False,
        retries: bool = True,
        deadline_seconds: float | None = None,
    ) -> None:
        """Makes a client; nothing is connected before the first call, in whose event loop the client then lives.

        Args:
            address: `host:port`. Whether a server is there is found out by the first call.
            token: JSON Web Token to send with every call; None: none is.
            token_file: File with such a token, which is read again whenever it has changed.
            tls: Encrypts the connection; None: it is not encrypted, and neither is the token.
            compression: Whether requests are sent compressed (gzip), and the server is asked to answer so: for slow
                networks.
            retries: Whether calls are made again, see the class; it takes some three seconds to find out that a server
                is not there. Streams of writes go on with or without.
            deadline_seconds: Time for calls that are given none; None: as long as it takes. Streams of writes and
                watches are not limited by it.

        Raises:
            ValueError: There is both a token and a file with one.
        """
        if token and token_file:
            raise ValueError("`token` and `token_file` are both set: leave one of them out")
        shown = TokenFile(Path(token_file)) if token_file else FixedToken(token) if token else None
        self._connection = Connection(
            address,
            token=shown,
            tls=tls,
            compression=compression,
            retries=retries,
            deadline_seconds=deadline_seconds,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels the calls that run, and closes the connection for good; closing again does nothing."""
        await self._connection.close()
