"""The OpenAPI document and the page to try it: what is served, and that nothing else is."""

import importlib.util
import json
import re

import pytest
from helpers.server import config_text, server_inside
from helpers.tokens import SAMPLE_KEY

from ccms_gateway.operations import OPERATIONS
from ccms_server.app import run
from ccms_server.config import parse_config
from ccms_server.errors import ConfigError

LOCKED = {"jwt-public-key": SAMPLE_KEY}
BASIC = {"auth": {"basic": [{"username": "collector", "password": "s3cret"}]}}
FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-16x16.png", "favicon-32x32.png")


@pytest.fixture
async def rest():
    async with server_inside(dev=True) as server:
        yield server.rest


async def document(rest, path="/api/openapi.json"):
    answer = await rest.send("GET", path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return answer.json


@pytest.mark.parametrize("path", ["/api/openapi.json", "/api/openapi.json/", "//api/openapi.json"])
async def test_the_document_names_every_operation(rest, path):
    described = await document(rest, path)
    assert described["openapi"] == "3.1.0"
    found = {(method.upper(), path) for path, item in described["paths"].items() for method in item}
    assert found == {(operation.method, operation.path) for operation in OPERATIONS}


async def test_what_the_document_names_is_answered_and_other_methods_are_not(rest):
    for path, item in (await document(rest))["paths"].items():
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            answer = await rest.send(method, path)
            assert (answer.status != 405) == (method.lower() in item)


async def test_references_lead_somewhere(rest):
    described = await document(rest)
    references = re.findall(r'"\$ref":\s*"#/components/schemas/(\w+)"', json.dumps(described))
    assert references
    assert set(references) == set(described["components"]["schemas"])


@pytest.mark.parametrize(
    ("config", "for_write", "for_others"),
    [
        ({}, None, None),
        (BASIC, None, None),
        (LOCKED, [{"bearer": []}], [{"bearer": []}]),
        ({**LOCKED, **BASIC}, [{"bearer": []}, {"basic": []}], [{"bearer": []}]),
    ],
)
async def test_authentication_is_described_as_it_is_wanted(config, for_write, for_others):
    async with server_inside(**config) as server:
        described = await document(server.rest)
    for path, item in described["paths"].items():
        for operation in item.values():
            expected = for_write if path == "/api/write" else None if path == "/api/openapi.json" else for_others
            assert operation.get("security") == expected
            assert ("401" in operation["responses"]) == ("403" in operation["responses"]) == (expected is not None)
    named = {name for alternatives in (for_write, for_others) for each in alternatives or () for name in each}
    assert described["components"].get("securitySchemes", {}).keys() == named


async def test_the_page_needs_nothing_from_elsewhere(rest):
    page = await rest.send("GET", "/swagger/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert set(named) == set(FILES)
    assert b"://" not in page.body
    script = await rest.send("GET", "/swagger/start.js")
    assert b"://" not in script.body
    assert b'"../api/openapi.json"' in script.body
    assert b"validatorUrl: null" in script.body
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("slashes", ["/", "//"])
async def test_the_files_of_the_page_are_served(rest, slashes, name):
    answer = await rest.send("GET", f"{slashes}swagger/{name}")
    assert answer.status == 200
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert len(answer.body) > 100
    kinds = {"css": "text/css", "js": "text/javascript", "png": "image/png"}
    assert answer.headers["Content-Type"].partition(";")[0] == kinds[name.rpartition(".")[2]]


async def test_the_page_without_its_slash_leads_there(rest):
    answer, status = await raw_get(rest, "/swagger")
    assert status == 308
    assert b"\r\nLocation: swagger/\r\n" in answer


@pytest.mark.parametrize(
    "path",
    [
        "/swagger/swagger-editor.js",
        "/swagger/swagger-initializer.js",
        "/swagger/oauth2-redirect.html",
        "/swagger/LICENSE",
        "/swagger/../core.py",
        "/swagger/%2e%2e/core.py",
        "/swagger/..%2fcore.py",
        "/swagger//etc/passwd",
        "/swagger/static/swagger-ui.css",
    ],
)
async def test_nothing_else_is_served(rest, path):
    _, status = await raw_get(rest, path)
    assert status == 404


async def raw_get(rest, path):
    """A request that no client tidied up; returns the headers and the status of its answer."""
    reader, writer = await rest.connect()
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer, int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("path", ["/swagger", "/swagger/", "/swagger/swagger-ui.css"])
async def test_there_is_no_page_unless_it_is_asked_for(path):
    async with server_inside() as server:
        assert (await server.rest.send("GET", path)).status == 404


async def test_without_its_package_the_server_says_what_to_install(monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr("ccms_gateway.swagger.find_spec", lambda name: None if name == "swagger_ui" else original(name))
    with pytest.raises(ConfigError, match=r"pip install 'cc-metric-store\[swagger\]'"):
        await run(parse_config(config_text()), dev=True)
