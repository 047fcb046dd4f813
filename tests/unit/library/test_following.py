"""`gai_fast/library/following.py`: a program follows a durable stream from any place, at its own pace."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Fault, Mock
from gai_fast.core.callbacks import EventManager
from gai_fast.library.collecting import acollect
from gai_fast.library.gateway import Gateway
from gai_fast.model.errors import Error, InvalidRequest, NotFound, Unsupported
from gai_fast.model.limits import KIB
from gai_fast.model.settings import Settings, StoreSettings, StreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.stores import Ending, LogHeader, StreamLog
from tests.unit.integrations.test_body import body_of, sent
from tests.unit.mocked import settings_for
from tests.waiting import until

QUERY = {"query": "Tell me a story", "resumable": True}
FINISHED = Ending("finished", "stop")


def engine_of(gateway: Gateway) -> Engine:
    return gateway.engine()


def with_stream(settings: Settings, **options: Any) -> Settings:
    model = dataclasses.replace(settings.models["m"], stream=StreamSettings(**options))
    return dataclasses.replace(settings, models={"m": model})


def begin(gateway: Gateway, **header: Any) -> StreamLog:
    fields = {"caller": "", "model": "m", "format": "gai", "framing": "sse", **header}
    return engine_of(gateway).store.create(LogHeader("s", **fields))


def say(log: StreamLog, first: int, last: int, size: int = 1) -> None:
    for seq in range(first, last + 1):
        data = b'{"type":"text.delta","seq":%d,"text":"%b"}' % (seq, b"x" * size)
        log.append(b"event: text.delta\nid: s.%d\ndata: %b\n\n" % (seq, data), seq)


# ---- a stream of this process ----------------------------------------------------------------------------------------


async def test_a_durable_stream_gives_the_events_of_any_other(gateway: Gateway) -> None:
    async with gateway.stream({"query": "Tell me a story"}) as plain:
        expected = [event async for event in plain]
        whole = await plain.result()
    async with gateway.stream(QUERY) as stream:
        events = [event async for event in stream]
        result = await stream.result()

    def without(event: Any) -> Any:
        own = ("ts", "request_id", "stream_id", "provider_metadata")
        return {key: value for key, value in event.items() if key not in own}

    assert [*map(without, events)] == [*map(without, expected)]
    assert [[*event] for event in events] == [[*event] for event in expected], "the order of the keys"
    assert events[0]["stream_id"] == stream.id
    assert (result.text, result.usage) == (whole.text, whole.usage)
    assert result.metrics["events"] == whole.metrics["events"]


async def test_it_is_followed_again_from_any_place(gateway: Gateway) -> None:
    async with gateway.stream(QUERY) as stream:
        events = [event async for event in stream]
    last = events[-2]["seq"]
    for after in range(last + 1):
        rest = [event async for event in gateway.follow(stream.id, after)]
        assert rest == (events[after:] if after < last else [])
        assert rest == [event async for event in gateway.follow(stream.id, f"{stream.id}.{after}")]
    assert (await acollect(gateway.follow(stream.id))).text == "".join(event.get("text", "") for event in events)


async def test_it_goes_on_without_the_program_and_is_cancelled_for_all(gateway: Gateway, mock: Mock) -> None:
    mock.deltas, mock.rate = 100_000, 100.0
    async with gateway.stream(QUERY) as stream:
        async for event in stream:
            if event["seq"] == 3:
                break
    session = engine_of(gateway).streams[stream.id]
    async with gateway.follow(stream.id, after=3) as first, gateway.follow(stream.id) as second:
        assert (await anext(aiter(first)))["seq"] == 4
        await first.cancel()
        events = [event async for event in second]
        await second.cancel()
    assert [event["type"] for event in events[-2:]] == ["finish", "done"]
    assert events[-2]["finish_reason"] == "cancelled"
    assert session.metrics is not None


async def test_where_leaving_cancels_the_last_one_that_leaves_ends_it(mock: Mock) -> None:
    mock.deltas, mock.rate = 100_000, 100.0
    async with Gateway(with_stream(settings_for(mock), on_disconnect="cancel")) as gateway:
        async with gateway.stream(QUERY) as stream, gateway.follow(stream.id) as other:
            async for _ in stream:
                break
            stream_ids = engine_of(gateway).streams
            assert stream.id in stream_ids
            other.leave()
        assert stream.id not in stream_ids


async def test_a_program_that_reads_slowly_slows_the_upstream_down(mock: Mock) -> None:
    mock.deltas = 100_000
    settings = dataclasses.replace(settings_for(mock), store=StoreSettings(max_stream_bytes=1024 * KIB))
    async with Gateway(settings) as gateway, gateway.stream(QUERY) as stream:
        events = aiter(stream)
        log = engine_of(gateway).store.find_here(stream.id)
        assert log is not None
        assert (await anext(events))["seq"] == 1
        await until(lambda: log.size > 300 * KIB)
        await asyncio.sleep(0.05)
        await stream.cancel()
        rest = [event async for event in events]
        assert [event["seq"] for event in rest[:-1]] == [*range(2, len(rest) + 1)]
        assert len(rest) < 100_000


async def test_the_upstream_goes_on_before_a_slow_program_has_read_everything(mock: Mock) -> None:
    """The upstream once waited although there was room: a slow program could outlast its `total_timeout`."""
    mock.deltas = 200_000
    async with Gateway(settings_for(mock)) as gateway, gateway.stream(QUERY) as stream:
        session = engine_of(gateway).streams[stream.id]
        events = aiter(stream)
        await until(lambda: session._delivery.is_paused)
        read = 0
        while session._delivery.is_paused:
            await anext(events)
            read += 1
        log = engine_of(gateway).store.find_here(stream.id)
        assert log is not None
        assert 0 < read < log.last_seq * 3 // 4


async def test_an_early_failure_is_an_event_and_is_kept(gateway: Gateway, mock: Mock) -> None:
    mock.fault = Fault("401")
    async with gateway.stream(QUERY) as stream:
        events = [event async for event in stream]
        with pytest.raises(Error):
            await stream.result()
    assert [event["type"] for event in events] == ["error", "done"]
    assert [event async for event in gateway.follow(stream.id)] == events


# ---- what a log tells ------------------------------------------------------------------------------------------------


async def test_what_comes_is_reported_at_once_and_what_is_lost_too(gateway: Gateway) -> None:
    log = begin(gateway)
    say(log, 1, 3)
    stream = gateway.follow("s", after=1)
    events = aiter(stream)
    assert [(await anext(events))["seq"] for _ in range(2)] == [2, 3]
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task waits"):
        await stream.next_event()
    say(log, 4, 4)
    assert (await waiting)["seq"] == 4
    say(log, 5, 30, size=1000)
    log.trim(log.size - 500)
    lost = log.lost
    assert 5 < lost < 30
    gap = await anext(events)
    assert gap == {"type": "stream.gap", "seq": lost, "text": log.read(4, 1).text, "from": 5, "to": lost}
    assert [*gap] == ["type", "seq", "text", "from", "to"]
    log.end(FINISHED)
    assert [event["seq"] async for event in events] == [*range(lost + 1, 31)]
    assert log.watchers == 0


async def test_a_log_whose_writer_is_gone_ends_with_an_error(gateway: Gateway) -> None:
    log = begin(gateway)
    say(log, 1, 2)
    log.break_off(Error("network", "the worker is gone", reason="worker_lost"))
    events = [event async for event in gateway.follow("s")]
    assert [event["type"] for event in events] == ["text.delta", "text.delta", "error", "done"]
    assert (events[2]["seq"], events[2]["error"]["reason"]) == (3, "worker_lost")
    written = await sent(body_of(gateway.follow("s")))
    assert [line for line in written.split(b"\n") if line.startswith(b"id: ")] == [b"id: s.1", b"id: s.2"]
    behind = [event async for event in gateway.follow("s", after=9)]
    assert (behind[0]["seq"], behind[0]["error"]["reason"]) == (10, "log_behind")


async def test_a_program_that_is_ahead_of_a_log_which_the_store_hides_is_asked_to_come_back(
    gateway: Gateway,
) -> None:
    log = begin(gateway)
    say(log, 1, 2)
    log.break_off(Error("overloaded", "come back", reason="store"))
    ahead = [event async for event in gateway.follow("s", after=9)]
    assert (ahead[0]["seq"], ahead[0]["error"]["reason"]) == (10, "store")


async def test_events_are_compact_whatever_the_log_is(gateway: Gateway) -> None:
    log = begin(gateway, framing="ndjson")
    envelope = b'"schema":"gai.events.v1","ts":1,"request_id":"r",'
    log.append(b'{%b"type":"start","seq":1}\n{%b"type":"text.delta","seq":2,"text":"a"}\n' % (envelope, envelope), 2)
    log.end(FINISHED)
    first, second = [event async for event in gateway.follow("s")]
    assert first["request_id"] == "r"
    assert second == {"type": "text.delta", "seq": 2, "text": "a"}


async def test_what_cannot_be_followed_is_refused(gateway: Gateway) -> None:
    with pytest.raises(NotFound):
        await anext(aiter(gateway.follow("unknown")))
    begin(gateway, format="openai")
    with pytest.raises(InvalidRequest, match="'openai' as sse"):
        async with gateway.follow("s"):
            pass
    for after in (-1, 10**15, "s", "other.1", "s.x", "s.-1", "s." + "9" * 16, True, 1.5):
        with pytest.raises(ValueError, match="`after` must be"):
            gateway.follow("s", after)
    with pytest.raises(Unsupported, match="callbacks"):
        async with gateway.stream(QUERY, EventManager()):
            pass
    assert engine_of(gateway).streams == {}


async def test_a_stream_is_entered_once_and_left_whenever(gateway: Gateway) -> None:
    log = begin(gateway)
    say(log, 1, 1)
    stream = gateway.follow("s")
    async with stream:
        with pytest.raises(RuntimeError, match="entered once"):
            await stream.__aenter__()
    assert log.watchers == 0
    assert await stream.next_event() is None
    await stream.cancel()
    async for _ in gateway.follow("s"):
        break
    await until(lambda: log.watchers == 0)
    with pytest.raises(RuntimeError, match="not open"):
        await Gateway(gateway.settings).follow("s").__aenter__()


async def test_a_stream_of_another_process_is_followed_and_cancelled(mock: Mock, tmp_path: Path) -> None:
    mock.deltas, mock.rate = 100_000, 100.0
    store = StoreSettings(f"sqlite:///{tmp_path / 'store.db'}")
    settings = dataclasses.replace(settings_for(mock), store=store)
    async with Gateway(settings) as here, Gateway(settings) as there, here.stream(QUERY) as stream:
        await anext(aiter(stream))
        found = engine_of(there).store.find
        async with asyncio.timeout(10):
            while await found(stream.id) is None:  # noqa: ASYNC110  # nothing tells of the first batch
                await asyncio.sleep(0.01)
        async with there.follow(stream.id) as mirror:
            events = aiter(mirror)
            for seq in (1, 2, 3):
                assert (await anext(events))["seq"] == seq
            await mirror.cancel()
            rest = [event async for event in events]
        assert rest[-1] == {"type": "done", "finished": True}
        assert rest[-2]["finish_reason"] == "cancelled"
        assert mirror.metrics is None


async def test_a_record_that_cannot_be_read_ends_the_stream_with_an_error_and_no_other_reader(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    log = begin(gateway)
    async with gateway.follow("s") as stream, gateway.follow("s", after=1) as other:
        say(log, 1, 1)
        log.append(b"event: text.delta\nid: s.2\ndata: {\xff\n\n", 2)
        say(log, 3, 3)
        events = [event async for event in stream]
        assert [event["type"] for event in events] == ["text.delta", "error", "done"]
        assert events[1]["error"]["code"] == "internal"
        assert "a follower of stream s failed" in caplog.text
        assert (other.position, log.last_seq) == (1, 3)
    assert log.watchers == 0
