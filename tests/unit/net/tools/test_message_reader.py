"""`gai_fast/net/tools/message_reader.py`: order, turns, and what is read beside the loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.net.tools.message_reader import Beside, MessageReader, sized_work
from gai_fast.net.tools.rpc import Notice, ServerMessage, ServerReply, ToolServerError
from gai_fast.runtime.beside import LARGE_REQUESTS
from gai_fast.runtime.beside import Beside as Thread
from tests.limits import LIMITS

LARGE = json.dumps({"id": 1, "result": {"x": "x" * LIMITS.list_turn}}).encode()


def notice(name: str) -> bytes:
    return json.dumps({"method": name}).encode()


class Reading:
    """A reader, and what it has done.

    Args:
        beside: Does its work beside the loop.
    """

    def __init__(self, beside: Beside | None) -> None:
        self.events: list[Any] = []
        self.reader = MessageReader(beside, self._take, self.events.append)

    def _take(self, messages: Sequence[ServerMessage] | ToolServerError) -> None:
        if isinstance(messages, ToolServerError):
            self.events.append(messages.fault)
            return
        self.events += [each.method if isinstance(each, Notice) else type(each).__name__ for each in messages]

    async def finished(self) -> None:
        while self.reader.is_busy:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.001)


async def test_what_comes_behind_a_large_message_waits_for_it() -> None:
    thread, callers, threads = Thread(asyncio.get_running_loop()), list[str](), list[str]()

    def beside(caller: str, work: Callable[[], Any]) -> Awaitable[Any]:
        callers.append(caller)
        return thread.do(lambda: (threads.append(threading.current_thread().name), work())[1], caller)

    reading = Reading(beside)
    reading.reader.read([notice("a")], lambda _: "caller")
    assert reading.events == ["a"], "little is read at once"
    reading.reader.read([notice("b"), LARGE, notice("c")], lambda _: "caller")
    reading.reader.read([b"{", notice("d")], lambda _: "caller")
    await reading.finished()
    assert reading.events == ["a", True, "b", "ServerReply", "c", "form", "d", False]
    assert callers == ["caller"], "of the large one alone"
    assert [name.startswith("gai-fast-beside") for name in threads] == [True]
    thread.close()


async def test_of_many_small_messages_others_have_turns_between() -> None:
    def beside(caller: str, work: Callable[[], Any]) -> Awaitable[Any]:
        raise AssertionError("none is large")

    reading, turns = Reading(beside), 0
    reading.reader.read([notice("a")] * (4 * LIMITS.messages_turn), lambda _: "")
    while reading.reader.is_busy:
        turns += 1
        await asyncio.sleep(0)
    assert reading.events.count("a") == 4 * LIMITS.messages_turn
    assert turns >= 4


async def test_without_a_place_beside_the_loop_all_is_read_at_once() -> None:
    reading = Reading(None)
    reading.reader.read([LARGE, notice("a")], lambda _: "")
    assert reading.events == ["ServerReply", "a"]


async def test_a_stopped_reader_reads_nothing_more() -> None:
    waits = asyncio.get_running_loop().create_future()
    reading = Reading(lambda caller, work: waits)
    reading.reader.read([LARGE, notice("a")], lambda _: "")
    await asyncio.sleep(0)
    reading.reader.stop()
    await reading.finished()
    assert reading.events == [True]
    assert waits.cancelled()


async def test_too_much_that_waits_is_no_fault_of_the_server() -> None:
    def full(caller: str, work: Callable[[], Any]) -> Awaitable[Any]:
        raise Error("overloaded", "too much", reason=LARGE_REQUESTS)

    reading = Reading(full)
    reading.reader.read([LARGE], lambda _: "")
    await reading.finished()
    assert reading.events == [True, "wait", False]
    with pytest.raises(ToolServerError, match="beside_waiting") as raised:
        await sized_work(full, LIMITS.list_turn + 1, "", list)
    assert raised.value.may_have_run
    assert await sized_work(full, LIMITS.list_turn, "", list) == []


def test_a_reply_says_whether_it_is_large() -> None:
    replies = list[ServerMessage]()
    reader = MessageReader(None, lambda found: replies.extend(found if isinstance(found, list) else ()), bool)
    reader.read([LARGE, b'{"id":1,"result":{}}'], lambda _: "")
    assert [each.size for each in replies if isinstance(each, ServerReply)] == [len(LARGE), 0]
