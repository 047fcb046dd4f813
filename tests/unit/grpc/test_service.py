"""`gai_fast/grpc/service.py`: what a caller sees of a bug. `integration/test_grpc.py` has all else."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest

from gai_fast.grpc import messages
from gai_fast.grpc.calls import Calls
from gai_fast.grpc.service import Service


class Broken:
    """A gateway with a bug."""

    async def models(self, headers: Any) -> Any:
        raise RuntimeError("sk-secret")


class Context:
    """A call, and the status that it gets."""

    def __init__(self) -> None:
        self.code: Any = None
        self.details = ""
        self.initial: Any = ()

    def invocation_metadata(self) -> Any:
        return ()

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
    service = Service(gateway, Calls(), key=None, needs_key=False)
    context = Context()
    with caplog.at_level(logging.ERROR):
        assert await service.list_models(b"", context) is None
    assert context.code is grpc.StatusCode.INTERNAL
    assert "secret" not in context.details
    assert "sk-secret" in caplog.text
    [(name, request_id)] = context.initial
    assert (name, f"request {request_id}" in caplog.text) == ("x-request-id", True)
    caplog.clear()


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
    calls, context = Calls(), Stopping()
    await Service(gateway, calls, key=None, needs_key=False).generate(
        messages.written("GenerateRequest", json=b'{"query":"Hi"}'), context
    )
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
    context = Gone()
    await Service(gateway, Calls(), key=None, needs_key=False).generate(
        messages.written("GenerateRequest", json=b'{"query":"Hi"}'), context
    )
    assert (context.code, caplog.records) == (None, [])
