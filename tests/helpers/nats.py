"""A real nats-server on a free port, which can be killed and started again on the same one."""

import asyncio
import base64
import json
import os
import re
import signal
import sysconfig
import time
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nkeys

from helpers.waiting import DEADLINE_SECONDS

BINARY = Path(sysconfig.get_path("scripts")) / "nats-server"
ANY_PORT = -1


class NatsServer:
    def __init__(self, arguments=()):
        self.port = ANY_PORT
        self.websocket_port = None
        self._arguments = arguments
        self._process = None
        self._reading = None

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    async def start(self):
        """Starts it, the first time on any port, later on the same."""
        self._process = await asyncio.create_subprocess_exec(
            BINARY, "--addr", "127.0.0.1", "--port", str(self.port), *self._arguments, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE_SECONDS):
            async for line in self._process.stderr:
                if found := re.search(rb"Listening for client connections on 127.0.0.1:(\d+)", line):
                    self.port = int(found[1])
                if found := re.search(rb"Listening for websocket clients on wss?://127.0.0.1:(\d+)", line):
                    self.websocket_port = int(found[1])
                if b"Server is ready" in line:
                    break
            else:
                raise AssertionError("nats-server did not start")
        self._reading = asyncio.create_task(self._process.stderr.read())

    def reload(self):
        """Makes it read its configuration file again."""
        self._process.send_signal(signal.SIGHUP)

    async def kill(self):
        """Ends it without any farewell."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


class ConfiguredNatsServer(NatsServer):
    """One with a configuration file, which can be replaced."""

    def __init__(self, path):
        super().__init__(("--config", str(path)))
        self._path = path

    def reconfigure(self, text):
        """Replaces its configuration while it runs; that takes effect some time later."""
        self._path.write_text(text)
        self.reload()


@asynccontextmanager
async def configured_nats_server(directory, text):
    """Runs a NATS server with a configuration file in a directory while the context lasts."""
    path = directory / "nats.conf"
    path.write_text(text)
    async with _running(ConfiguredNatsServer(path)) as server:
        yield server


@asynccontextmanager
async def nats_server(*arguments):
    """Runs a NATS server while the context lasts."""
    async with _running(NatsServer(arguments)) as server:
        yield server


@asynccontextmanager
async def _running(server):
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def entry(broker, *subscriptions, **settings):
    """An entry of the configuration's `nats`, with subscriptions given as pairs of subject and cluster."""
    return {
        "address": broker.url,
        "subscriptions": [{"subscribe-to": subject, "cluster-tag": cluster} for subject, cluster in subscriptions],
        **settings,
    }


def all_connected(server):
    """Whether a server has all its connections."""
    return all(subscriber.connected for subscriber in server.nats)


async def delivered(client):
    """Returns once the broker has passed on everything that was published.

    A PING of nats-py overtakes what waits to be sent: only the second one is answered after all messages.
    """
    await client.flush()
    await client.flush()


@asynccontextmanager
async def publisher(server, **options):
    """A connection to publish with."""
    client = await nats.connect(server.url, **options)
    try:
        yield client
    finally:
        await client.close()


class Operator:
    """Signs the tokens that a broker asks for instead of passwords.

    Attributes:
        config: The broker's configuration.
    """

    def __init__(self):
        prefixes = (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT)
        self._operator, self._account = map(_key_pair, prefixes)

    @property
    def config(self):
        return self.config_without()

    def config_without(self, *revoked):
        """The same once the users of some credentials files are not let in any more."""
        limits = _UNLIMITED | dict.fromkeys(("conn", "leaf", "imports", "exports"), -1) | {"wildcards": True}
        revocations = {_public_key(credentials): int(time.time()) + 1 for credentials in revoked}
        account = {"type": "account", "limits": limits, "revocations": revocations}
        return (
            f"operator: {_token(self._operator, self._operator, {'type': 'operator'})}\n"
            f"resolver: MEMORY\nresolver_preload: {{ {self._account.public_key.decode()}: "
            f"{_token(self._operator, self._account, account)} }}\n"
        )

    def write_credentials(self, path, seconds=None):
        """Writes the credentials file of a new user, perhaps for some seconds only; returns its path."""
        user = _key_pair(nkeys.PREFIX_BYTE_USER)
        expiry = {} if seconds is None else {"exp": int(time.time()) + seconds}
        token = _token(self._account, user, {"type": "user", **_UNLIMITED}, **expiry)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n"
            "------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
        return path


_UNLIMITED = dict.fromkeys(("subs", "data", "payload"), -1)


def _key_pair(prefix):
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def _public_key(credentials):
    """The user's public key in a credentials file."""
    seed = credentials.read_text().splitlines()[-2]
    return nkeys.from_seed(bytearray(seed.encode())).public_key.decode()


def _token(issuer, subject, claims, **registered):
    """A JSON web token with NATS's own kind of signature."""
    payload = {
        "jti": subject.public_key.decode(),
        "iat": 1_700_000_000,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": claims["type"],
        "nats": {"version": 2, **claims},
        **registered,
    }
    signed = f"{_base64url(_json({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_base64url(_json(payload))}"
    return f"{signed}.{_base64url(issuer.sign(signed.encode()))}"


def _json(content):
    return json.dumps(content).encode()


def _base64url(content):
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
