"""The bench of a fault: a gateway, upstreams that are counted, clients, and the invariants that every fault must keep.

* I1 What a client is given is a prefix of what was produced, whole frames only.
* I2 At most one event ends a stream, and nothing follows it but `done`.
* I3 The numbers of a stream's events rise by one.
* I4 Tasks, descriptors, timers, upstream connections in use and gauges are back where they began.
* I5 Upstreams are asked once per request, and once more per documented retry.
* I6 No secret is in a log line or in an answer.
* I7 Nothing blocks the loop, except where a fault says so: no turn takes `TURN` of the processor.

`gateway.py` of `integration/` looks for what is left of tasks, descriptors, timers and log lines (I4).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from gai_fast.model.settings import ModelSettings
from gai_fast.server.serving import start
from tests.faults.proxy import NONE, FaultProxy, Faults
from tests.integration.gateway import (
    KEY,
    MESSAGES,
    NATIVE,
    QUERY,
    Client,
    Gateway,
    Handler,
    Net,
    Peer,
    Response,
    Upstream,
    joined,
    on_uvloop,
    settings_for,
)
from tests.legal import check_legal
from tests.waiting import SECONDS, until

TURN = 0.5
"""Seconds of the processor that one turn of the loop may take (I7). The promise is a tenth of it; the rest is for slow
machines, for other programs that take the caches, and for the pure implementation. What does block takes longer: a
resolver, a lock, work without a bound. What bounds the work of a turn is tested by counts."""
_TICK = 0.005


class CountedPeer(Peer):
    """A connection whose requests are counted."""

    def __init__(self, bench: Bench, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._bench = bench

    async def request(self) -> bytes:
        """Returns the body of the next request."""
        body = await super().request()
        self._bench.calls += 1
        return body


class CountedUpstream(Upstream):
    """An upstream whose requests are counted."""

    def __init__(self, bench: Bench, handler: Handler) -> None:
        super().__init__(handler)
        self._bench = bench

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(CountedPeer(self._bench, reader, writer))))


class _Lines(logging.Handler):
    """Keeps every log line, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Bench:
    """One scenario.

    Attributes:
        net: Its servers and clients.
        asked: Streams that were asked for.
        attempts: Further requests to upstreams that the documentation allows.
        calls: Requests that upstreams got.
        may_block: The scenario itself holds the loop up (I7).
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self.asked = 0
        self.attempts = 0
        self.calls = 0
        self.may_block = False
        self._answers: list[Response] = []
        self._longest = 0.0

    # -- servers --

    async def upstream(self, handler: Handler) -> CountedUpstream:
        """Returns a counted upstream."""
        upstream = CountedUpstream(self, handler)
        await upstream.start()
        self.net.stack.push_async_callback(upstream.stop)
        return upstream

    async def sending(self, *pieces: bytes) -> CountedUpstream:
        """Returns an upstream that answers each request by these bytes, one read each, and keeps its connections."""

        async def handle(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(*pieces)

        return await self.upstream(handle)

    async def proxy(self, upstream: Upstream, faults: Faults = NONE, times: int | None = None) -> FaultProxy:
        """Returns a fault proxy in front of an upstream."""
        return await self.net.stack.enter_async_context(FaultProxy(upstream.url, faults, times))

    async def gateway(
        self, url: str, backup: str | None = None, model: dict[str, Any] | None = None, **options: Any
    ) -> Gateway:
        """A gateway whose model `m` asks one upstream; if there is a `backup`, its model is the fallback of `m`."""
        settings = settings_for(url, **options)
        more = dict(model or {})
        models = dict(settings.models)
        if backup is not None:
            spare = dataclasses.replace(models["m"].upstream, name="spare", base_url=f"{backup}/v1", breaker=None)
            models["backup"] = ModelSettings("backup", spare, "mock-2", models["m"].stream)
            more["fallback"] = ("backup",)
        models["m"] = dataclasses.replace(models["m"], **more)
        running = await start(dataclasses.replace(settings, models=models))
        gateway = Gateway(self.net, running)
        self.net.gateways.append(gateway)
        self.net.stack.push_async_callback(running.close)
        return gateway

    # -- clients --

    async def begin(self, gateway: Gateway, path: str = NATIVE, **more: Any) -> tuple[Client, Response]:
        """Asks for a stream; the head has been read."""
        self.asked += 1
        asked = {"model": "m", **(QUERY if path.startswith("/api") else {"messages": MESSAGES, "stream": True}), **more}
        client, response = await gateway.stream(asked, path)
        self._answers.append(response)
        return client, response

    async def ask(self, gateway: Gateway, path: str = NATIVE, **more: Any) -> Response:
        """Asks for a stream, and reads all of it."""
        client, response = await self.begin(gateway, path, **more)
        async with asyncio.timeout(SECONDS):
            await response.rest()
        client.close()
        return response

    # -- the invariants --

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Reads every log line, and measures the turns of the loop."""
        handler, logger = _Lines(), logging.getLogger("gai_fast")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        gc.disable()  # a collection of the whole test run's objects is no turn of the gateway
        loop, last = asyncio.get_running_loop(), time.thread_time()

        def tick() -> None:
            nonlocal last, timer
            now = time.thread_time()
            self._longest, last = max(self._longest, now - last), now
            timer = loop.call_later(_TICK, tick)

        timer = loop.call_later(_TICK, tick)
        try:
            yield
            assert not [line for line in handler.lines if KEY in line]  # I6
        finally:
            timer.cancel()
            gc.enable()
            logger.setLevel(level)
            logger.removeHandler(handler)

    async def check(self) -> None:
        """Asserts what must hold at the end of every scenario: I4 to I7."""
        for gateway in self.net.gateways:
            engine = gateway.running.engine
            await until(lambda gateway=gateway: not gateway.streams)
            assert set(engine.active.values()) <= {0}, engine.active
            assert set(engine.callers.values()) <= {0}, engine.callers
            for pool in engine.upstreams._pools.values():
                await until(lambda pool=pool: pool.stats.open == pool.stats.idle)
                assert (pool.stats.connecting, pool.stats.pending) == (0, 0)
        assert self.calls <= self.asked + self.attempts, (self.calls, self.asked, self.attempts)
        assert not [answer for answer in self._answers if KEY.encode() in answer.body]
        assert self.may_block or self._longest < TURN, f"a turn of {self._longest * 1000:.0f} ms"


def check_stream(response: Response, produced: str) -> list[dict[str, Any]]:
    """Asserts I1 to I3 of a stream in the format `gai`; returns its events.

    Args:
        response: The client's, read to its end.
        produced: The text of the upstream's answer.
    """
    assert response.status == 200, bytes(response.body)
    body = bytes(response.body)
    if response.headers["content-type"].startswith("text/event-stream"):
        *_, rest = body.split(b"\n\n")
        assert not rest.replace(b": ping\n", b""), f"half a frame: {rest!r}"
    else:
        assert body.endswith(b"\n") or not body, f"half a line: {body[-100:]!r}"
    events = response.events
    if response.ended:
        is_compact = len(events) > 1 and "schema" not in events[1]
        check_legal(cast(Any, events), numbered=is_compact)
        assert [event["seq"] for event in events[:-1]] == list(range(1, len(events)))
    else:  # it was cut: it must not look complete
        kinds = [event["type"] for event in events]
        assert kinds.count("finish") + kinds.count("error") <= 1, kinds
        assert "done" not in kinds, kinds
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    check_prefix(response.text, produced, is_whole="finish" in response.types)
    return events


def check_chat(response: Response, produced: str) -> dict[str, Any] | None:
    """Asserts I1 and I2 of a stream in OpenAI's dialect; returns its error.

    Args:
        response: The client's, read to its end.
        produced: The text of the upstream's answer.
    """
    assert response.status == 200, bytes(response.body)
    *_, rest = bytes(response.body).split(b"\n\n")
    assert not rest.replace(b": ping\n", b""), f"half a frame: {rest!r}"
    chunks = response.events
    errors = [chunk["error"] for chunk in chunks if "error" in chunk]
    assert response.data.count("[DONE]") == (response.ended and not errors), response.data[-2:]
    assert not errors or "error" in chunks[-1], "something follows the error"
    assert len(errors) <= 1
    check_prefix(joined(chunks), produced, is_whole=not errors and response.ended)
    return errors[0] if errors else None


def check_prefix(received: str, produced: str, *, is_whole: bool) -> None:
    """Asserts that a client got the beginning of a text, or all of it."""
    assert produced.startswith(received), f"{received!r} is no beginning of {produced!r}"
    assert not is_whole or received == produced, f"only {received!r} of {produced!r}, and a proper end"


def error_of(response: Response) -> dict[str, Any]:
    """Returns the error of a stream: in band, or in place of it."""
    if response.headers["content-type"].startswith("application/json"):
        error = response.error
    else:
        (error,) = (event["error"] for event in response.events if "error" in event)
    return cast("dict[str, Any]", json.loads(json.dumps(error)))


Scenario = Callable[..., Awaitable[None]]


def fault(
    *rows: int, on: Callable[[Scenario], Callable[..., None]] = on_uvloop
) -> Callable[[Scenario], Callable[..., None]]:
    """Makes a scenario a test, whose invariants are checked at its end.

    Args:
        rows: Its rows of the table in docs/reliability.md.
        on: The loop that it runs on.
    """
    assert rows

    def decorate(scenario: Scenario) -> Callable[..., None]:
        @functools.wraps(scenario)
        async def checked(net: Net, **arguments: Any) -> None:
            bench = Bench(net)
            with bench.watching():
                await scenario(bench, **arguments)
                await bench.check()

        return on(checked)

    return decorate
