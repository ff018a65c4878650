"""The OpenAPI document is made once, and again when the guard wants something else."""

import json

import pytest
from aiohttp.test_utils import make_mocked_request
from helpers.tokens import Issuer

from ccms_gateway import openapi
from ccms_gateway.answer import AnswerSender
from ccms_server.auth import Guard
from ccms_server.config import AuthConfig, BasicUser

KEY = Issuer().public_key
BASIC = AuthConfig(basic=(BasicUser(username="collector", password="s3cret"),))
NAMED = [("", AuthConfig(), set()), (KEY, AuthConfig(), {"bearer"}), (KEY, BASIC, {"bearer", "basic"})]


@pytest.fixture
def made(monkeypatch):
    """A list that gets an element whenever a document is made."""
    original, made = openapi.openapi_document, []

    def counted(*args):
        made.append(args)
        return original(*args)

    monkeypatch.setattr(openapi, "openapi_document", counted)
    return made


async def test_the_document_is_made_once_as_long_as_the_guard_wants_the_same(made):
    guard = Guard("", AuthConfig(), clock=lambda: 0.0)
    handler = openapi.OpenApiHandler(guard, AnswerSender(compression=False))
    for count, (key, auth, named) in enumerate([*NAMED, *NAMED], 1):
        guard.reconfigure(key, auth)
        for _ in range(3):
            answer = await handler.handle(make_mocked_request("GET", "/api/openapi.json"))
            assert json.loads(answer.body)["components"].get("securitySchemes", {}).keys() == named
        assert len(made) == count
