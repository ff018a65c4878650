"""Over REST, the answers are those of the predecessor; `http/README.md` says where not.

`test_contract` has the same recordings on all ways to the store.
"""

import json
import re

import pytest
from helpers.server import server_inside
from helpers.vectors import SIGNED_LINE, VECTORS, assert_same_response, vector_name


@pytest.mark.parametrize("vector", VECTORS, ids=vector_name)
async def test_over_rest(vector):
    async with server_inside(metrics=vector["metrics"], **vector.get("config", {})) as server:
        for step in vector["steps"]:
            answer = await send(server.rest, step)
            assert answer.status in accepted_statuses(vector, step)
            is_text = answer.status == step["status"] == 200 and step["content_type"].startswith("text/plain")
            assert answer.headers["Content-Type"] == (step["content_type"] if is_text else "application/json")
            if answer.status != 200:
                assert answer.json["status"]
                assert answer.json["error"]
            elif step["op"] == "write" or step.get("response_text") == "":
                assert answer.body == b""
                assert answer.headers["Content-Length"] == "0"
            elif "response_text" in step:
                assert_same_text(answer, step)
            else:
                assert_same_response(answer.json, step["response"], vector, step)


async def send(rest, step):
    match step["op"]:
        case "write":
            return await rest.write(step["body"], step["path"])
        case "query":
            return await rest.query(step["body"], step["path"])
        case "raw":
            return await rest.send(step["method"], step["path"], step["body"], step.get("headers"))


def accepted_statuses(vector, step):
    if vector["name"] == "write-garbage" or (vector["name"] == SIGNED_LINE and step["op"] == "write"):
        return {200, 400}
    if vector["name"] == "free-bad-to":
        return {400}
    return {step["status"]}


def assert_same_text(answer, step):
    if "/api/free" in step["path"]:
        assert re.fullmatch(rb"buffers freed: [0-9]+\n", answer.body)
        assert (answer.body == b"buffers freed: 0\n") == (step["response_text"] == "buffers freed: 0\n")
    else:
        without_trailing_commas = re.sub(r",(\s*})", r"\1", step["response_text"])
        assert answer.json == json.loads(without_trailing_commas)
