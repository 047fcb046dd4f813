"""`gai_fast/library/stream.py`: what tasks and threads push is one legal stream, bounded, for one consumer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop

import gai_fast
from gai_fast.library.stream import Stream
from gai_fast.model.errors import Error, Network
from tests.conftest import ChangeLimits
from tests.legal import check_legal
from tests.limits import LIMITS
from tests.steady import SteadyLoop
from tests.waiting import SECONDS, until

LOOPS = pytest.mark.parametrize("factory", [SteadyLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


@pytest.fixture
def narrow(change_limits: ChangeLimits) -> None:
    """Room for two short events."""
    change_limits(pushed=2 * LIMITS.pushed_event + 4, pusher_check=0.01)


async def rest(stream: Stream) -> list[Any]:
    return [event async for event in stream]


def types(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


class TestLegality:
    async def test_texts_become_a_whole_stream(self) -> None:
        stream = Stream()
        await stream.send("Hel")
        await stream.send("lo")
        await stream.finish(usage={"output_tokens": 1})
        events = await rest(stream)
        assert types(events) == ["start", "text.delta", "text.delta", "finish", "done"]
        assert [event.get("seq") for event in events] == [1, 2, 3, 4, None]
        assert events[0]["stream_id"] == stream.id
        assert [*events[0]][:4] == ["schema", "type", "ts", "seq"]
        assert events[3] == {"type": "finish", "seq": 4, "usage": {"output_tokens": 1}, "finish_reason": "stop"}
        assert events[4] == {"type": "done", "finished": True}
        assert gai_fast.collect(events).text == "Hello"

    async def test_the_events_of_another_stream_can_be_passed_on(self) -> None:
        stream = Stream()
        for event in (
            {"type": "start", "seq": 1, "provider": "demo", "model": "m"},
            {"type": "text.delta", "seq": 9, "from_seq": 2, "text": "Hi"},
            {"type": "stream.gap", "seq": 20, "from": 10, "to": 20, "text": "Hi there"},
            {"type": "progress", "percent": 50, "zone": "a"},
            {"type": "finish", "seq": 21, "finish_reason": "length"},
            {"type": "done", "finished": True},
        ):
            await stream.send(event)
        events = await rest(stream)
        assert [event.get("seq") for event in events] == [1, 2, 3, 4, 5, None]
        assert events[0]["provider"] == "demo"
        assert events[0]["stream_id"] == stream.id
        assert "from_seq" not in events[1]
        assert (events[2]["from"], events[2]["to"]) == (3, 3)
        assert events[3] == {"type": "progress", "seq": 4, "percent": 50, "zone": "a"}
        assert types(events)[-2:] == ["finish", "done"]

    @pytest.mark.parametrize("restarts", [True, False])
    async def test_a_second_start_only_stands_behind_a_reset(self, restarts: bool) -> None:
        stream = Stream()
        start = {"type": "start", "provider": "demo", "stream_id": "another"}
        for item in ("one", start, "two", {"type": "stream.reset", "reason": "retry"}):
            await stream.send(item)
        if restarts:
            await stream.send(start)
        await stream.send("four")
        await stream.finish()
        events = await rest(stream)
        answers = ["start", "text.delta", "text.delta", "stream.reset", "start", "text.delta", "finish", "done"]
        assert types(events) == answers
        assert [event.get("seq") for event in events] == [1, 2, 3, 4, 5, 6, 7, None]
        assert [event["stream_id"] for event in events if event["type"] == "start"] == [stream.id] * 2
        assert events[4].get("provider") == ("demo" if restarts else None)
        assert events[-2]["usage"]["output_tokens"] == 1

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "tool.call", "call_id": "c", "tool_call": 5},
            {"type": "error", "error": "oops"},
            {"type": "tool.call.delta", "arguments": "{}"},
            {"type": "tool.call.delta", "arguments": "{}", "call_id": ["c"]},
            {"type": "tool.call", "call_id": "", "tool_call": {"name": "n", "input": {}}},
            {"type": "citations", "citations": 5},
            {"type": "citations", "citations": []},  # which is not written, as all that is empty
            {"type": "two\nlines"},
            {"type": "\ud800"},
        ],
    )
    async def test_what_no_consumer_could_use_is_refused(self, event: Any) -> None:
        stream = Stream()
        with pytest.raises(ValueError, match="event"):
            await stream.send(event)
        await stream.finish()
        assert types(await rest(stream)) == ["start", "finish", "done"]

    async def test_a_failure_is_an_error_event_without_secrets(self) -> None:
        stream = Stream()
        await stream.fail(KeyError("sk-secret"))
        events = await rest(stream)
        assert types(events) == ["error", "done"]
        assert events[0]["error"]["code"] == "internal"
        assert "sk-secret" not in str(events)
        assert events[1]["finished"] is False

        stream = Stream()
        await stream.send("Hi")
        await stream.fail(Error("rate_limited", "slow down", retry_after_ms=5))
        events = await rest(stream)
        assert types(events) == ["start", "text.delta", "error", "done"]
        assert events[2]["error"] == {
            "code": "rate_limited",
            "message": "slow down",
            "temporary": True,
            "retry_after_ms": 5,
        }

    async def test_a_delta_without_a_text_is_left_out_and_halves_are_joined(self) -> None:
        stream = Stream()
        for item in (
            "",
            {"type": "reasoning.delta"},
            {"type": "tool.call.delta", "arguments": ""},
            "\ud83d\ude00",
            "\ud83d",
        ):
            await stream.send(item)
        await stream.finish()
        events = await rest(stream)
        check_legal(events, numbered=True)
        assert [event["text"] for event in events if event["type"] == "text.delta"] == ["😀", "\ufffd"]

    async def test_halves_in_neighbouring_deltas_are_one_character(self) -> None:
        """Each `send` made U+FFFD of its half."""
        stream = Stream()
        await stream.send("a\ud83d")
        await stream.send({"type": "reasoning.delta", "text": "\ud83d"})
        await stream.send({"type": "text.delta", "text": "\ude00b", "seq": 7})
        await stream.send({"type": "tool.call.start", "call_id": "c", "index": 0})
        await stream.send({"type": "reasoning.delta", "text": "\ude00"})
        await stream.send("\ud83d")
        await stream.finish()
        events = await rest(stream)
        check_legal(events, numbered=True)
        deltas = [(event["type"], event["text"]) for event in events if "text" in event]
        assert deltas == [
            ("text.delta", "a"),
            ("text.delta", "\U0001f600b"),
            ("reasoning.delta", "\ufffd"),
            ("reasoning.delta", "\ufffd"),
            ("text.delta", "\ufffd"),
        ]

    async def test_an_end_without_usage_has_an_estimate(self) -> None:
        stream = Stream()
        await stream.send("12345")
        await stream.send({"type": "tool.call.delta", "call_id": "c", "index": 0, "arguments": "{}"})
        await stream.send({"type": "finish", "finish_reason": "stop"})
        usage = {"input_tokens": 0, "output_tokens": 2, "total_tokens": 2, "source": "estimated"}
        assert (await rest(stream))[-2]["usage"] == usage

    async def test_the_first_end_counts(self) -> None:
        stream = Stream()
        await stream.finish()
        await stream.finish()
        await stream.fail(ValueError())
        await stream.send({"type": "done", "finished": True})
        with pytest.raises(RuntimeError, match="has ended"):
            await stream.send("more")
        assert types(await rest(stream)) == ["start", "finish", "done"]

    @pytest.mark.parametrize(
        ("item", "kind", "text"),
        [
            (7, TypeError, "texts and events"),
            (b"x", TypeError, "bytes"),
            ({}, ValueError, "`type`"),
            ({"type": 3}, ValueError, "`type`"),
            ({"type": "x", "y": {1}}, ValueError, "JSON"),
            ({"type": "text.delta", "text": 5}, ValueError, "must be a text, not int"),
            ({"type": "done", "finished": True}, ValueError, "its own `done`"),
            ("x" * (LIMITS.event + 1), ValueError, "limits.event"),
        ],
    )
    async def test_what_is_no_event_is_refused(self, item: Any, kind: type[Exception], text: str) -> None:
        stream = Stream()
        with pytest.raises(kind, match=text):
            await stream.send(item)
        await stream.finish()
        assert types(await rest(stream)) == ["start", "finish", "done"]

    async def test_what_is_nested_too_deep_is_refused(self) -> None:
        deep: list[Any] = []
        for _ in range(5000):
            deep = [deep]
        stream = Stream()
        for event in ({"type": "citations", "citations": deep}, {"type": "x", "y": deep}):
            with pytest.raises(ValueError, match="nested deeper"):
                await stream.send(event)
        await stream.finish()
        assert types(await rest(stream)) == ["start", "finish", "done"]

    async def test_a_wrong_end_is_refused(self) -> None:
        stream = Stream()
        with pytest.raises(ValueError, match="finish_reason"):
            await stream.finish("because")
        with pytest.raises(TypeError, match="exception"):
            await stream.fail("boom")


class TestRoom:
    @pytest.mark.usefixtures("narrow")
    async def test_senders_wait_for_the_consumer_in_their_order(self) -> None:
        stream = Stream()
        sent: list[str] = []

        async def send(text: str) -> None:
            await stream.send(text)
            sent.append(text)

        tasks = [asyncio.create_task(send(text)) for text in "abcd"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sent == ["a", "b"]
        tasks.append(asyncio.create_task(stream.finish()))
        assert gai_fast.collect(await rest(stream)).text == "abcd"
        await asyncio.gather(*tasks)
        assert sent == ["a", "b", "c", "d"]

    async def test_the_bytes_that_wait_are_bounded(self) -> None:
        stream = Stream()

        async def push() -> None:
            while True:
                await stream.send("é" * 1024)

        task = asyncio.create_task(push())
        await until(lambda: stream._senders)
        assert LIMITS.pushed - 4096 < stream._held <= LIMITS.pushed
        task.cancel()

    @pytest.mark.usefixtures("narrow")
    async def test_an_event_larger_than_the_room_waits_alone(self) -> None:
        stream = Stream()
        task = asyncio.create_task(stream.send("x" * 5000))
        await asyncio.wait_for(task, SECONDS)
        other = asyncio.create_task(stream.send("y"))
        await asyncio.sleep(0)
        assert not other.done()
        end = asyncio.create_task(stream.finish())
        assert len(gai_fast.collect(await rest(stream)).text) == 5001
        await asyncio.gather(other, end)

    @pytest.mark.usefixtures("narrow")
    async def test_a_sender_that_is_cancelled_has_sent_nothing_and_holds_nobody_up(self) -> None:
        stream = Stream()
        await stream.send("a")
        await stream.send("b")
        tasks = [asyncio.create_task(stream.send(text)) for text in "cd"]
        await asyncio.sleep(0)
        reader = aiter(stream)
        assert (await anext(reader))["type"] == "start"
        assert (await anext(reader))["text"] == "a"  # wakes the sender of "c"
        tasks[0].cancel()
        await tasks[1]
        end = asyncio.create_task(stream.finish())
        assert [event["text"] async for event in reader if event["type"] == "text.delta"] == ["b", "d"]
        await end


class TestConsumer:
    @pytest.mark.usefixtures("narrow")
    async def test_a_consumer_that_leaves_is_reported_to_senders(self) -> None:
        stream = Stream()
        await stream.send("a")
        await stream.send("b")
        waiting = [asyncio.create_task(stream.send(text)) for text in "cd"]
        await asyncio.sleep(0)
        async for _ in stream:
            break
        for task in waiting:
            with pytest.raises(Network, match="has left") as caught:
                await task
            assert caught.value.reason == "consumer_left"
            assert not caught.value.temporary
        with pytest.raises(Network):
            await stream.send("e")
        await stream.finish()
        await stream.fail(ValueError())
        assert await rest(stream) == []

    async def test_a_consumer_that_waits_may_be_sent_away(self) -> None:
        stream = Stream()
        task = asyncio.create_task(rest(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        await stream.aclose()
        assert await task == []

    async def test_it_is_an_iterator(self) -> None:
        stream = Stream()
        await stream.finish()
        assert [(await anext(stream))["type"] for _ in range(3)] == ["start", "finish", "done"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_another_loop_is_refused(self) -> None:
        stream = Stream()
        await stream.send("a")
        with ThreadPoolExecutor() as pool:
            other = pool.submit(asyncio.run, stream.send("b"))
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.wrap_future(other)


class TestThreads:
    @LOOPS
    def test_threads_and_tasks_push_at_once_and_nothing_is_lost(
        self, factory: Callable[[], asyncio.AbstractEventLoop], change_limits: ChangeLimits
    ) -> None:
        change_limits(pushed=2000)

        async def main() -> None:
            stream = Stream()

            def push(name: str) -> None:
                for number in range(50):
                    stream.send_threadsafe({"type": "text.delta", "text": f"{name}{number} "}, timeout=SECONDS)

            async def push_all() -> None:
                threads = [asyncio.to_thread(push, name) for name in "abc"]
                await asyncio.gather(*threads, *(stream.send("task ") for _ in range(50)))
                await stream.finish()

            async with asyncio.timeout(SECONDS):
                task = asyncio.create_task(push_all())
                words = gai_fast.collect(await rest(stream)).text.split()
                await task
            for name in "abc":
                assert [word for word in words if word[0] == name] == [f"{name}{number}" for number in range(50)]
            assert words.count("task") == 50

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    @pytest.mark.usefixtures("narrow")
    async def test_a_thread_whose_time_is_up_has_sent_nothing(self) -> None:
        stream = Stream()
        await stream.send("a")
        await stream.send("b")
        with pytest.raises(TimeoutError, match="was not sent"):
            await asyncio.to_thread(stream.send_threadsafe, "c", 0.02)
        await until(lambda: not stream._senders)
        end = asyncio.create_task(stream.finish())
        assert gai_fast.collect(await rest(stream)).text == "ab"
        await end

    async def test_errors_reach_the_thread(self) -> None:
        stream = Stream()
        await stream.finish()
        with pytest.raises(RuntimeError, match="has ended"):
            await asyncio.to_thread(stream.send_threadsafe, "late")
        await asyncio.to_thread(stream.send_threadsafe, {"type": "done", "finished": True})
        stream = Stream()
        with pytest.raises(ValueError, match="`type`"):
            await asyncio.to_thread(stream.send_threadsafe, {})
        with pytest.raises(ValueError, match="its own"):
            await asyncio.to_thread(stream.send_threadsafe, {"type": "done"})
        await stream.aclose()
        with pytest.raises(Network):
            await asyncio.to_thread(stream.send_threadsafe, "late")

    async def test_the_thread_of_the_loop_is_not_blocked(self) -> None:
        stream = Stream()
        with pytest.raises(RuntimeError, match="use `await"):
            stream.send_threadsafe("x")

    def test_a_stream_without_a_loop_says_so(self) -> None:
        stream = Stream()
        with pytest.raises(RuntimeError, match="make it in a coroutine"):
            stream.send_threadsafe("x")

        async def use() -> list[str]:
            await stream.send("x")
            await stream.finish()
            return types(await rest(stream))

        assert asyncio.run(use()) == ["start", "text.delta", "finish", "done"]

    @pytest.mark.usefixtures("narrow")
    def test_a_loop_that_ends_leaves_no_thread_waiting(self) -> None:
        problems: list[BaseException] = []

        async def main() -> threading.Thread:
            stream = Stream()
            await stream.send("a")
            await stream.send("b")

            def push() -> None:
                try:
                    while True:
                        stream.send_threadsafe("c")
                except Error as problem:
                    problems.append(problem)

            thread = threading.Thread(target=push, daemon=True)
            thread.start()
            await until(lambda: stream._senders)
            return thread

        thread = asyncio.run(main())
        thread.join(SECONDS)
        assert not thread.is_alive()
        assert isinstance(problems[0], Network)

    @pytest.mark.usefixtures("narrow")
    def test_a_loop_that_was_closed_without_a_word_leaves_no_thread_waiting(self) -> None:
        loop = asyncio.new_event_loop()

        async def fill() -> Stream:
            stream = Stream()
            await stream.send("a")
            await stream.send("b")
            return stream

        stream = loop.run_until_complete(fill())
        with ThreadPoolExecutor() as pool:
            pushing = pool.submit(stream.send_threadsafe, "c")
            while not loop._ready:
                time.sleep(0.001)
            loop.close()
            with pytest.raises(Network):
                pushing.result(SECONDS)
