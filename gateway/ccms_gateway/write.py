"""`/api/write`: line protocol in, as collectors post it."""

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
        """Answers once every good line is stored; bad lines make it a 400 that explains them."""
        payload = await self._bodies.read(request, self._request_bytes)
        report = await self._backend.write_lines(payload, request.rel_url.query.get("cluster", ""))
        return report_response(report)


def report_response(report: WriteReport) -> web.Response:
    """The answer to a write."""
    if report.rejected:
        return error_response(HTTPStatus.BAD_REQUEST, describe_rejections(report))
    return web.Response(content_type="application/json")


def describe_rejections(report: WriteReport) -> str:
    """What a sender needs to mend its lines: how many are affected, why, and the first ones by number."""
    by_reason = ", ".join(f"{reason.name} {count:,}" for reason, count in sorted(report.rejected.items()))
    lines = "; ".join(f"line {rejection.index}: {rejection.message}" for rejection in report.first_rejected)
    counts = f"{report.rejected_total:,} rejected ({by_reason}), {report.stored:,} stored, {report.ignored:,} ignored"
    return f"{counts}; {lines}"
