"""The exporter's queue, and the spans that it drops. `integration/test_otel.py` has receivers that fail."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web

from gai_fast.model.settings import OTelSettings
from gai_fast.otel import otlp
from gai_fast.otel.exporter import Exporter, _Refusal, _Resolver
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.otlp import Receiver
from tests.waiting import SECONDS, until

SPAN = otlp.span(
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    parent_id="",
    state="",
    name="x" * 1000,
    kind=otlp.SERVER,
    began_ns=1,
    ended_ns=2,
    given={},
)


def exporter(url: str, metrics: bytes = b"", **more: Any) -> Exporter:
    settings = OTelSettings(url, **{"span_delay": 3600.0, "metric_interval": 3600.0, **more})
    return Exporter(settings, {}, lambda: metrics)


async def test_spans_that_are_many_are_sent_before_their_time() -> None:
    async with Receiver() as receiver:
        sending = exporter(receiver.url)
        await until(lambda: sending._loop is not None)
        count = LIMITS.otel_batch // len(SPAN) + 1
        for _ in range(count - 1):
            sending.put(SPAN, 1)
        assert receiver.spans == []
        sending.put(SPAN, 1)
        await until(lambda: len(receiver.spans) == count)
        await sending.close()
    assert sending.lost == 0


async def test_what_waits_has_a_bound_and_the_rest_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # accepts in its backlog, and never answers
        sending = exporter(f"http://127.0.0.1:{nobody.getsockname()[1]}", span_delay=0.001)
        piece = b",".join([SPAN] * 100)
        for _ in range(3 * LIMITS.otel_waiting // len(piece)):
            sending.put(piece, 100)
        assert sending._waiting <= LIMITS.otel_waiting
        assert sending.lost >= 100 * LIMITS.otel_waiting // len(piece)
        await sending.close()
    lost = sending.lost
    sending.put(SPAN, 1)
    assert sending.lost == lost + 1, "it has been closed"


async def test_the_end_is_bounded_and_leaves_no_thread_where_the_receiver_is_gone() -> None:
    sending = exporter("http://127.0.0.1:1", b"{}", span_delay=0.001)
    sending.put(SPAN, 1)
    await sending.close()
    await until(lambda: not [each for each in threading.enumerate() if each.name == "gai-fast-otel"])
    await sending.close()


async def test_spans_that_are_being_sent_at_the_end_are_sent_once() -> None:
    answered = asyncio.Event()

    async def late(_: web.Request) -> None:
        await answered.wait()

    async with Receiver(answer=late) as receiver:
        sending = exporter(receiver.url, span_delay=0.001)
        sending.put(SPAN, 1)
        await until(lambda: receiver.requests)
        closing = asyncio.create_task(sending.close())
        await until(sending._stop.is_set)
        answered.set()
        await closing
    assert receiver.requests == ["/v1/traces"]


async def test_failures_are_reported_once_and_so_is_their_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gai_fast.otel")
    async with Receiver() as receiver:
        url = receiver.url
    sending = exporter(url, b"", span_delay=0.001)
    sending.put(SPAN, 1)
    await until(lambda: "cannot be exported" in caplog.text)
    sending._failed(_Refusal("it answers 500", may_repeat=True))
    assert caplog.text.count("cannot be exported") == 1
    sending._worked()
    sending._worked()
    assert caplog.text.count("again") == 1
    sending._failed(_Refusal("it answers 500", may_repeat=True))
    assert caplog.text.count("cannot be exported") == 1, "less than a minute later"
    await sending.close()


async def test_without_a_thread_nothing_is_exported_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    sending = exporter("http://127.0.0.1:1")
    sending.put(SPAN, 2)
    assert sending.lost == 2
    assert "no thread to spare" in caplog.text
    began = time.monotonic()
    await sending.close()
    assert time.monotonic() - began < 5


async def test_a_thread_that_has_just_ended_fails_no_stream_and_no_end(
    monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> None:
    """Its loop was closed and still woken: `put`, in the midst of a stream, raised a `RuntimeError`."""
    ended, go_on = threading.Event(), threading.Event()
    run = asyncio.run

    def run_and_pause(main: Any) -> None:
        with suppress(ExceptionGroup):
            run(main)
        ended.set()
        go_on.wait(SECONDS)

    def fail() -> bytes:
        raise ValueError("a bug of the metrics")

    monkeypatch.setattr("gai_fast.otel.exporter.asyncio.run", run_and_pause)
    change_limits(otel_end=0.0)
    settings = OTelSettings("http://127.0.0.1:1", span_delay=3600.0, metric_interval=0.001)
    sending = Exporter(settings, {}, fail)
    try:
        await until(ended.is_set)
        sending.put(SPAN * (LIMITS.otel_batch // len(SPAN) + 1), 1)
        assert sending.lost == 1, "nobody sends it any more"
        await sending.close()
    finally:
        go_on.set()
    await until(sending._ended.is_set)


async def test_a_name_is_looked_up_in_the_thread_of_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = _Resolver()
    found = await resolver.resolve("127.0.0.1", 4318)
    assert (found[0]["host"], found[0]["port"]) == ("127.0.0.1", 4318)

    def metadata(*_: object) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", metadata)
    with pytest.raises(OSError, match="metadata"):
        await resolver.resolve("metadata.example", 80)
    await resolver.close()
