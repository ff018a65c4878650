"""A real nats-server on a free port, which can be killed and started again on the same one."""

import asyncio
import base64
import json
import os
import re
import signal
import sysconfig
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


@asynccontextmanager
async def nats_server(*arguments):
    """Runs a NATS server while the context lasts."""
    server = NatsServer(arguments)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


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


def operator_mode(directory):
    """Makes a broker's configuration that asks for signed tokens, and a credentials file that it takes.

    Returns:
        Arguments of nats-server, and the path of the credentials file.
    """
    operator, account, user = (
        nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))
        for prefix in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    unlimited = dict.fromkeys(("subs", "data", "payload"), -1)
    account_limits = unlimited | dict.fromkeys(("conn", "leaf", "imports", "exports"), -1) | {"wildcards": True}
    account_token = _token(operator, account, {"type": "account", "limits": account_limits})
    config, credentials = directory / "nats.conf", directory / "user.creds"
    config.write_text(
        f"operator: {_token(operator, operator, {'type': 'operator'})}\n"
        f"resolver: MEMORY\nresolver_preload: {{ {account.public_key.decode()}: {account_token} }}\n"
    )
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{_token(account, user, {'type': 'user', **unlimited})}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return ("--config", str(config)), credentials


def _token(issuer, subject, claims):
    """A JSON web token with NATS's own kind of signature."""
    payload = {
        "jti": subject.public_key.decode(),
        "iat": 1_700_000_000,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": claims["type"],
        "nats": {"version": 2, **claims},
    }
    signed = f"{_base64url(_json({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_base64url(_json(payload))}"
    return f"{signed}.{_base64url(issuer.sign(signed.encode()))}"


def _json(content):
    return json.dumps(content).encode()


def _base64url(content):
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
