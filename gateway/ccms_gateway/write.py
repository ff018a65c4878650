"""`/api/write`: line protocol in, as collectors post it."""

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from ccms_gateway.backend import Backend
from ccms_gateway.body import BodyReader
from ccms_gateway.errors import error_response
from ccms_server.model import WriteReport


class WriteHandler:
    """Stores the body of a request.

    Collectors take any status but 200 for a failure, and never read the body of the answer: it is empty.
    """

    def __init__(self, backend: Backend, bodies: BodyReader, request_bytes: int) -> None:
        self._backend = backend
        self._bodies = bodies
        self._request_bytes = request_bytes

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request."""
        payload = await self._bodies.read(request, self._request_bytes)
        answer = await self.answer(payload, request.rel_url.query)
        return web.Response(content_type="application/json") if answer is None else answer

    async def answer(self, payload: bytes, parameters: Mapping[str, str]) -> web.Response | None:
        """What is answered once every good line is stored: nothing, or a 400 that explains the bad lines."""
        report = await self._backend.write_lines(payload, parameters.get("cluster", ""))
        if report.rejected:
            return error_response(HTTPStatus.BAD_REQUEST, describe_rejections(report))
        return None


def describe_rejections(report: WriteReport) -> str:
    """What a sender needs to mend its lines: how many are affected, why, and the first ones by number."""
    by_reason = ", ".join(f"{reason.name} {count:,}" for reason, count in sorted(report.rejected.items()))
    lines = "; ".join(f"line {rejection.index}: {rejection.message}" for rejection in report.first_rejected)
    counts = f"{report.rejected_total:,} rejected ({by_reason}), {report.stored:,} stored, {report.ignored:,} ignored"
    return f"{counts}; {lines}"
