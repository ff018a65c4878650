"""Asking the guard about a call, before anything of its request is read."""

from typing import Any, Final

from grpc import aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from ccms_server.auth import Access, Guard
from ccms_server.errors import MetricStoreError
from ccms_server.rpc.errors import refusal

_OPEN_METHOD: Final = f"/{health.SERVICE_NAME}/Check"
"""What watches the server has no token. `Watch` is not open: calls that stay would take the place of others."""
_READ_SERVICES: Final = frozenset({health.SERVICE_NAME, reflection.SERVICE_NAME})
_ACCESS_BY_METHOD: Final = {
    "/ccms.v1.MetricStoreService/Write": Access.WRITE,
    "/ccms.v1.MetricStoreService/WriteLineProtocol": Access.WRITE,
    "/ccms.v1.MetricStoreService/WriteStream": Access.WRITE,
    "/ccms.v1.MetricStoreService/Query": Access.READ,
    "/ccms.v1.MetricStoreService/Watch": Access.READ,
    "/ccms.v1.CatalogService/ListClusters": Access.READ,
    "/ccms.v1.CatalogService/ListHosts": Access.READ,
    "/ccms.v1.CatalogService/ListComponents": Access.READ,
    "/ccms.v1.CatalogService/ListMetrics": Access.READ,
    "/ccms.v1.CatalogService/ListSeries": Access.READ,
    "/ccms.v1.AdminService/Free": Access.ADMIN,
    "/ccms.v1.AdminService/Dump": Access.ADMIN,
    "/ccms.v1.AdminService/GetHostHealth": Access.READ,
    "/ccms.v1.AdminService/Checkpoint": Access.ADMIN,
    "/ccms.v1.AdminService/GetStatus": Access.READ,
}


def access_of(method: str) -> Access | None:
    """What a call of `/package.Service/Method` is about to do; None: anyone may. What is unknown is for admins."""
    if method == _OPEN_METHOD:
        return None
    service = method.removeprefix("/").partition("/")[0]
    return Access.READ if service in _READ_SERVICES else _ACCESS_BY_METHOD.get(method, Access.ADMIN)


class Authentication(aio.ServerInterceptor):
    """Ends calls that the guard does not let pass with UNAUTHENTICATED or PERMISSION_DENIED."""

    def __init__(self, guard: Guard) -> None:
        """Makes it.

        Args:
            guard: Decides who may do what.
        """
        self._guard = guard

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401  untyped there
        """Replaces the handler of a call that may not be answered; a method that does not exist stays gRPC's affair."""
        handler = await continuation(handler_call_details)
        access = access_of(handler_call_details.method)
        if handler is None or access is None:
            return handler
        authorization = dict(handler_call_details.invocation_metadata or ()).get("authorization")
        try:
            self._guard.check(authorization, access)
        except MetricStoreError as error:
            return refusal(error)
        return handler
