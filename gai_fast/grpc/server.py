"""The gRPC server: its port, TLS, health, reflection, and its end.

Owns what listens. Must not know the methods' work.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from gai_fast.grpc.calls import Calls, make_task
from gai_fast.grpc.connections import Connections, most_connections
from gai_fast.grpc.limits import LIMITS
from gai_fast.grpc.messages import POOL, SERVICE
from gai_fast.grpc.receiving import Full, Receiving, overfull
from gai_fast.grpc.service import GRPCService
from gai_fast.grpc.statuses import status_of
from gai_fast.library.remote import RemoteGateway
from gai_fast.model.errors import Error
from gai_fast.model.settings import Secret

_SERVICES: Final = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)


class CannotServe(Exception):
    """grpcio refuses the address."""


class GrpcServer:
    """Serves `gai.v1` in front of one gateway. Made on the loop that it runs on.

    Args:
        gateway: The gateway, which is open.
        address: The host and the port to listen on, such as `127.0.0.1:50051`; port 0 chooses a free one.
        credentials: The credentials of TLS. None if connections are not encrypted.
        key: As for `GRPCService`.
        needs_key: As for `GRPCService`.

    Attributes:
        port: The port, once it has started.
    """

    def __init__(
        self,
        gateway: RemoteGateway,
        address: str,
        *,
        credentials: grpc.ServerCredentials | None = None,
        key: Secret | None = None,
        needs_key: bool = False,
    ) -> None:
        self.port = 0
        self._address = address
        self._credentials = credentials
        self._calls = Calls()
        self._health = _Health(self._calls)
        self._connections = Connections(most_connections())
        self._watches: list[asyncio.Task[None]] = []
        service = GRPCService(gateway, self._calls, key=key, needs_key=needs_key)
        self._server = grpc.aio.server(options=_options())
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, service.handlers()),),
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(health.SERVICE_NAME, self._health.handlers()),),
        )
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_Reflection(service, self._calls), self._server)

    async def start(self) -> None:
        """Opens the listening port. The loop's tasks are made by `make_task` from then on.

        Raises:
            CannotServe: The address cannot be listened on.
        """
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(self._address)
            else:
                self.port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as problem:
            raise CannotServe(str(problem)) from None
        loop = asyncio.get_running_loop()
        loop.set_task_factory(make_task)
        await self._server.start()
        self._watches = [loop.create_task(watch) for watch in (self._calls.watch(), self._watch_connections())]

    async def stop(self) -> None:
        """Says that it does not serve, lets calls end, and stops: in `limits.grpc_grace` and `limits.grpc_stop` seconds
        at most."""
        self._health.stop()
        await self._calls.drain()
        for watch in self._watches:
            watch.cancel()
        await self._server.stop(_AT_ONCE)

    async def _watch_connections(self) -> None:
        """Closes connections if there are too many. Runs until it is cancelled."""
        connections = self._connections
        while True:
            await asyncio.sleep(LIMITS.grpc_look)
            if connections.are_many:
                await asyncio.to_thread(connections.sweep, self.port, self._calls.accepted)


_AT_ONCE: Final = 0.5
"""Seconds to send the last messages of calls, and for watchers of the health to learn of the end."""


def _options() -> Sequence[tuple[str, int]]:
    """Returns grpcio's options."""
    return (
        ("grpc.so_reuseport", 0),  # or a second server would share the port
        ("grpc.max_receive_message_length", LIMITS.grpc_message),
        ("grpc.max_allowed_incoming_connections", most_connections()),
        ("grpc.http2.lookahead_bytes", LIMITS.grpc_unasked),
        ("grpc.http2.bdp_probe", 0),  # grpcio lets clients send 10 MiB and more of each unread message
        ("grpc.max_send_message_length", -1),  # an event has its own limit
        ("grpc.max_metadata_size", LIMITS.grpc_metadata),
        ("grpc.absolute_max_metadata_size", LIMITS.grpc_metadata),
        ("grpc.keepalive_time_ms", round(LIMITS.grpc_ping * 1e3)),
        ("grpc.keepalive_timeout_ms", round(LIMITS.grpc_pong * 1e3)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", round(LIMITS.grpc_pings_apart * 1e3)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_concurrent_streams", max(1, LIMITS.grpc_calls // 2)),
        ("grpc.max_connection_age_ms", round(LIMITS.grpc_age * 1e3)),
        ("grpc.max_connection_age_grace_ms", round(LIMITS.grpc_age_grace * 1e3)),
    )


class _Health:
    """Answers about the health; anyone may ask.

    1. A message that finds all places taken is not read: its answer is about the whole process. Strangers could else
       make a supervisor end it.
    2. `limits.grpc_watchers` calls stay, half of them of one address, and get the answer again when it changes. Further
       ones get it once, and end.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._receiving = Receiving(LIMITS.grpc_probes, wait=LIMITS.grpc_probe, receive=LIMITS.grpc_probe)
        self._stopping = asyncio.Event()
        self._watchers: Counter[str] = Counter()  # by address

    def handlers(self) -> dict[str, Any]:
        """Returns the methods in grpcio's form."""
        written = health_pb2.HealthCheckResponse.SerializeToString
        return {
            "Check": grpc.stream_unary_rpc_method_handler(self.check, response_serializer=written),
            "Watch": grpc.stream_stream_rpc_method_handler(self.watch, response_serializer=written),
        }

    def stop(self) -> None:
        """Answers from now on that the process does not serve."""
        self._stopping.set()

    async def check(self, _: object, context: grpc.aio.ServicerContext) -> health_pb2.HealthCheckResponse:
        """Answers once."""
        with self._calls.any(context.peer()):
            service = (await self._request(context)).service
            if service not in _HEALTHY:
                await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service")
            return self._answer(service)

    async def watch(self, _: object, context: grpc.aio.ServicerContext) -> None:
        """Answers, and again when the answer changes."""
        with self._calls.any(context.peer()) as call:
            service = (await self._request(context)).service
            watchers, address = self._watchers, call.address
            most = LIMITS.grpc_watchers
            is_counted = watchers.total() < most and watchers[address] < -(-most // 2)
            watchers[address] += is_counted
            try:
                await context.write(self._answer(service))
                if not is_counted:
                    return
                self._calls.waiting.remove(call)
                if service in _HEALTHY and not self._stopping.is_set():
                    await self._stopping.wait()
                    await context.write(self._answer(service))
                await asyncio.get_running_loop().create_future()  # ended here, a client would ask again at once
            finally:
                watchers[address] -= is_counted
                if not watchers[address]:
                    del watchers[address]

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        answer = health_pb2.HealthCheckResponse
        if service not in _HEALTHY:
            return answer(status=answer.SERVICE_UNKNOWN)
        return answer(status=answer.NOT_SERVING if self._stopping.is_set() else answer.SERVING)

    async def _request(self, context: grpc.aio.ServicerContext) -> health_pb2.HealthCheckRequest:
        """Returns a call's message. Ends the call if there is none."""
        try:
            return health_pb2.HealthCheckRequest.FromString(await self._receiving.message(context))
        except Full:
            return health_pb2.HealthCheckRequest()
        except DecodeError:
            ending = status_of(
                Error("invalid_request", "the message is not a HealthCheckRequest", reason="message"), ""
            )
        except Error as problem:
            ending = status_of(problem, "")
        await context.abort_with_status(ending)
        raise AssertionError("it has ended before")


_HEALTHY: Final = ("", SERVICE)
"""The names by which the health is asked for: the whole process, and the gateway's service."""


class _Reflection:
    """Describes the services to callers whose key the gateway takes."""

    def __init__(self, service: GRPCService, calls: Calls) -> None:
        self._service = service
        self._calls = calls
        self._described = ReflectionServicer(_SERVICES, pool=POOL)
        self._receiving = Receiving(LIMITS.grpc_reflections, wait=LIMITS.grpc_probe, receive=LIMITS.grpc_receive)

    async def ServerReflectionInfo(  # noqa: N802  # grpcio's name
        self, _: object, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        with self._calls.any(context.peer()):
            refusal = await self._service.check_key(context)
            ending = None if refusal is None else status_of(refusal, "")
            if ending is None:
                try:
                    async for answer in self._described.ServerReflectionInfo(self._requests(context), context):
                        yield answer
                except Full:
                    ending = status_of(overfull(), "")
                except Error as problem:
                    ending = status_of(problem, "")
            if ending is not None:
                await context.abort_with_status(ending)

    async def _requests(self, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        """Yields the messages of a call."""
        while (request := await self._receiving.read(context)) is not grpc.aio.EOF:
            yield request


async def serve_until_signal(server: GrpcServer, ready: Callable[[int], None]) -> None:
    """Runs a server until SIGINT or SIGTERM, and through its end. Another signal ends it at once.

    Args:
        server: The server.
        ready: Called with the port, once it listens.

    Raises:
        CannotServe: The address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signals.put_nowait, None)
    await server.start()
    ready(server.port)
    await signals.get()
    ending = loop.create_task(server.stop())
    again = loop.create_task(signals.get())
    await asyncio.wait({ending, again}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ending, again):
        task.cancel()
    await asyncio.wait({ending, again})
