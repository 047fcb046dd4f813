"""`gai_fast/net/attempts/function_calls.py`: a call is an exchange that waits, pauses, is timed and is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, UpstreamSettings
from gai_fast.net.attempts.function_calls import FunctionCalls, FunctionExchange
from gai_fast.net.upstream import connection as upstream
from gai_fast.net.upstream.connection_pool import ConnectionShare
from tests.conftest import ChangeLimits
from tests.waiting import until


class Receiver(upstream.Receiver):
    """Notes its calls, and does something at a line."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.error: Error | None = None
        self.has_ended = False
        self.at_line: Callable[[bytes], None] = lambda line: None

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        assert headers == {"content-type": "application/x-ndjson"}
        self.calls.append(status)

    def body_received(self, data: bytes) -> None:
        self.calls.append(data)
        self.at_line(data)

    def exchange_ended(self, error: Error | None) -> None:
        assert not self.has_ended
        self.has_ended = True
        self.error = error

    async def ended(self) -> Error | None:
        await until(lambda: self.has_ended)
        return self.error


class Function:
    """A function that says a line for each `go_on`."""

    def __init__(self, lines: int = 3) -> None:
        self.steps = asyncio.Semaphore(0)
        self.lines = lines
        self.begun = self.said = self.closed = 0

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        self.begun += 1
        try:
            for number in range(self.lines):
                await self.steps.acquire()
                self.said += 1
                yield b"%d" % number
        finally:
            await asyncio.sleep(0)
            self.closed += 1

    def go_on(self, lines: int = 1) -> None:
        for _ in range(lines):
            self.steps.release()


SETTINGS = UpstreamSettings("mine", "python", "")


def calls(most: int = 2, waits: list[float] | None = None) -> FunctionCalls:
    made = FunctionCalls(asyncio.get_running_loop(), ([] if waits is None else waits).append)
    made.use(most, None)
    return made


def opened(
    function: Any,
    within: FunctionCalls | None = None,
    settings: UpstreamSettings = SETTINGS,
    caller: str = ANONYMOUS,
) -> tuple[Receiver, FunctionExchange]:
    receiver = Receiver()
    return receiver, (within or calls()).open(settings, function, receiver, caller)


async def test_lines_come_as_they_are_said_and_end() -> None:
    function = Function()
    receiver, exchange = opened(function)
    assert receiver.calls == [], "nothing is called before the caller has the exchange"
    assert (exchange.sent, exchange.is_waiting, exchange.resent) == (True, False, False)
    function.go_on(3)
    assert await receiver.ended() is None
    assert receiver.calls == [200, b"0", b"1", b"2"]
    assert exchange.is_complete
    assert function.closed == 1


async def test_nothing_is_asked_for_while_reading_is_off() -> None:
    function = Function()
    function.go_on(3)
    receiver, exchange = opened(function)
    receiver.at_line = lambda line: exchange.pause_reading()
    for said in range(1, 4):
        await until(lambda: len(receiver.calls) == said + 1)  # noqa: B023  # waited for in its own turn
        for _ in range(9):
            await asyncio.sleep(0)
        assert function.said <= said + 1
        assert not receiver.has_ended
        exchange.pause_reading()
        exchange.resume_reading()
        exchange.resume_reading()
    assert await receiver.ended() is None


async def test_one_that_never_waits_gives_others_their_turn() -> None:
    async def hurried() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"a"

    receiver, exchange = opened(hurried)
    await until(lambda: len(receiver.calls) > 1000)
    exchange.close()


async def test_closing_cancels_one_that_waits_and_cleans_up() -> None:
    function = Function()
    within = calls()
    receiver, exchange = opened(function, within)
    function.go_on()
    await until(lambda: len(receiver.calls) == 2)
    exchange.close()
    exchange.close()
    await until(lambda: function.closed == 1)
    await until(lambda: not within.running)
    assert not receiver.has_ended


async def test_one_that_is_closed_twice_may_clean_up() -> None:
    go_on, said = asyncio.Event(), []

    async def slow_to_end() -> AsyncGenerator[bytes, None]:
        try:
            yield b"a"
            await asyncio.Event().wait()
        finally:
            said.append("ends")
            await go_on.wait()
            said.append("ended")

    within = calls()
    receiver, exchange = opened(slow_to_end, within)
    await until(lambda: len(receiver.calls) == 2)
    for _ in range(3):
        await asyncio.sleep(0)
    exchange.close()
    await until(lambda: said == ["ends"])
    exchange.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert within.running == 1
    go_on.set()
    await until(lambda: not within.running)
    assert said == ["ends", "ended"]


async def test_one_that_is_closed_before_its_turn_is_not_called() -> None:
    function = Function()
    within = calls()
    _, exchange = opened(function, within)
    exchange.close()
    await until(lambda: not within.running)
    assert function.begun == 0


@pytest.mark.parametrize("at", [200, b"0"])
async def test_the_receiver_may_close_it_while_it_is_called(at: Any) -> None:
    function = Function()
    function.go_on(3)
    within = calls()
    receiver, exchange = opened(function, within)
    if at == 200:
        receiver.head_received = lambda status, headers: exchange.close()  # type: ignore[method-assign]  # of this one
    receiver.at_line = lambda line: exchange.close()
    await until(lambda: not within.running)
    assert receiver.calls == ([] if at == 200 else [200, b"0"])
    assert function.begun == function.closed == (at != 200)


async def test_one_that_ignores_its_end_keeps_its_place_alone() -> None:
    go_on = asyncio.Event()

    async def stubborn() -> AsyncGenerator[bytes, None]:
        yield b"a"
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                yield b"never read"

    within = calls(most=1)
    receiver, exchange = opened(stubborn, within)
    await until(lambda: len(receiver.calls) == 2)
    for _ in range(3):
        await asyncio.sleep(0)
    exchange.close()
    await until(lambda: not within.running)
    assert receiver.calls == [200, b"a"]
    assert not receiver.has_ended


@pytest.mark.parametrize(("raised", "cause"), [(KeyError, KeyError), (GeneratorExit, RuntimeError)])
async def test_what_its_lines_raise_is_a_bug_of_ours(raised: type[BaseException], cause: type[Exception]) -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise raised

    receiver, _ = opened(broken)
    error = await receiver.ended()
    assert error is not None
    assert error.code == "internal"
    assert isinstance(error.__cause__, cause)


async def test_one_that_cancels_itself_is_truncated() -> None:
    async def cancelled() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise asyncio.CancelledError

    receiver, _ = opened(cancelled)
    error = await receiver.ended()
    assert error is not None
    assert (error.code, error.reason) == ("network", "truncated")


async def test_one_that_is_closed_at_a_line_at_which_reading_stopped_frees_its_place() -> None:
    """A client whose buffer is full may leave within the same write."""
    function, within = Function(), calls()

    def pause_and_close(line: bytes) -> None:
        exchange.pause_reading()
        exchange.close()

    receiver, exchange = opened(function, within)
    receiver.at_line = pause_and_close
    function.go_on()
    await until(lambda: not within.running)
    assert receiver.calls == [200, b"0"]
    assert function.closed == 1


# ---- times -----------------------------------------------------------------------------------------------------------


async def test_one_that_falls_silent_is_idle() -> None:
    function = Function()
    function.go_on()
    settings = UpstreamSettings("mine", "python", "", idle_timeout=0.05)
    receiver, _ = opened(function, settings=settings)
    error = await receiver.ended()
    assert error is not None
    assert (error.code, error.reason) == ("timeout", "idle")
    assert "the function of upstream 'mine' gave nothing for 0.05 s (idle_timeout)" in str(error)
    await until(lambda: function.closed == 1)


@pytest.mark.parametrize("is_paused", [False, True])
async def test_before_the_first_line_and_while_reading_is_off_only_the_whole_time_counts(is_paused: bool) -> None:
    function = Function()
    settings = UpstreamSettings("mine", "python", "", idle_timeout=0.01, total_timeout=0.2)
    receiver, exchange = opened(function, settings=settings)
    if is_paused:
        receiver.at_line = lambda line: exchange.pause_reading()
        function.go_on()
    error = await receiver.ended()
    assert error is not None
    assert (error.code, error.reason) == ("timeout", "total")


async def test_the_time_between_two_lines_begins_again_with_reading() -> None:
    function = Function()
    function.go_on()
    settings = UpstreamSettings("mine", "python", "", idle_timeout=0.05)
    receiver, exchange = opened(function, settings=settings)
    receiver.at_line = lambda line: exchange.pause_reading()
    await until(lambda: len(receiver.calls) == 2)
    await asyncio.sleep(0.2)
    assert not receiver.has_ended
    exchange.resume_reading()
    error = await receiver.ended()
    assert error is not None
    assert error.reason == "idle"


async def test_a_shorter_silence_holds_from_then_on() -> None:
    function = Function()
    function.go_on()
    receiver, exchange = opened(function)
    await until(lambda: len(receiver.calls) == 2)
    exchange.limit_silence(0.05)
    error = await receiver.ended()
    assert error is not None
    assert "gave nothing for 0.05 s (idle_timeout)" in str(error)
    exchange.limit_silence(0.01)


# ---- places ----------------------------------------------------------------------------------------------------------


async def test_calls_above_the_limit_wait_for_their_turn() -> None:
    waits: list[float] = []
    within = calls(most=1, waits=waits)
    first, second, third = Function(), Function(), Function()
    (one, _), (two, waiting), (_, left) = (opened(each, within) for each in (first, second, third))
    assert (within.running, within.waiting) == (1, 2)
    assert (waiting.is_waiting, waiting.sent) == (True, False)
    left.close()
    assert (within.waiting, len(waits)) == (1, 1)
    for each in (first, second, third):
        each.go_on(3)
    assert await one.ended() is None
    assert await two.ended() is None
    assert (third.begun, within.waiting, len(waits)) == (0, 0, 2)
    await until(lambda: not within.running)


async def test_a_caller_whose_calls_hang_leaves_others_their_turn(change_limits: ChangeLimits) -> None:
    change_limits(pool_waiting=8)
    within, hangs, function = calls(most=1), Function(), Function(lines=1)
    many = [opened(hangs, within, caller="hostile")[1] for _ in range(5)]  # one runs
    with pytest.raises(Error, match="half as many of this caller"):
        opened(hangs, within, caller="hostile")
    other, _ = opened(function, within, caller="other")
    many[0].close()
    await until(lambda: hangs.begun == 1)
    many[1].close()
    function.go_on()
    assert await other.ended() is None
    for each in many:
        each.close()
    await until(lambda: not within.running)
    assert within.waiting == 0


class Share(ConnectionShare):
    """A worker's share, of which the others have left `left` places."""

    def __init__(self, part: int, most: int, left: int) -> None:
        super().__init__(part, most)
        self.left = left
        self.asked = 0

    def borrow(self, then: Callable[[bool], object]) -> None:
        self.asked += 1
        is_granted = self.left > 0
        self.left -= is_granted
        asyncio.get_running_loop().call_soon(then, is_granted)

    def give_back(self) -> None:
        self.left += 1


async def test_places_of_other_workers_are_borrowed_and_returned(change_limits: ChangeLimits) -> None:
    change_limits(pool_ask=0.001)
    function, within, share = Function(lines=1), calls(), Share(part=1, most=4, left=2)
    within.use(4, share)
    receivers = [opened(function, within)[0] for _ in range(5)]
    await until(lambda: (function.begun, within.waiting, share.left) == (3, 2, 0))
    asked = share.asked
    await until(lambda: share.asked > asked)  # others may have returned one
    share.left += 1
    await until(lambda: function.begun == 4)
    assert share.left == 0
    function.go_on(5)
    for receiver in receivers:
        assert await receiver.ended() is None
    await until(lambda: share.left == 3)
    within.use(1, None)
    assert within.most == 1


async def test_one_that_waits_too_long_is_overloaded() -> None:
    within = calls(most=1)
    _, running = opened(Function(), within)
    settings = UpstreamSettings("mine", "python", "", pool_wait=0.02)
    receiver, _ = opened(Function(), within, settings)
    error = await receiver.ended()
    assert error is not None
    assert (error.code, error.reason, error.phase) == ("overloaded", "upstream_pool", "connect")
    assert "max_connections = 1" in str(error)
    running.close()


async def test_a_queue_has_an_end(change_limits: ChangeLimits) -> None:
    change_limits(pool_waiting=1)
    within = calls(most=1)
    _, running = opened(Function(), within)
    _, waiting = opened(Function(), within)
    with pytest.raises(Error, match="max_connections = 1") as refused:
        opened(Function(), within)
    assert refused.value.reason == "upstream_pool"
    waiting.close()
    running.close()
    await until(lambda: not within.running)


async def test_hundreds_run_at_once() -> None:
    within = calls(most=500)
    functions = [Function() for _ in range(500)]
    receivers = [opened(function, within)[0] for function in functions]
    for function in functions:
        function.go_on(3)
    for receiver in receivers:
        assert await receiver.ended() is None
        assert receiver.calls == [200, b"0", b"1", b"2"]


async def test_the_end_waits_for_calls_but_not_for_ever(
    change_limits: ChangeLimits, caplog: pytest.LogCaptureFixture
) -> None:
    change_limits(function_end=0.05)
    go_on = asyncio.Event()

    async def stubborn() -> AsyncGenerator[bytes, None]:
        yield b"a"
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    within = calls(most=2)
    function = Function()
    receiver, _ = opened(stubborn, within)
    other, _ = opened(function, within)
    waiting, _ = opened(Function(), within)
    await until(lambda: len(receiver.calls) == 2)
    await within.close()
    (late,) = within._running
    assert late not in asyncio.all_tasks(), "the end of the loop would wait for it"
    go_on.set()
    assert "functions that have not ended 0.05 s after they were cancelled: 1" in caplog.text
    assert function.begun == function.closed
    for each in (other, waiting):
        error = await each.ended()
        assert error is not None
        assert error.code == "network"
    await until(lambda: not within.running)
