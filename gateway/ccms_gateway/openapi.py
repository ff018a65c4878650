"""The OpenAPI document, made of the operations and of the types they take and answer."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
import orjson
from aiohttp import hdrs, web

from ccms_gateway.answer import AnswerSender
from ccms_gateway.operations import JSON, OPERATIONS, Content, Operation
from ccms_gateway.schemas import ErrorAnswer
from ccms_server import __version__
from ccms_server.auth import Access, Guard

_ERROR: Final = Content(media_type=JSON, type=ErrorAnswer)

_SCHEMES: Final = {
    "Bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JSON web token, signed with EdDSA. To free and to dump, one that names roles must name "
        "one of `ROLE_ADMIN`, `ROLE_API`, `admin` and `api`.",
    },
    "Basic": {"type": "http", "scheme": "basic", "description": "A user of the configuration, who may write only."},
}
"""By the name of the scheme in HTTP."""

_FAILURES: Final = {
    HTTPStatus.BAD_REQUEST: "The request breaks a rule; sending it again unchanged will fail again.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The server has a defect; its log says which.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The server is starting, stopping, behind, or without a disk.",
}
"""What each operation may answer."""
_REFUSALS: Final = {
    HTTPStatus.UNAUTHORIZED: "The request does not say who sends it, or not credibly.",
    HTTPStatus.FORBIDDEN: "The sender may not do that.",
}
"""What operations may answer that not everybody may use."""
_HEADERS: Final = {
    HTTPStatus.UNAUTHORIZED: (hdrs.WWW_AUTHENTICATE, "How to say who sends it.", {"type": "string"}),
    HTTPStatus.SERVICE_UNAVAILABLE: (hdrs.RETRY_AFTER, "When to try again, in seconds.", {"type": "integer"}),
}
"""What comes along with an answer."""


class OpenApiHandler:
    """Answers with the document. What it says of authentication is what the guard wants at that moment."""

    def __init__(self, guard: Guard, answers: AnswerSender) -> None:
        self._guard = guard
        self._answers = answers
        self._schemes: dict[Access, tuple[str, ...]] = {}
        self._text = b""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers anybody, so it must be cheap: the text is kept until the guard wants something else."""
        schemes = {access: self._guard.schemes(access) for access in Access}
        if schemes != self._schemes:
            self._text = orjson.dumps(openapi_document(OPERATIONS, schemes.__getitem__))
            self._schemes = schemes
        return await self._answers.whole(request, self._text, JSON)


def openapi_document(operations: Sequence[Operation], schemes: Callable[[Access], Sequence[str]]) -> dict[str, Any]:
    """Describes operations.

    Args:
        operations: What is described.
        schemes: Authentication schemes of HTTP that let a request pass, by what it is about to do; none: all pass.

    Returns:
        An OpenAPI 3.1 document, as plain data.
    """
    contents = [
        _ERROR,
        *(content for each in operations for content in (each.body, *each.answers) if content is not None),
    ]
    types, components = msgspec.json.schema_components(
        [content.type for content in contents], ref_template="#/components/schemas/{name}"
    )
    schema_of = {id(content): schema for content, schema in zip(contents, types, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for each in operations:
        allowed = schemes(each.access) if each.access is not None else ()
        used.update(allowed)
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, allowed, schema_of)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "cc-metric-store",
            "version": __version__,
            "description": "A store for the metrics of HPC clusters. Paths may end in a slash; whatever answers GET "
            "answers HEAD. Bodies of requests may be compressed with gzip or deflate.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": ".."}],  # relative to the document, which may be behind a proxy that puts a prefix in front
        "paths": paths,
        "components": {"schemas": components},
    }
    if used:
        document["components"]["securitySchemes"] = {name.lower(): _SCHEMES[name] for name in sorted(used)}
    return document


def _operation(operation: Operation, allowed: Sequence[str], schema_of: dict[int, Any]) -> dict[str, Any]:
    failures = {**_FAILURES, **operation.failures, **(_REFUSALS if allowed else {})}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.description,
        "responses": {
            "200": {"description": "Done.", **_content(operation.answers, schema_of)},
            **{str(int(status)): _failure(status, text, schema_of) for status, text in sorted(failures.items())},
        },
    }
    if operation.parameters:
        described["parameters"] = [
            {
                "name": parameter.name,
                "in": "query",
                "description": parameter.description,
                "required": parameter.required,
                "schema": dict(parameter.schema),
                "example": parameter.example,
            }
            for parameter in operation.parameters
        ]
    if operation.body is not None:
        described["requestBody"] = {"required": operation.body.required, **_content((operation.body,), schema_of)}
    if allowed:
        described["security"] = [{name.lower(): []} for name in allowed]
    return described


def _failure(status: HTTPStatus, description: str, schema_of: dict[int, Any]) -> dict[str, Any]:
    failure = {"description": description, **_content((_ERROR,), schema_of)}
    if status in _HEADERS:
        name, meaning, schema = _HEADERS[status]
        failure["headers"] = {str(name): {"description": meaning, "required": True, "schema": schema}}
    return failure


def _content(contents: Sequence[Content], schema_of: dict[int, Any]) -> dict[str, Any]:
    """The key `content`, if there is any."""
    by_type = {}
    for content in contents:
        by_type[content.media_type] = {"schema": schema_of[id(content)]}
        if content.example is not None:
            by_type[content.media_type]["example"] = content.example
    return {"content": by_type} if by_type else {}
