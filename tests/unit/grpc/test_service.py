"""`gai_fast/grpc/service.py`: what a caller sees of a bug. `integration/test_grpc.py` has all else."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest

from gai_fast.grpc import messages
from gai_fast.grpc.calls import Calls
from gai_fast.grpc.service import GRPCService
from gai_fast.model.errors import Error

QUERY = messages.written("GenerateRequest", json=b'{"query":"Hi"}')


class Broken:
    """A gateway with a bug."""

    async def models(self, headers: Any) -> Any:
        raise RuntimeError("sk-secret")


class Context:
    """A call, and the status that it gets."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.code: Any = None
        self.details = ""
        self.initial: Any = ()

    def invocation_metadata(self) -> Any:
        return (("authorization", "Bearer k"),)

    async def read(self) -> bytes:
        return self.data

    def peer(self) -> str:
        return "unix:"

    async def send_initial_metadata(self, metadata: Any) -> None:
        self.initial = metadata

    def set_code(self, code: Any) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, metadata: Any) -> None: ...


async def test_a_bug_is_internal_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    gateway: Any = Broken()
    service = GRPCService(gateway, Calls(), key=None, needs_key=False)
    context = Context()
    with caplog.at_level(logging.ERROR):
        assert await service.list_models(None, context) is None
    assert context.code is grpc.StatusCode.INTERNAL
    assert "secret" not in context.details
    assert "sk-secret" in caplog.text
    [(name, request_id)] = context.initial
    assert (name, f"request {request_id}" in caplog.text) == ("x-request-id", True)
    caplog.clear()


class WithoutKeys:
    """A gateway that takes calls without a key, or is not there."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.problem: Error | None = None

    async def models(self, headers: Any) -> Any:
        self.asked.append(headers)
        if self.problem is not None:
            raise self.problem
        return []


async def test_the_gateway_is_asked_for_a_time_about_calls_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway: Any = WithoutKeys()
    service = GRPCService(gateway, Calls(), key=None, needs_key=False)
    for problem, asked in ((Error("network", "no"), 2), (None, 2), (None, 1), (Error("unauthorized", "no"), 1)):
        gateway.asked, gateway.problem = [], problem
        context = Context()
        monkeypatch.setattr(context, "invocation_metadata", lambda: ())
        await service.list_models(None, context)
        assert len(gateway.asked) == asked
    service._accepted.clear()
    gateway.asked = []
    await service.list_models(None, context)
    assert (len(gateway.asked), context.code) == (1, grpc.StatusCode.UNAUTHENTICATED)


class Whole:
    """An answer that comes in one read."""

    def __init__(self, gateway: Any, request: Any, *, headers: Any) -> None:
        self.events = [({"type": "text.delta", "seq": 2}, "{}"), ({"type": "done"}, "{}")]

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *problem: object) -> None: ...

    async def read(self) -> Any:
        events, self.events = self.events, []
        return events


async def test_a_server_that_stops_amid_the_last_messages_tells_of_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopping(Context):
        written = 0

        async def write(self, data: bytes) -> None:
            self.written += 1
            for call in calls._calls:
                call.stop()

    monkeypatch.setattr("gai_fast.grpc.service.WireStream", Whole)
    gateway: Any = None
    calls, context = Calls(), Stopping(QUERY)
    await GRPCService(gateway, calls, key=None, needs_key=False).generate(None, context)
    assert (context.written, context.code) == (2, None)


async def test_a_client_that_is_gone_while_it_is_written_to_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that cancel while they do not read filled the log with tracebacks."""

    class Gone(Context):
        async def write(self, data: bytes) -> None:
            raise grpc.aio.InternalError('Failed "execute_batch"')

    monkeypatch.setattr("gai_fast.grpc.service.WireStream", Whole)
    gateway: Any = None
    context = Gone(QUERY)
    await GRPCService(gateway, Calls(), key=None, needs_key=False).generate(None, context)
    assert (context.code, caplog.records) == (None, [])
