"""The methods of `gai.v1.Gateway`: each call becomes requests to the gateway, and their answers its messages.

Owns the order of a call:

1. Its metadata is read; the id of the request goes back in the initial metadata at once.
2. Its message is read. Without a key, and while many messages come, the gateway first judges the call.
3. The call gets a place, and the gateway is asked. It decides about the key, limits and all else; a refusal of it is
   the call's status.
4. Each event is written when the client's connection takes it (HTTP/2's flow control). Until then the gateway's
   connection is not read, which holds the gateway back.
5. A call that is cancelled, by its client or by its deadline, leaves the stream, as a client that disconnects does.
6. A stream that fails ends with `error` and `done`, then the status of that error.

Must not know TLS, ports and signals.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
from grpc.aio import ServicerContext

from gai_fast.core.requests.reading import parse_object
from gai_fast.grpc import messages
from gai_fast.grpc.calls import Calls, RemoteCall, draining
from gai_fast.grpc.limits import LIMITS
from gai_fast.grpc.metadata import gateway_headers
from gai_fast.grpc.receiving import Full, Receiving, overfull
from gai_fast.grpc.statuses import status_of
from gai_fast.kernels import encode_json
from gai_fast.library.asking import event_number
from gai_fast.library.remote import RemoteGateway
from gai_fast.library.wire_streams import WireStream
from gai_fast.model.errors import Error
from gai_fast.model.events import Event, done
from gai_fast.model.settings import Secret

_log: Final = logging.getLogger("gai_fast.grpc")

Headers = dict[str, str]
Asked = Callable[[Headers, bytes], WireStream]
"""Starts the stream of a call, of its headers and its message."""


class GRPCService:
    """The methods, in front of one gateway.

    Args:
        gateway: The gateway.
        calls: The running calls.
        key: The key of calls that bring none.
        needs_key: Whether such calls are refused if there is no key for them.
    """

    def __init__(self, gateway: RemoteGateway, calls: Calls, *, key: Secret | None, needs_key: bool) -> None:
        self._gateway = gateway
        self._calls = calls
        self._key = key
        self._needs_key = needs_key
        self._judged = Receiving(LIMITS.grpc_receiving, wait=LIMITS.grpc_receiving_wait, receive=LIMITS.grpc_receive)
        self._unjudged = Receiving(LIMITS.grpc_unjudged, wait=LIMITS.grpc_unjudged_wait, receive=LIMITS.grpc_receive)
        self._judges = asyncio.Semaphore(LIMITS.grpc_judges)
        self._accepted: dict[int, float] = {}  # the end of each caller's time, in seconds of the loop's clock

    def handlers(self) -> dict[str, Any]:
        """Returns the methods in grpcio's form. They give bytes, and read their message themselves."""
        return {
            "Generate": grpc.stream_stream_rpc_method_handler(self.generate),
            "Follow": grpc.stream_stream_rpc_method_handler(self.follow),
            "Cancel": grpc.stream_unary_rpc_method_handler(self.cancel),
            "ListModels": grpc.stream_unary_rpc_method_handler(self.list_models),
        }

    async def generate(self, _: object, context: ServicerContext) -> None:
        """Asks for an answer."""

        def asked(headers: Headers, data: bytes) -> WireStream:
            return WireStream(self._gateway, _native_request(data), headers=headers)

        await self._stream(context, asked)

    async def follow(self, _: object, context: ServicerContext) -> None:
        """Follows a stream."""

        def asked(headers: Headers, data: bytes) -> WireStream:
            request = messages.read("FollowRequest", data)
            try:
                after = event_number(request.stream_id, request.after)
            except ValueError as problem:
                raise Error("invalid_request", str(problem), reason="last_event_id") from None
            # An empty id would ask for a new answer.
            return WireStream(self._gateway, {}, headers=headers, stream_id=request.stream_id or "-", after=after)

        await self._stream(context, asked)

    async def cancel(self, _: object, context: ServicerContext) -> bytes | None:
        """Ends a stream."""

        async def answer(call: RemoteCall, headers: Headers, data: bytes) -> bytes:
            request = messages.read("CancelRequest", data)
            return messages.written(
                "CancelResponse", state=await self._gateway.cancel(request.stream_id, headers=headers)
            )

        return await self._run(context, answer)

    async def list_models(self, _: object, context: ServicerContext) -> bytes | None:
        """Lists the models that the caller may name."""

        async def answer(call: RemoteCall, headers: Headers, data: bytes) -> bytes:
            messages.read("ListModelsRequest", data)
            models = await self._gateway.models(headers=headers)
            listed = [{"id": str(model.get("id", "")), "json": encode_json(model)} for model in models]
            return messages.written("ListModelsResponse", models=listed)

        return await self._run(context, answer)

    async def check_key(self, context: ServicerContext) -> Error | None:
        """Returns the gateway's refusal of a call's key; `None` if it takes it."""
        try:
            await self._gateway.models(headers=self._headers(context))
        except Error as refusal:
            return refusal
        return None

    async def _message(self, context: ServicerContext, headers: Headers) -> bytes:
        """Returns the message of a call. If the key is not known to be accepted, the gateway checks it first.

        Raises:
            Error: The gateway refuses the call, or there is no message.
        """
        try:
            if asyncio.get_running_loop().time() < self._accepted.get(_caller(headers), 0.0):
                return await self._judged.message(context)
            if "authorization" in headers:
                return await self._unjudged.message(context)
        except Full:
            pass
        await self._judge(headers)
        try:
            return await self._judged.message(context)
        except Full:
            raise overfull() from None

    async def _judge(self, headers: Headers) -> None:
        """Asks the gateway about a call whose message has not been read.

        Raises:
            Error: The gateway refuses the caller. Another failure is left to the call's own request, which may be
                repeated.
        """
        try:
            async with self._judges:
                await self._gateway.models(headers=headers)
        except Error as refusal:
            if refusal.code in _OF_CALLERS:
                raise
        else:
            self._accept(headers)

    def _accept(self, headers: Headers) -> None:
        """Notes that the gateway takes a caller."""
        accepted, caller = self._accepted, _caller(headers)
        accepted.pop(caller, None)
        accepted[caller] = asyncio.get_running_loop().time() + LIMITS.grpc_accepted
        if len(accepted) > LIMITS.grpc_callers:
            del accepted[next(iter(accepted))]

    def _headers(self, context: ServicerContext) -> Headers:
        """Returns the headers for the gateway.

        Raises:
            InvalidRequest: The metadata cannot be passed on.
            Unauthorized: There is no key.
        """
        headers = gateway_headers(context.invocation_metadata(), context.peer(), self._key)
        if self._needs_key and "authorization" not in headers:
            raise Error("unauthorized", "the call has no key: send it as authorization: Bearer KEY", reason="key")
        return headers

    async def _stream(self, context: ServicerContext, asked: Asked) -> None:
        """Answers a call with a stream."""
        await self._run(context, lambda call, headers, data: _pass_on(asked(headers, data), call, context))

    async def _run(
        self, context: ServicerContext, answer: Callable[[RemoteCall, Headers, bytes], Awaitable[bytes | None]]
    ) -> bytes | None:
        """Answers a call; what fails becomes its status."""
        request_id = ""
        try:
            with self._calls.running(context.peer()) as call:
                headers = self._headers(context)
                request_id = headers["x-request-id"]
                await context.send_initial_metadata((("x-request-id", request_id),))
                data = await self._message(context, headers)
                self._calls.place(call, _caller(headers) if "authorization" in headers else hash(call.address))
                answered = await answer(call, headers, data)
                self._accept(headers)
                self._calls.note_success(call)
                return answered
        except Error as refusal:
            _refuse(context, refusal, request_id)
        except grpc.aio.InternalError:  # grpcio cannot write: the client has gone, and no status would reach it
            return None
        except Exception:  # noqa: BLE001  # a bug: its text is for the log alone
            _log.exception("a call failed: request %s", request_id)
            _refuse(context, Error("internal", "the gRPC server failed: its log says how"), request_id)
        return None


def _caller(headers: Headers) -> int:
    """Returns what stands for the key of a call; one number stands for all calls without one."""
    return hash(headers.get("authorization", ""))


_OF_CALLERS: Final = ("unauthorized", "forbidden", "rate_limited")
"""Codes of refusals that every request of the caller would get."""


async def _pass_on(stream: WireStream, call: RemoteCall, context: ServicerContext) -> None:
    """Passes a stream's events on.

    Raises:
        Error: The gateway refuses, the stream failed, or the server stops.
    """
    failure: Mapping[str, Any] | None = None
    seq = 0
    write, message = context.write, messages.event_message
    try:
        async with stream:
            while events := await stream.read():
                call.waits = True
                # All at once: between two writes this code has left the caches.
                for data in [message(event, text) for event, text in events]:
                    await write(data)
                    call.sent += 1
                    if call.is_stopped and events[-1][0]["type"] != "done":  # else the rest of it is here
                        raise asyncio.CancelledError
                call.waits = False
                seq = events[-1][0].get("seq", seq)
                for event, _ in events[-2:]:  # `error` is the last but one
                    failure = event["error"] if event["type"] == "error" else failure
    except asyncio.CancelledError:
        if not call.is_stopped:
            raise
        refusal = draining()
        error: Event = {"type": "error", "seq": seq + 1, "error": refusal.payload()}
        for own in (error, done(False)):
            await write(message(own, encode_json(own).decode()))
        raise refusal from None
    if failure is not None:
        raise Error.from_payload(failure)


def _native_request(data: bytes) -> dict[str, Any]:
    """Returns the request in a `GenerateRequest`.

    Raises:
        InvalidRequest: There is none, or it has too many values.
    """
    request = parse_object(messages.read("GenerateRequest", data).json)
    # As over HTTP, and not as in `connect`: the gateway keeps no stream that will have no follower.
    if not isinstance(request.setdefault("resumable", False), bool):
        raise Error("invalid_request", "`resumable` must be true or false", reason="validation")
    return request


def _refuse(context: ServicerContext, error: Error, request_id: str) -> None:
    """Sets the status of a call."""
    ending = status_of(error, request_id)
    context.set_code(ending.code)
    context.set_details(ending.details)
    context.set_trailing_metadata(ending.trailing_metadata)
