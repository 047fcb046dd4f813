"""`gai_fast/integrations/_body.py`: items become frames; a source is held back, cancelled and closed."""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

import pytest

import gai_fast
from gai_fast.formats._base import Framing
from gai_fast.integrations._body import KEYWORDS, SourceBody, settings_of
from gai_fast.model.errors import Error
from gai_fast.model.settings import StreamSettings
from tests.waiting import until

NEVER = 1e6
Items = Callable[[], AsyncIterator[Any]]


def body_of(source: Any, framing: Framing = "sse", *, is_resumed: bool = False, **options: Any) -> SourceBody:
    return SourceBody(source, framing, settings_of({"heartbeat": NEVER, **options}), is_resumed=is_resumed)


async def of(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def sent(body: SourceBody) -> bytes:
    assert await body.begin() is None
    return b"".join([chunk async for chunk in body])


START = {"type": "start", "seq": 1, "request_id": "r", "provider": "demo"}
TEXT = {"type": "text.delta", "seq": 2, "text": "Hi"}
FINISH = {"type": "finish", "seq": 3, "finish_reason": "stop"}
DONE = {"type": "done", "finished": True}


class TestFrames:
    @pytest.mark.parametrize(
        ("item", "sse", "ndjson"),
        [
            ("a\nb", b"data: a\ndata: b\n\n", b'"a\\nb"\n'),
            ({"n": 1}, b'data: {"n":1}\n\n', b'{"n":1}\n'),
            ({"type": "mine"}, b'data: {"type":"mine"}\n\n', b'{"type":"mine"}\n'),
            (None, b"data: null\n\n", b"null\n"),
        ],
    )
    async def test_texts_and_objects_are_written_as_they_are(self, item: Any, sse: bytes, ndjson: bytes) -> None:
        assert await sent(body_of(of(item))) == sse
        assert await sent(body_of(of(item), "ndjson")) == ndjson

    @pytest.mark.parametrize(
        ("items", "expected"),
        [
            (["a\ud83d", "\ude00b"], ["a", "\U0001f600b"]),
            (["\ud83d", {"n": 1}, "\ude00"], ["\ufffd", {"n": 1}, "\ufffd"]),
            (["a", "\ud83d"], ["a", "\ufffd"]),
            ([""], [""]),
        ],
    )
    async def test_halves_in_neighbouring_texts_are_one_character(self, items: list[Any], expected: list[Any]) -> None:
        written = await sent(body_of(of(*items), "ndjson"))
        assert [json.loads(line) for line in written.splitlines()] == expected

    @pytest.mark.parametrize(
        ("last", "texts"),
        [({"type": "text.delta", "text": "\ude00"}, ["a", "\U0001f600"]), (None, ["a", "\ufffd"])],
        ids=["whole", "cut"],
    )
    async def test_halves_in_neighbouring_events_are_one_character(
        self, last: dict[str, Any] | None, texts: list[str]
    ) -> None:
        items = [START, {"type": "text.delta", "text": "a\ud83d"}, *([last] if last else [])]
        for end in ([], [{"type": "finish", "finish_reason": "stop"}]):
            written = await sent(body_of(of(*items, *end), "ndjson"))
            events = [json.loads(line) for line in written.splitlines()]
            assert [event["text"] for event in events if event["type"] == "text.delta"] == texts
        written = await sent(body_of(of(*items, Error("internal", "no")), "ndjson"))
        events = [json.loads(line) for line in written.splitlines()]
        assert [event["text"] for event in events if event["type"] == "text.delta"] == texts
        assert [event["type"] for event in events[-2:]] == ["error", "done"]

    async def test_events_are_written_as_the_server_writes_them(self) -> None:
        progress = {"type": "progress", "seq": 3, "percent": 50}
        written = (await sent(body_of(of(START, TEXT, progress, FINISH, DONE)))).decode()
        first, *others = written.split("\n\n")
        assert first.startswith('event: start\ndata: {"schema":"gai.events.v1","type":"start","ts":')
        assert others == [
            'event: text.delta\ndata: {"type":"text.delta","seq":2,"text":"Hi"}',
            'event: progress\ndata: {"type":"progress","seq":3,"percent":50}',
            'event: finish\ndata: {"type":"finish","seq":3,"finish_reason":"stop"}',
            'event: done\ndata: {"type":"done","finished":true}',
            "",
        ]

    async def test_a_done_that_is_missing_behind_an_end_is_added(self) -> None:
        assert (await sent(body_of(of(START, FINISH)))).endswith(b'data: {"type":"done","finished":true}\n\n')
        error = {"type": "error", "seq": 2, "error": {"code": "network", "message": "m"}}
        assert (await sent(body_of(of(START, error)))).endswith(b'data: {"type":"done","finished":false}\n\n')

    async def test_a_source_that_can_be_resumed_has_ids(self) -> None:
        class Durable:
            id = resume_id = "s" * 22

            def __init__(self, *items: Any) -> None:
                self.items = items

            def __aiter__(self) -> AsyncIterator[Any]:
                return of(*self.items)

        body = body_of(Durable(START, TEXT), retry=100)
        frames = (await sent(body)).decode().split("\n\n")
        assert frames[0].split("\n")[:3] == ["event: start", f"id: {Durable.id}.1", "retry: 100"]
        assert frames[1].split("\n")[:2] == ["event: text.delta", f"id: {Durable.id}.2"]
        assert dict(body.headers)["x-gai-stream-id"] == Durable.id
        rest = (await sent(body_of(Durable(TEXT)))).decode()
        assert rest == f'event: text.delta\nid: {Durable.id}.2\ndata: {{"type":"text.delta","seq":2,"text":"Hi"}}\n\n'

    async def test_an_error_that_is_not_in_the_log_has_no_id(self) -> None:
        class Followed:
            id = resume_id = "s" * 22
            position = 2

            def __init__(self, *items: Any) -> None:
                self.items = items

            def __aiter__(self) -> AsyncIterator[Any]:
                return of(*self.items)

        def ids(data: bytes) -> list[str]:
            return [line[4:] for line in data.decode().split("\n") if line.startswith("id: ")]

        payload = {"code": "network", "message": "\nid: x", "reason": "worker_lost"}
        logged, own = ({"type": "error", "seq": seq, "error": payload} for seq in (2, 3))
        begun = [f"{Followed.id}.1", f"{Followed.id}.2"]
        assert ids(await sent(body_of(Followed(START, logged)))) == begun
        written = await sent(body_of(Followed(START, TEXT, own)))
        assert ids(written) == begun
        assert b'\n\nevent: error\ndata: {"type":"error","seq":3,' in written
        assert ids(await sent(body_of(Followed(START, TEXT, Error("network", "cut"))))) == begun
        assert ids(await sent(body_of(Followed(own), is_resumed=True))) == []

    async def test_an_id_that_is_none_does_not_reach_a_header(self) -> None:
        class Named:
            id = "a\r\nset-cookie: x"

            def __aiter__(self) -> AsyncIterator[Any]:
                return of()

        assert len(dict(body_of(Named()).headers)["x-gai-stream-id"]) == 22

    async def test_a_stream_that_has_no_id_yet_gets_none(self) -> None:
        class Remote:
            id = ""

            def __aiter__(self) -> AsyncIterator[Any]:
                return of()

        assert "x-gai-stream-id" not in dict(body_of(Remote()).headers)

    async def test_the_envelope_is_an_option(self) -> None:
        assert b'"ts"' not in await sent(body_of(of(TEXT)))
        assert b'"ts"' in await sent(body_of(of(TEXT), envelope="full"))
        assert b'"ts"' in await sent(body_of(of(TEXT), timestamps=True))


class TestOptions:
    def test_they_are_the_keys_of_the_section_stream(self) -> None:
        settings = settings_of(dict.fromkeys(KEYWORDS[:3], 1.5))
        assert settings == StreamSettings(heartbeat=1.5, commit_after=1.5, flush_interval=1.5)
        assert settings_of({"compression": ("gzip",)}).compression == ("gzip",)

    @pytest.mark.parametrize(
        ("options", "kind", "text"),
        [
            ({"hartbeat": 1}, TypeError, "no keyword 'hartbeat'"),
            ({"on_disconnect": "drain"}, TypeError, r"no keyword 'on_disconnect'; the gateway's streams have it"),
            ({"heartbeat": -1}, ValueError, "`heartbeat` must"),
            ({"envelope": "small"}, ValueError, "`envelope` must"),
            ({"compression": ["lzma"]}, ValueError, "`compression` "),
        ],
    )
    def test_others_are_refused(self, options: Any, kind: type[Exception], text: str) -> None:
        with pytest.raises(kind, match=text):
            settings_of(options)

    def test_a_source_must_be_async(self) -> None:
        with pytest.raises(TypeError, match="this is list"):
            body_of([TEXT])


class TestFailures:
    async def test_before_the_first_frame_the_response_has_the_errors_status(self) -> None:
        reply = await body_of(of(Error("rate_limited", "slow down"))).begin()
        assert reply is not None
        assert reply.status == 429
        assert b'"message":"slow down"' in reply.body

    async def test_an_error_that_comes_first_is_one(self) -> None:
        error = {"type": "error", "error": {"code": "not_found", "message": "no model", "reason": "model"}}
        body = body_of(of(error, {"type": "done", "finished": False}))
        reply = await body.begin()
        assert reply is not None
        assert (reply.status, b'"reason":"model"' in reply.body) == (404, True)
        await body.close()

    async def test_an_exception_is_logged_and_tells_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        reply = await body_of(of(KeyError("sk-secret"))).begin()
        assert reply is not None
        assert reply.status == 500
        assert b"sk-secret" not in reply.body
        assert caplog.records[0].exc_info is not None

    async def test_later_it_is_reported_in_the_stream(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.CRITICAL, "gai_fast")
        written = await sent(body_of(of(START, KeyError())))
        assert [line for line in written.decode().split("\n") if line.startswith("event")] == [
            "event: start",
            "event: error",
            "event: done",
        ]
        assert (await sent(body_of(of("a", Error("network", "cut"))))).endswith(
            b'event: error\ndata: {"error":{"code":"network","message":"cut","temporary":true}}\n\n'
        )
        assert (await sent(body_of(of(1, Error("network", "cut")), "ndjson"))).endswith(
            b'{"error":{"code":"network","message":"cut","temporary":true}}\n'
        )
        assert (await sent(body_of(of(START, FINISH, KeyError())))).count(b"event: done") == 1

    @pytest.mark.parametrize("problem", [SystemExit(1), KeyboardInterrupt(), BaseException("a panic in Rust")])
    async def test_a_source_that_would_end_the_process_is_one(
        self, problem: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def source() -> AsyncIterator[Any]:
            yield TEXT
            raise problem

        data = await sent(body_of(source()))
        assert b'"code":"internal"' in data
        assert b'"finished":false' in data
        assert "the source of a response failed" in caplog.text
        caplog.clear()

    async def test_an_item_without_a_form_in_json_is_a_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.CRITICAL, "gai_fast")
        assert b"event: error" in await sent(body_of(of("a", {1, 2})))

    async def test_a_source_that_is_cancelled_by_itself_is_one(self) -> None:
        async def cancelled() -> AsyncIterator[str]:
            yield "a"
            raise asyncio.CancelledError

        assert b"was cancelled" in await sent(body_of(cancelled()))

    async def test_a_resumed_stream_is_reported_in_it(self) -> None:
        error = {"type": "error", "seq": 9, "error": {"code": "network", "reason": "worker_lost"}}
        assert b"worker_lost" in await sent(body_of(of(error), is_resumed=True))
        reply = await body_of(of(), is_resumed=True).begin()
        assert reply is not None
        assert (reply.status, reply.has_length) == (204, False)


class TestTime:
    async def test_the_head_waits_for_the_first_frame_and_no_longer(self) -> None:
        may = asyncio.Event()

        async def late() -> AsyncIterator[str]:
            await may.wait()
            yield "a"
            raise Error("network", "cut")

        body = body_of(late(), commit_after=0.01)
        assert await body.begin() is None
        may.set()
        assert b"".join([chunk async for chunk in body]).startswith(b"data: a\n\nevent: error\n")
        body = body_of(late(), commit_after=0)
        assert await body.begin() is None
        await body.close()

    async def test_the_time_does_not_run_while_the_source_waits_for_a_limit(self) -> None:
        class Limited:
            limit_wait = 0.0

            async def __aiter__(self) -> AsyncIterator[str]:
                for _ in range(2):
                    self.limit_wait += 0.3
                    await asyncio.sleep(0.3)
                raise Error("rate_limited", "slow down", retry_after_ms=7000)
                yield

        reply = await body_of(Limited(), commit_after=0.1).begin()
        assert reply is not None
        assert (reply.status, dict(reply.headers)["retry-after"]) == (429, "7")

    async def test_a_silent_source_is_kept_alive(self) -> None:
        async def silent() -> AsyncIterator[str]:
            await asyncio.Event().wait()
            yield ""

        for framing, ping in (("sse", b": ping\n"), ("ndjson", b"\n")):
            body = body_of(silent(), framing, heartbeat=0.01, commit_after=0)
            await body.begin()
            async for chunk in body:
                assert chunk == ping
                break
            await body.close()

    async def test_output_is_gathered(self) -> None:
        async def slow() -> AsyncIterator[str]:
            for letter in "abc":
                yield letter
                await asyncio.sleep(0)

        body = body_of(slow(), flush_interval=0.05)
        await body.begin()
        assert [chunk async for chunk in body] == [b"data: a\n\ndata: b\n\ndata: c\n\n"]


class TestCompression:
    async def test_a_client_that_accepts_it_has_it_and_can_read_each_chunk_at_once(self) -> None:
        may = asyncio.Event()

        async def slow() -> AsyncIterator[str]:
            yield "a"
            await may.wait()
            yield "b"

        stream = settings_of({"heartbeat": NEVER, "compression": ["gzip"]})
        body = SourceBody(slow(), "sse", stream, {"accept-encoding": "br, gzip"})
        assert await body.begin() is None
        assert {"content-encoding": "gzip", "vary": "accept-encoding"}.items() <= dict(body.headers).items()
        reader = zlib.decompressobj(zlib.MAX_WBITS + 16)
        chunks = aiter(body)
        assert reader.decompress(await anext(chunks)) == b"data: a\n\n"
        may.set()
        assert b"".join([reader.decompress(chunk) async for chunk in chunks]) == b"data: b\n\n"
        assert reader.eof

    async def test_others_learn_that_it_varies(self) -> None:
        body = SourceBody(of("a"), "sse", settings_of({"compression": ["gzip"]}), {"accept-encoding": "br"})
        assert dict(body.headers)["vary"] == "accept-encoding"
        assert await sent(body) == b"data: a\n\n"


class TestSource:
    async def test_a_slow_client_slows_it_down(self) -> None:
        made = 0

        async def much() -> AsyncIterator[str]:
            nonlocal made
            while True:
                made += 1
                yield "x" * 100

        body = body_of(much(), client_buffer=1000)
        await body.begin()
        await asyncio.sleep(0.01)
        assert 9 <= made <= 11
        chunks = aiter(body)
        assert len(await anext(chunks)) > 1000
        await until(lambda: made > 15)
        assert made <= 22
        await chunks.aclose()

    async def test_it_is_entered_and_left_in_one_task(self) -> None:
        tasks: list[Any] = []

        class Managed:
            async def __aenter__(self) -> AsyncIterator[str]:
                tasks.append(asyncio.current_task())
                return of("a")

            async def __aexit__(
                self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
            ) -> None:
                tasks.append(asyncio.current_task())

            def __aiter__(self) -> AsyncIterator[str]:
                raise AssertionError("what it gives is iterated")

        assert await sent(body_of(Managed())) == b"data: a\n\n"
        assert tasks[0] is tasks[1] is not asyncio.current_task()

    async def test_it_is_cancelled_and_closed_where_the_client_leaves(self) -> None:
        seen = []

        async def endless() -> AsyncIterator[str]:
            try:
                yield "a"
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
            finally:
                await asyncio.sleep(0)
                seen.append("closed")

        body = body_of(endless())
        await body.begin()
        async for _ in body:
            body.cancel()
        assert body.is_cancelled
        assert seen == ["cancelled", "closed"]
        await body.close()

    async def test_one_that_goes_on_all_the_same_is_closed_at_its_next_item(self) -> None:
        log = []

        async def source() -> AsyncIterator[str]:
            try:
                while True:
                    yield "on"
                    try:
                        await asyncio.sleep(NEVER)
                    except asyncio.CancelledError:
                        log.append("cancelled")
            finally:
                log.append("closed")

        body = body_of(source())
        chunks = aiter(body)
        assert await body.begin() is None
        await anext(chunks)
        body.cancel()
        await until(lambda: "closed" in log)
        assert log == ["cancelled", "closed"]

    async def test_a_pushed_stream_hears_of_it(self) -> None:
        stream = gai_fast.Stream()
        await stream.send("a")
        body = body_of(stream)
        await body.begin()
        await body.close()
        with pytest.raises(gai_fast.Network):
            await stream.send("b")

    async def test_it_may_clean_up_where_the_client_leaves(self) -> None:
        seen = []

        async def careful() -> AsyncIterator[str]:
            try:
                yield "a"
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                seen.append("cleaned up")

        body = body_of(careful())
        await body.begin()
        async for _ in body:
            body.cancel()
            await asyncio.sleep(0)  # it has begun to clean up
        await body.close()
        assert seen == ["cleaned up"]

    @pytest.mark.parametrize("has_task", [True, False])
    async def test_one_that_has_not_begun_is_closed(self, has_task: bool) -> None:
        stream = gai_fast.Stream()
        body = body_of(stream)
        if has_task:  # the client has left before the source's first step
            asyncio.get_running_loop().call_soon(body.cancel)
            await body.begin()
        await body.close()
        with pytest.raises(gai_fast.Network):
            await stream.send("a")

    async def test_one_that_does_not_end_is_not_waited_for_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        may = asyncio.Event()

        async def stubborn() -> AsyncIterator[str]:
            try:
                yield "a"
                await asyncio.Event().wait()
            finally:
                await may.wait()

        class Short:
            source_end = 0.01

        monkeypatch.setattr("gai_fast.integrations._body.LIMITS", Short)
        body = body_of(stubborn())
        await body.begin()
        await body.close()
        may.set()
