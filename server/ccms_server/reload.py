"""What a running server takes over from its configuration file when it is told to read it again.

Metrics that are new, rules to aggregate by, units, another key for tokens, and users take effect at once; certificates
are read again. All else waits for the next start, and is named. A file that breaks a rule, or gives a metric another
interval, changes nothing at all.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final, Protocol

from ccms_server.auth import Guard
from ccms_server.config import Config, HttpApiConfig, inactive_features, load_config
from ccms_server.config.keys import KEYS
from ccms_server.errors import ConfigError, MetricStoreError
from ccms_server.exposure import warn_of_exposure
from ccms_server.listen import Endpoint
from ccms_server.store.metric import Metric

logger = logging.getLogger(__name__)

_WAITING: Final = {
    "grpc_api": "grpc-api",
    "nats": "nats",
    "retention_in_memory": "retention-in-memory",
    "memory_cap_bytes": "memory-cap",
    "user": "user",
    "group": "group",
    "backend_url": "backend-url",
    "backend_token_file": "backend-token-file",
    "num_workers": "num-workers",
    "checkpoints": "checkpoints",
    "archive": "archive",
    "debug": "debug",
    "limits": "limits",
}
"""Parts of the configuration that wait for the next start, and what the layout of 2024 calls them."""


class MetricTaker(Protocol):
    """Serves further metrics: `MetricService`."""

    async def configure(self, metrics: Sequence[Metric]) -> None:
        """Serves metrics from now on, or other rules to aggregate them by."""


class CertificateReader(Protocol):
    """Reads certificates again: `tls.Certificates`."""

    def reload(self) -> None:
        """Reads the files again; those that cannot be used are reported, and change nothing."""


class Reloader:
    """Reads the file again whenever it is asked to."""

    def __init__(
        self,
        path: Path,
        config: Config,
        service: MetricTaker,
        guard: Guard,
        certificates: CertificateReader | None,
        endpoints: Sequence[Endpoint],
    ) -> None:
        """Makes it; `run` works.

        Args:
            path: The file.
            config: What it said at the start.
            service: Takes metrics.
            guard: Takes keys, roles and users.
            certificates: Those of the sockets; None: they have none.
            endpoints: Every address that is listened on.
        """
        self._path = path
        self._running = config
        self._service = service
        self._guard = guard
        self._certificates = certificates
        self._endpoints = endpoints

    async def run(self, asked: asyncio.Event) -> None:
        """Reads the file each time the event is set, and clears it."""
        while True:
            await asked.wait()
            asked.clear()
            await self.reload()

    async def reload(self) -> None:
        """Reads the file, and takes over what can be; what became of it is logged."""
        if self._certificates is not None:
            self._certificates.reload()
        try:
            if not self._path.is_file():  # a pipe, for one, would be waited for
                raise ConfigError(str(self._path), None, "is no file")
            new = await asyncio.to_thread(load_config, self._path)
            changed = changed_metrics(self._running.metrics, new.metrics)
            await self._service.configure(changed)
        except MetricStoreError as error:
            logger.error("the configuration was read again and refused, nothing of it was changed: %s", error)
            return
        waiting = waiting_parts(self._running, new)
        # A key that got lost in editing must not open the server to everybody.
        public_key = new.jwt_public_key or self._running.jwt_public_key
        self._guard.reconfigure(public_key, new.auth)
        merged = {metric.name: metric for metric in (*self._running.metrics, *changed)}
        self._running = replace(self._running, metrics=tuple(merged.values()), jwt_public_key=public_key, auth=new.auth)
        for sentence in inactive_features(new):
            logger.warning("%s", sentence)
        warn_of_exposure(self._running, self._endpoints)
        names = ", ".join(metric.name for metric in changed) or "none"
        logger.info("the configuration was read again; metrics that are new or changed: %s", names)
        if waiting:
            logger.warning("these changes take effect at the next start: %s", ", ".join(waiting))


def changed_metrics(running: Sequence[Metric], new: Sequence[Metric]) -> list[Metric]:
    """The metrics that are not served yet, are aggregated otherwise, or have another unit.

    Raises:
        ConfigError: One has another interval.
    """
    by_name = {metric.name: metric for metric in running}
    for metric in new:
        old = by_name.get(metric.name, metric)
        if metric.interval != old.interval:
            raise ConfigError(
                f"metrics.{metric.name}.frequency",
                metric.interval,
                f"is {old.interval} in the server that runs, and its samples lie on that grid: stop the server, and "
                "start it again with the new value; samples of the old interval stay on disk, but are not served",
            )
    return [metric for metric in new if by_name.get(metric.name) != metric]


def waiting_parts(running: Config, new: Config) -> list[str]:
    """Keys of what differs, and takes effect at the next start only."""
    names = {metric.name for metric in new.metrics}
    removed = [f"metrics.{metric.name} (removed)" for metric in running.metrics if metric.name not in names]
    named = KEYS[new.layout].named
    differing = [named(key) for part, key in _WAITING.items() if getattr(running, part) != getattr(new, part)]
    rest = [
        named(f"http-api.{field.name.replace('_', '-')}")  # one by one: in 1.5, others beside them do not wait
        for field in fields(HttpApiConfig)
        if getattr(running.http_api, field.name) != getattr(new.http_api, field.name)
    ]
    if running.jwt_public_key and not new.jwt_public_key:
        removed.append(f"{named('jwt-public-key')} (removed)")
    return [*removed, *rest, *differing]
