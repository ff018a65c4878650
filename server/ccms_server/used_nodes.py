"""Nodes that jobs are running on, as cc-backend knows them: their samples outlive the retention until the job ends.

Windows are dropped whole. So as long as a node is in use, windows are kept from where the retention stood when its job
reached back beyond it.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from ccms_server.errors import reason_of

logger = logging.getLogger(__name__)

ASK_SECONDS: Final = 300.0
"""Pause between two questions."""
ANSWER_SECONDS: Final = 10.0
"""Time the backend has to answer, as with the predecessor."""
ANSWER_BYTES_MAX: Final = 16 << 20
HELD_SECONDS_MAX: Final = 30 * 86_400
"""Nothing is kept beyond the retention for longer than this: jobs end, but a backend may not notice."""
TOKEN_BYTES_MAX: Final = 16_384

UNKNOWN: Final = -(1 << 62)
"""A time before all samples, in seconds."""

Node = tuple[str, str]
"""Cluster, host."""
_NodesByCluster = dict[str, list[str] | None]


class _Answer(msgspec.Struct, rename="camel"):
    """What current releases of the backend answer; older ones answer the object inside."""

    used_nodes: _NodesByCluster


_wrapped: Final = msgspec.json.Decoder(_Answer)
_plain: Final = msgspec.json.Decoder(_NodesByCluster)


class UsedNodes:
    """Asks the backend, and says how far back samples are kept for it."""

    def __init__(self, url: str, retention_seconds: int, clock: Callable[[], float], token_file: str = "") -> None:
        """Makes it; `run` asks. Until the first answer, everything is kept.

        Args:
            url: Base URL of the backend.
            retention_seconds: How long samples are kept anyway; 0: for ever.
            clock: Seconds since the epoch.
            token_file: File with a token to show to the backend, read each time; empty: none.
        """
        self._url = url.rstrip("/") + "/api/jobs/used_nodes"
        self._retention_seconds = retention_seconds
        self._clock = clock
        self._token_file = token_file
        self._since: dict[Node, int] = {}  # by node in use: samples from then on are kept, seconds
        self._answered = UNKNOWN  # the last answer knew of all nodes in use since before this time, seconds
        self._trouble = ""
        self._at_bound = False

    def kept_from(self, oldest: int) -> int:
        """The time from which on nothing is dropped.

        Args:
            oldest: Samples are retained from this time on, in seconds.
        """
        bound = oldest - HELD_SECONDS_MAX
        # Of jobs that have reached the retention since the last answer nobody knows yet.
        earliest = min(self._since.values(), default=self._answered)
        at_bound = UNKNOWN < earliest < bound
        if at_bound and not self._at_bound:
            logger.warning(
                "samples of nodes in use are kept for %d days beyond the retention, and not longer",
                HELD_SECONDS_MAX // 86_400,
            )
        self._at_bound = at_bound
        return min(oldest, max(earliest, bound))

    async def run(self) -> None:
        """Asks again and again; without an answer, nothing is dropped."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await self._ask(session)
                await asyncio.sleep(ASK_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        oldest = int(self._clock()) - self._retention_seconds
        try:
            headers = {"Authorization": f"Bearer {self._token()}"} if self._token_file else {}
            async with session.get(self._url, params={"ts": str(oldest)}, headers=headers) as response:
                response.raise_for_status()
                body = await _read(response)
            nodes = _nodes_of(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The URL in aiohttp's own message says nothing new, and may hold a password.
            reason = (
                f"it answered {error.status}" if isinstance(error, aiohttp.ClientResponseError) else reason_of(error)
            )
            if reason != self._trouble:
                logger.warning(
                    "cc-backend does not tell which nodes are in use: %s; nothing is dropped meanwhile", reason
                )
            self._trouble = reason
            return
        if self._trouble:
            logger.info("cc-backend tells again which nodes are in use")
            self._trouble = ""
        self.take(nodes, oldest)

    def take(self, nodes: set[Node], oldest: int) -> None:
        """Takes an answer.

        Args:
            nodes: All nodes in use by jobs that began before `oldest`.
            oldest: Samples are retained from this time on, in seconds.
        """
        # What was there at the last answer still is: nothing was dropped in between. After a start, all is kept.
        self._since = {node: self._since.get(node, self._answered) for node in nodes}
        self._answered = oldest

    def _token(self) -> str:
        with Path(self._token_file).open() as file:
            return file.read(TOKEN_BYTES_MAX).strip()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise ValueError(f"its answer is longer than {ANSWER_BYTES_MAX:,} bytes")
    return bytes(body)


def _nodes_of(body: bytes) -> set[Node]:
    """The nodes an answer names.

    Raises:
        ValueError: It is something else.
    """
    try:
        by_cluster = _wrapped.decode(body).used_nodes
    except msgspec.ValidationError:
        by_cluster = _plain.decode(body)
    return {(cluster, host) for cluster, hosts in by_cluster.items() for host in hosts or ()}
