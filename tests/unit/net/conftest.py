"""A fake loop with its timer wheel, and a receiver that records its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from gai_fast.model.errors import Error
from gai_fast.net.engine import upstreams
from gai_fast.net.upstream import dialing, pool
from gai_fast.net.upstream.connection import Receiver
from gai_fast.runtime.timers import TimerWheel
from tests.unit.fake_loop import FakeLoop, FakeTransport
from tests.unit.net.fakes import FakePool
from tests.unit.net.socket_pair import Pair
from tests.waiting import SECONDS, until


class Recorder(Receiver):
    """A receiver; `on_head` and `on_body` are called after the note was taken, with itself."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.ends: list[Error | None] = []
        self.calls: list[str] = []
        self.on_head: Callable[[], object] = lambda: None
        self.on_body: Callable[[], object] = lambda: None

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self.calls.append("head")
        self.status, self.headers = status, headers
        self.on_head()

    def body_received(self, data: bytes) -> None:
        self.calls.append("body")
        self.pieces.append(data)
        self.on_body()

    def exchange_ended(self, error: Error | None) -> None:
        self.calls.append("end")
        self.ends.append(error)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def error(self) -> Error:
        """The error it ended with, once."""
        assert len(self.ends) == 1
        assert self.ends[0] is not None
        return self.ends[0]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[FakePool]:
    """Returns the pools that are made, without connections."""
    FakePool.made = []
    monkeypatch.setattr(upstreams, "UpstreamPool", FakePool)
    return FakePool.made


async def _settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    monkeypatch.setattr(dialing, "connected", FakeLoop.connected)
    monkeypatch.setattr(pool, "PlainTransport", FakeLoop.make_transport)
    return FakeLoop()


@pytest.fixture
def timers(loop: FakeLoop) -> TimerWheel:
    return TimerWheel(loop)


@pytest.fixture
def make_recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def make_transport() -> type[FakeTransport]:
    return FakeTransport


@pytest.fixture
def settle() -> Callable[[], Coroutine[Any, Any, None]]:
    """Lets the tasks that can run do so."""
    return _settle


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run_pair(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Runs a scenario with a plain transport and its peer; at its end the transport is lost, once."""

    def run(scenario: Any) -> None:
        async def main() -> None:
            pair = Pair()
            try:
                async with asyncio.timeout(SECONDS):
                    await scenario(pair)
                    pair.transport.abort()
                    await until(lambda: bool(pair.receiver.lost))
                await asyncio.sleep(0)
                assert pair.receiver.calls.count("lost") == 1
                assert pair.transport.get_extra_info("socket").fileno() == -1
            finally:
                pair.peer.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run
