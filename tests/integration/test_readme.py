"""What the README shows works as printed; only ports are replaced by free ones."""

import asyncio
import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib.image
import pytest
from helpers.nats import nats_server
from helpers.server import server_process
from helpers.waiting import eventually

from ccms_server.config import load_config
from ccms_server.config.keys import KEYS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(language, containing):
    """The one code block of a language that holds a text."""
    blocks = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in text]
    assert len(blocks) == 1, (containing, len(blocks))
    return blocks[0]


async def run(*command):
    """Runs a command in the project's folder, and returns what it prints."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


@pytest.fixture
async def server(tmp_path):
    metrics = json.loads((ROOT / "configs" / "config-forever.json").read_text())["metrics"]
    async with server_process(tmp_path, metrics=metrics) as server:
        yield server


def on_its_ports(text, server):
    rest = urlsplit(server.rest.base_url)
    return text.replace("localhost:8082", rest.netloc).replace("localhost:8083", server.grpc_address)


async def shell(text, server):
    return await run("bash", "-euo", "pipefail", "-c", on_its_ports(text, server))


def test_the_first_commands_are_run_and_test():
    commands = re.search(r"```sh\n(.*?)```", README, re.DOTALL)[1].splitlines()
    assert [command.split("#")[0].strip() for command in commands] == ["make run", "make test"]
    config = load_config(ROOT / "configs" / "config.json")
    assert (config.http_api.address, config.grpc_api.address) == ("localhost:8082", "localhost:8083")


async def test_a_sample_written_with_curl_is_found_with_curl(server):
    assert await shell(block("sh", "/api/write?cluster=alpha"), server) == ""
    answer = json.loads(await shell(block("sh", '"cluster": "alpha"'), server))
    [[series]] = answer["results"]
    assert series["data"][-1] == series["max"] == 1.5
    assert list(series) == re.findall(r'"(\w+)":', re.search(r'`\{"results":\[\[(.*?)\]\]\}`', README)[1])


async def test_the_client_reads_what_it_wrote(server):
    printed = await run(sys.executable, "-c", on_its_ports(block("python", "AsyncClient"), server))
    assert "2.5" in printed
    assert "Statistics(" in printed


async def test_a_days_measurements_can_be_posted(server):
    printed = await shell(block("sh", "emmy-1403244"), server)
    [[series]] = json.loads(printed)["results"]
    assert series["data"][0] == 150.17
    assert len(series["data"]) == 60
    assert load_config(ROOT / "configs" / "config-forever.json").retention_in_memory == 0


async def test_a_notebook_plots_the_job(server, tmp_path):
    await shell(block("sh", "emmy-1403244"), server)
    plot = tmp_path / "job.png"
    program = on_its_ports(block("python", "matplotlib"), server).replace("job.png", str(plot))
    assert await run(sys.executable, "-c", program) == ""
    height, width, _ = matplotlib.image.imread(plot).shape
    assert (width, height) == (1000, 600)


async def test_the_same_query_with_the_tools_of_other_languages(server):
    await shell(block("sh", "emmy-1403244"), server)
    answer, hosts = json_documents(await shell(block("sh", "MetricStoreService/Query \\"), server))
    assert (answer["header"]["host"], answer["values"][0], len(answer["values"])) == ("e0102", 150.17, 60)
    assert [host["name"] for host in hosts["hosts"]] == ["e0102", "e0103", "e0105"]
    assert hosts["nextPageToken"]


def json_documents(text):
    """The JSON documents that follow each other in a text."""
    decoder, documents = json.JSONDecoder(), []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:]
    return documents


async def test_the_server_lists_its_methods(server):
    printed = await shell(block("sh", "--list-methods"), server)
    assert "ccms.v1.MetricStoreService/Query" in printed


def test_every_key_of_the_configuration_is_explained():
    """The table names each key that the reader of the configuration knows."""
    table = README[README.index("## Configuration") : README.index("## Line protocol")]
    known = {path.rpartition(".")[2] for keys in KEYS.values() for path in keys.paths}
    assert len(known) > 40
    assert {key for key in known if key not in table} == set()


async def test_the_walk_through_with_a_broker_and_a_token(tmp_path):
    async with nats_server() as broker:
        sections = json.loads(block("json", '"subscribe-to": "updates"'))
        assert sections["http-api"].pop("address") == "localhost:8082"
        [nats] = sections["nats"]
        nats["address"] = nats["address"].replace("localhost:4222", f"127.0.0.1:{broker.port}")
        sections["http-api"]["address"] = "127.0.0.1:0"
        async with server_process(tmp_path, **sections) as server:
            await eventually(lambda: "subscribed to updates" in "".join(server.log), "the subscription")
            publish = block("sh", "client.publish")
            await shell(publish.replace("localhost:4222", f"127.0.0.1:{broker.port}"), server)

            async def asked():
                printed = await shell(block("sh", "JWT="), server)
                assert printed.count("HTTP/1.1 200 OK") == 2
                return printed if "1.5" in printed else None

            printed = await eventually(asked, "the published line")
            assert '"testcluster":{' in printed
