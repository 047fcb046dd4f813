"""`gai_fast/library/sdk_streams.py`: shapes, ends, failures and closing. The corpus has recordings through the SDKs."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

import gai_fast
from gai_fast.integrations import wsgi
from gai_fast.providers import PROVIDERS


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def types(events: Any) -> list[str]:
    return [event["type"] for event in events]


def test_chunks_as_mappings_go_through_their_api() -> None:
    events = [*gai_fast.from_sdk(iter([chunk("Hel"), chunk("lo"), chunk(finish="stop")]))]
    assert types(events) == ["start", "text.delta", "text.delta", "finish", "done"]
    assert events[0]["provider"] == "openai"
    result = gai_fast.collect(gai_fast.from_sdk(iter([chunk("Hel"), chunk(finish="length")]), provider="groq"))
    assert (result.text, result.finish_reason) == ("Hel", "length")


@pytest.mark.parametrize(
    "provider", ["anthropic", "cohere", "gemini", "ollama", "groq:responses", "openai:completions"]
)
def test_a_provider_may_be_asked_through_the_sdk_of_another(provider: str) -> None:
    """Gemini, Ollama and others have the chat dialect beside their own; the named provider is in the events."""
    chunks = [chunk("Hel"), chunk("lo"), chunk(finish="stop")]
    events = [*gai_fast.from_sdk(iter(chunks), provider=provider)]
    assert types(events) == ["start", "text.delta", "text.delta", "finish", "done"]
    name = provider.partition(":")[0]
    assert [event["provider"] for event in (events[0], events[-2])] == [name, name]


def test_a_provider_names_the_api_of_its_errors_if_nothing_else_does() -> None:
    def stream() -> Iterator[Any]:
        raise StatusError(529, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
        yield

    error, _ = gai_fast.from_sdk(stream(), provider="anthropic")
    assert error["error"]["code"] == "overloaded"


def test_texts_end_with_stop() -> None:
    events = [*gai_fast.from_sdk(iter(["Hel", "", "lo"]))]
    assert types(events) == ["start", "text.delta", "text.delta", "finish", "done"]
    assert events[-2]["finish_reason"] == "stop"


def test_an_answer_without_a_finish_reason_is_truncated() -> None:
    *_, error, done = gai_fast.from_sdk(iter([chunk("Hel")]))
    assert (error["error"]["code"], error["error"]["reason"]) == ("network", "truncated")
    assert done["finished"] is False


@pytest.mark.parametrize("provider", [None, *PROVIDERS])
def test_a_stream_of_nothing_fails_before_its_first_event(provider: str | None) -> None:
    """A response then has the status of the error, also if the provider is named."""
    error, done = gai_fast.from_sdk(iter(()), provider=provider)
    assert (error["error"]["reason"], error["error"]["phase"]) == ("truncated", "first_event")
    assert error["error"]["message"].startswith(provider or "python")
    assert done["finished"] is False


def test_objects_of_another_api_end_the_stream() -> None:
    other = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    *_, error, _ = gai_fast.from_sdk(iter([chunk("Hel"), other, chunk(finish="stop")]))
    assert (error["error"]["code"], error["error"]["reason"]) == ("provider_unavailable", "malformed_chunk")


class Whole(list[Any]):
    """A whole answer: a model of pydantic iterates its members."""

    def model_dump(self) -> Any:
        """Returns its members."""


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (SimpleNamespace(choices=[]), "was it streamed"),
        (Whole(), "was it streamed"),
        ("text", "iterator"),
        ({"choices": []}, "iterator"),
    ],
)
def test_what_is_no_stream_is_refused_with_advice(stream: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        gai_fast.from_sdk(stream)


def test_objects_of_no_known_kind_are_named() -> None:
    with pytest.raises(TypeError, match=r"types\.SimpleNamespace"):
        list(gai_fast.from_sdk(iter([SimpleNamespace(a=1)])))
    with pytest.raises(ValueError, match="unknown provider"):
        gai_fast.from_sdk(iter(()), provider="nobody")


class StatusError(Exception):
    def __init__(self, status: int, body: Any) -> None:
        super().__init__("failed")
        self.status_code = status
        self.body = body
        self.response = SimpleNamespace(headers={"Retry-After": "2"})


class APIError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.body = {"message": text, "type": "server_error", "code": None}


class ResponseError(Exception):
    """Ollama's. Its status is -1 if a line of the stream reported the failure."""

    def __init__(self, error: str, status: int = -1) -> None:
        super().__init__(error)
        self.error = error
        self.status_code = status


class TransportError(Exception):
    """The base of what httpx raises for a broken connection."""


class ReadError(TransportError):
    pass


@pytest.mark.parametrize(
    ("problem", "code", "reason"),
    [
        (StatusError(429, {"message": "slow down", "type": "rate_limit_exceeded"}), "rate_limited", None),
        (StatusError(401, '{"error": {"message": "no"}}'), "unauthorized", None),
        (APIError("overloaded"), None, None),
        (ResponseError("boom"), "internal", None),
        (ResponseError("slow down", 429), "rate_limited", None),
        (ConnectionResetError(), "network", "truncated"),
        (ReadError(), "network", "truncated"),
        (aiohttp.ClientPayloadError(), "network", "truncated"),  # google-genai asks through aiohttp
        (aiohttp.ServerDisconnectedError(), "network", "truncated"),
        (TimeoutError(), "timeout", "idle"),
        (gai_fast.Overloaded(message="full"), "overloaded", None),
    ],
)
def test_failures_of_the_provider_and_the_connection_are_events(
    problem: Exception, code: str | None, reason: str | None
) -> None:
    def stream() -> Iterator[Any]:
        yield chunk("Hel")
        raise problem

    *_, error, done = gai_fast.from_sdk(stream())
    assert error["type"] == "error"
    assert code in (None, error["error"]["code"])
    assert reason in (None, error["error"].get("reason"))
    assert done["finished"] is False


def test_an_exceptions_own_text_and_odd_headers_reach_nobody() -> None:
    def stream() -> Iterator[Any]:
        yield chunk("Hel")
        problem = StatusError(503, None)
        problem.args = ("https://host/?key=sk-secret",)
        problem.response = SimpleNamespace(headers=5)
        raise problem

    events = list(gai_fast.from_sdk(stream()))
    assert events[-2]["type"] == "error"
    assert "sk-secret" not in str(events)


def test_a_bug_of_the_program_passes_through_and_its_stream_is_closed() -> None:
    closed = []

    def stream() -> Iterator[Any]:
        try:
            yield chunk("Hel")
            raise KeyError("a bug")
        finally:
            closed.append(True)

    with pytest.raises(KeyError):
        list(gai_fast.from_sdk(stream()))
    assert closed


class Stream:
    """A stream of an SDK: async, with `close`."""

    def __init__(self, *items: Any) -> None:
        self.items = iter(items)
        self.closed = 0

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self.items)
        except StopIteration:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        self.closed += 1


async def test_an_async_stream_is_iterated_with_async_for_alone() -> None:
    theirs = Stream(chunk("Hel"), chunk(finish="stop"))
    events = gai_fast.from_sdk(theirs)
    assert events.is_async
    with pytest.raises(TypeError, match="async for"):
        iter(events)
    assert types([event async for event in events]) == ["start", "text.delta", "finish", "done"]
    assert theirs.closed


def test_a_loop_that_is_left_closes_theirs_without_the_garbage_collector() -> None:
    closed = []

    class Endless:
        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            return "on and "

        def close(self) -> None:
            closed.append(True)

    gc.disable()
    try:
        for _ in gai_fast.from_sdk(Endless()):
            break
        assert closed
    finally:
        gc.enable()


async def test_closing_closes_theirs() -> None:
    theirs = Stream(*[chunk("a")] * 9)
    events = gai_fast.from_sdk(theirs)
    assert (await anext(events))["type"] == "start"
    await events.aclose()
    assert theirs.closed
    unread = Stream()
    await gai_fast.from_sdk(unread).aclose()
    assert unread.closed == 1


def test_a_plain_stream_is_iterated_with_for_alone() -> None:
    events = gai_fast.from_sdk(iter(["a"]))
    assert not events.is_async
    with pytest.raises(TypeError, match="plain iterator"):
        aiter(events)
    assert gai_fast.from_sdk(events) is events


class Both(Stream):
    """LiteLLM's wrapper: it has both interfaces, and holds the provider's stream."""

    def __init__(self, stream: Any) -> None:
        super().__init__("a")
        self.completion_stream = stream

    def __iter__(self) -> Any:
        return self.items


async def test_a_wrapper_with_both_interfaces_is_what_it_wraps() -> None:
    assert gai_fast.from_sdk(Both(Stream())).is_async
    assert not gai_fast.from_sdk(Both(iter(()))).is_async


async def test_a_response_takes_either_kind() -> None:
    plain = await asyncio.to_thread(lambda: b"".join(wsgi.sse_response(gai_fast.from_sdk(iter(["Hi"])))))
    later = await asyncio.to_thread(lambda: b"".join(wsgi.sse_response(gai_fast.from_sdk(Stream("Hi")))))
    for sent in (plain, later):
        assert b"event: text.delta" in sent
        assert sent.endswith(b'data: {"type":"done","finished":true}\n\n')


# ---- what leads to a stream ------------------------------------------------------------------------------------------

HELLO = [chunk("Hel"), chunk("lo"), chunk(finish="stop")]
READ = ["start", "text.delta", "text.delta", "finish", "done"]


@contextmanager
def manager(closed: list[str]) -> Iterator[Any]:
    try:
        yield iter(HELLO)
    finally:
        closed.append("left")


@asynccontextmanager
async def async_manager(closed: list[str]) -> AsyncIterator[Any]:
    try:
        yield Stream(*HELLO)
    finally:
        closed.append("left")


async def awaited(stream: Any) -> Any:
    return stream


def test_a_manager_is_entered_and_left_and_a_function_is_called() -> None:
    closed: list[str] = []
    events = gai_fast.from_sdk(manager(closed))
    assert not events.is_async
    assert types(events) == READ
    assert closed == ["left"]
    assert types(gai_fast.from_sdk(lambda: iter(HELLO))) == READ
    assert types(gai_fast.from_sdk(partial(manager, closed))) == READ
    for _ in gai_fast.from_sdk(manager(closed)):
        break
    assert closed == ["left"] * 3


async def test_an_awaitable_is_awaited_and_its_manager_is_entered() -> None:
    closed: list[str] = []
    theirs = Stream(*HELLO)
    for given in (
        async_manager(closed),
        awaited(async_manager(closed)),
        awaited(theirs),
        asyncio.create_task(awaited(Stream(*HELLO))),
        asyncio.to_thread(iter, HELLO),  # a plain client, asked in a thread
    ):
        events = gai_fast.from_sdk(given)
        assert events.is_async
        assert types([event async for event in events]) == READ
    assert closed == ["left"] * 2
    assert theirs.closed


async def test_a_refusal_on_the_way_to_a_stream_is_its_only_event() -> None:
    refusal = StatusError(429, {"message": "slow down", "type": "rate_limit_exceeded"})

    @contextmanager
    def refused() -> Iterator[Any]:
        raise refusal
        yield

    @asynccontextmanager
    async def arefused() -> AsyncIterator[Any]:
        raise refusal
        yield

    async def raising() -> Any:
        raise refusal

    def function() -> Any:
        raise refusal

    plain = [list(gai_fast.from_sdk(given)) for given in (refused(), function)]
    later = [[event async for event in gai_fast.from_sdk(given)] for given in (arefused(), raising())]
    for error, done in (*plain, *later):
        assert (error["error"]["code"], error["error"]["phase"]) == ("rate_limited", "first_event")
        assert error["error"]["retry_after_ms"] == 2000
        assert done == {"type": "done", "finished": False}


@pytest.mark.parametrize(
    ("problem", "code", "reason"),
    [(ConnectionRefusedError(), "network", "connect"), (TimeoutError(), "timeout", "first_event")],
)
def test_an_answer_that_never_began_is_not_said_to_have_broken_off(problem: Exception, code: str, reason: str) -> None:
    def function() -> Any:
        raise problem

    error, _ = gai_fast.from_sdk(function)
    assert (error["error"]["code"], error["error"]["reason"]) == (code, reason)


async def test_what_leads_to_no_stream_is_refused_with_advice() -> None:
    for whole in (SimpleNamespace(choices=[]), Whole(), "text"):
        with pytest.raises(TypeError, match="was it streamed"):
            list(gai_fast.from_sdk(partial(copy.copy, whole)))
        with pytest.raises(TypeError, match="was it streamed"):
            await anext(gai_fast.from_sdk(awaited(whole)))
    with pytest.raises(TypeError, match="call the function first"):
        gai_fast.from_sdk(awaited)
    with pytest.raises(TypeError, match="the call of an async client itself"):
        list(gai_fast.from_sdk(lambda: awaited(Stream())))


async def test_one_that_is_never_read_is_never_asked() -> None:
    """Also without the warning of a coroutine that nobody awaits."""
    coroutine = awaited(Stream())
    await gai_fast.from_sdk(coroutine).aclose()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await coroutine
    task = asyncio.create_task(asyncio.sleep(60))
    await gai_fast.from_sdk(task).aclose()
    await asyncio.wait([task])
    assert task.cancelled()
    closed: list[str] = []
    gai_fast.from_sdk(manager(closed)).close()
    assert closed == []


async def test_one_that_hangs_on_the_way_is_ended_by_cancelling_its_reader() -> None:
    is_waiting, ended = asyncio.Event(), []

    async def asking() -> Any:
        try:
            is_waiting.set()
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    events = gai_fast.from_sdk(asking())
    reader = asyncio.create_task(anext(events))
    await is_waiting.wait()
    with pytest.raises(RuntimeError, match="another task opens"):
        await events.aclose()
    reader.cancel()
    await asyncio.wait([reader])
    assert ended


# ---- events and texts ------------------------------------------------------------------------------------------------


def test_events_and_texts_may_be_mixed() -> None:
    call = {"type": "tool.call", "call_id": "c1", "tool_call": {"name": "f", "input": {}}}
    events = [*gai_fast.from_sdk(iter([{"type": "reasoning.delta", "text": "Hm"}, "Hi", call]))]
    assert types(events)[:3] == ["start", "reasoning.delta", "text.delta"]
    assert events[0]["provider"] == "python"
    assert events[-2]["finish_reason"] == "tool_calls"


def test_events_after_chunks_of_an_api_are_of_another_api() -> None:
    with pytest.raises(TypeError, match="does not know chunks"):
        list(gai_fast.from_sdk(iter([chunk("Hel"), {"type": "text.delta", "text": "lo"}])))


def test_the_provider_of_texts_may_be_named() -> None:
    events = [*gai_fast.from_sdk(iter(["Hi"]), provider="groq")]
    assert (events[0]["provider"], events[-2]["provider"]) == ("groq", "groq")


def response(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": text}


def candidate(text: str) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}]}}]}


@pytest.mark.parametrize("made", [str, chunk, response, candidate])
def test_a_character_may_be_split_between_two_chunks(made: Callable[[str], Any]) -> None:
    events = gai_fast.from_sdk(iter([made("a\ufffd"), made("\ud83d"), made("\ude00b\ud83d")]))
    assert "".join(event["text"] for event in events if event["type"] == "text.delta") == "a\ufffd\U0001f600b\ufffd"


# ---- streams that do not behave --------------------------------------------------------------------------------------


async def test_a_stream_may_be_closed_twice() -> None:
    theirs = Stream(chunk("a"))
    events = gai_fast.from_sdk(theirs)
    await anext(events)
    await events.aclose()
    await events.aclose()
    assert types([event async for event in events]) == []
    plain = gai_fast.from_sdk(iter(["a"]))
    next(plain)
    plain.close()
    plain.close()
    assert list(plain) == []


async def test_one_that_hangs_is_closed_when_its_reader_is_cancelled() -> None:
    closed = []

    async def hanging() -> AsyncIterator[Any]:
        try:
            yield chunk("Hel")
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    events = gai_fast.from_sdk(hanging())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            async for _ in events:
                pass
    assert closed == [True]


async def test_one_of_another_loop_raises_what_it_raises_and_is_closed() -> None:
    closed = []

    def made() -> asyncio.Future[None]:
        async def future() -> asyncio.Future[None]:
            return asyncio.get_running_loop().create_future()

        return asyncio.run(future())

    future = await asyncio.to_thread(made)

    async def foreign() -> AsyncIterator[Any]:
        try:
            yield chunk("Hel")
            await future
        finally:
            closed.append(True)

    events = gai_fast.from_sdk(foreign())
    with pytest.raises(RuntimeError, match="different loop"):
        async for _ in events:
            pass
    assert closed == [True]


class Hanging:
    """A plain stream that waits for ever after its first chunk, unless it is closed."""

    def __init__(self) -> None:
        self.is_waiting = threading.Event()
        self.is_closed = threading.Event()
        self.items = iter([chunk("Hel")])

    def __iter__(self) -> Hanging:
        return self

    def __next__(self) -> Any:
        for item in self.items:
            return item
        self.is_waiting.set()
        self.is_closed.wait()
        raise ConnectionResetError

    def close(self) -> None:
        self.is_closed.set()


def test_a_plain_stream_that_hangs_in_a_thread_is_closed_from_another() -> None:
    theirs = Hanging()
    events = gai_fast.from_sdk(theirs)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(types(events)))
    reader.start()
    theirs.is_waiting.wait()
    with pytest.raises(ValueError, match="already executing"):
        next(events)  # a second consumer
    events.close()
    reader.join()
    assert seen == ["start", "text.delta", "error", "done"]


class AsyncHanging(Stream):
    """As `Hanging`, async."""

    def __init__(self) -> None:
        super().__init__(chunk("Hel"))
        self.is_waiting = asyncio.Event()
        self.is_closed = asyncio.Event()

    async def __anext__(self) -> Any:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            self.is_waiting.set()
            await self.is_closed.wait()
            raise ConnectionResetError from None

    async def close(self) -> None:
        self.is_closed.set()


async def test_one_that_hangs_is_closed_by_another_task() -> None:
    theirs = AsyncHanging()
    events = gai_fast.from_sdk(theirs)

    async def read() -> list[str]:
        return types([event async for event in events])

    reader = asyncio.create_task(read())
    await theirs.is_waiting.wait()
    with pytest.raises(RuntimeError, match="already running"):
        await anext(events)  # a second consumer
    await events.aclose()
    assert await reader == ["start", "text.delta", "error", "done"]


async def test_a_generator_that_hangs_is_closed_by_cancelling_its_reader() -> None:
    is_waiting, closed = asyncio.Event(), []

    async def hanging() -> AsyncIterator[Any]:
        try:
            yield chunk("Hel")
            is_waiting.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    events = gai_fast.from_sdk(hanging())

    async def read() -> None:
        async for _ in events:
            pass

    reader = asyncio.create_task(read())
    await is_waiting.wait()
    with pytest.raises(RuntimeError, match="already running"):
        await events.aclose()
    assert not closed
    reader.cancel()
    await asyncio.wait([reader])
    assert closed


async def test_each_kind_is_closed_by_its_own_method_and_a_plain_one_by_either() -> None:
    theirs = Stream(chunk("a"))
    with pytest.raises(TypeError, match="aclose"):
        gai_fast.from_sdk(theirs).close()
    assert not theirs.closed
    plain = gai_fast.from_sdk(iter(["a"]))
    next(plain)
    await plain.aclose()
    assert list(plain) == []


@pytest.mark.parametrize("kind", [GeneratorExit, KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_passes_and_the_stream_is_closed(kind: type[BaseException]) -> None:
    closed = []

    def stream() -> Iterator[Any]:
        try:
            yield chunk("Hel")
            raise kind
        finally:
            closed.append(True)

    with pytest.raises(kind):
        list(gai_fast.from_sdk(stream()))
    assert closed == [True]


def test_a_body_that_is_no_json_leaves_the_status() -> None:
    def stream() -> Iterator[Any]:
        yield chunk("Hel")
        raise StatusError(429, {"message": "slow down", "at": object()})

    *_, error, _ = gai_fast.from_sdk(stream())
    assert error["error"]["code"] == "rate_limited"


class Model:
    """A model of `google-genai`, as far as it is read."""

    __slots__ = ("__dict__", "wire", "written")
    __pydantic_extra__ = None

    def __init__(self, wire: Any, written: list[Any], **members: Any) -> None:
        self.__dict__.update(members)
        self.wire, self.written = wire, written

    @property
    def __pydantic_fields_set__(self) -> set[str]:
        return {*vars(self)}

    def model_dump(self, **options: Any) -> Any:
        self.written.append(self.wire)
        return self.wire

    def model_dump_json(self, **options: Any) -> str:
        return json.dumps(self.model_dump())


@pytest.mark.parametrize("ending", ["finish", "end", "failure"])
def test_of_the_usage_beside_texts_only_the_last_is_written(ending: str) -> None:
    written: list[Any] = []

    def chunk_of(text: str, count: int, reason: str | None = None) -> Any:
        counted = {"promptTokenCount": 3, "candidatesTokenCount": count}
        candidate = {"content": {"parts": [{"text": text}]}, "finishReason": reason, "index": 0}
        wire = {"modelVersion": "m", "responseId": "r", "candidates": [candidate], "usageMetadata": counted}
        part = Model({}, written, text=text)
        content = Model({}, written, parts=[part])
        usage = Model(counted, written, prompt_token_count=3)
        candidates = [Model({}, written, content=content, finish_reason=reason, index=0)]
        return Model(wire, written, candidates=candidates, usage_metadata=usage)

    def stream() -> Iterator[Any]:
        yield from (chunk_of("a", 1), chunk_of("b", 2), chunk_of("c", 3))
        if ending == "finish":
            yield chunk_of("", 4, "STOP")
        if ending == "failure":
            raise ConnectionResetError

    events = [*gai_fast.from_sdk(stream())]
    assert [event.get("text") for event in events[1:4]] == ["a", "b", "c"]
    (counted,) = [event["usage"] for event in events if "usage" in event]
    assert counted["output_tokens"] == (4 if ending == "finish" else 3)
    assert len(written) == (3 if ending == "finish" else 2)
