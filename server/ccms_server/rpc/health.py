"""What `grpc.health.v1` says of this process."""

from collections.abc import Iterable
from typing import Final

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

NATS_SERVICE: Final = "nats"
"""SERVING while every NATS connection is up, with all its subscriptions; unknown when none is configured."""


class HealthState:
    """Sets the health of the server's services; not serving until told otherwise.

    Attributes:
        servicer: What answers the health service's calls.
    """

    def __init__(self, service_names: Iterable[str]) -> None:
        """Knows of services, none of them serving yet.

        Args:
            service_names: The services; the server itself is one as well.
        """
        self.servicer = health.aio.HealthServicer()
        self._service_names = ("", *service_names)

    async def set_serving(self, serving: bool) -> None:
        """Whether requests are served. Being cut off from NATS does not change that."""
        for name in self._service_names:
            await self.servicer.set(name, _status(serving))

    async def set_nats(self, connected: bool) -> None:
        """Whether every NATS connection is up, with all its subscriptions."""
        await self.servicer.set(NATS_SERVICE, _status(connected))


def _status(serving: bool) -> HealthCheckResponse.ServingStatus.ValueType:
    return HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
