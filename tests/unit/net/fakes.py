"""Time that passes only when a test says so, for everything with timers; a transport and clients without sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.settings import Peer
from gai_fast.net.logs.writer import Client
from gai_fast.net.upstream.connection_pool import PoolStats
from gai_fast.runtime.timers import Timer, Timers


class FakeTransport:
    """A client's connection: what was written, and how much of it the test says is unsent."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.unsent += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class FakeTimer(Timer):
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeTime(Timers):
    """A timer wheel, and of a loop its timers and what it watches.

    What is due runs, each at its own time, when the test advances.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: list[tuple[float, FakeTimer]] = []
        self.watched: dict[int, Callable[[], None]] = {}
        self.clock = self.time

    def time(self) -> float:
        return self.now

    def schedule(self, deadline: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(callback)
        self.waiting.append((deadline, timer))
        return timer

    call_at = schedule

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
        return self.schedule(self.now + delay, callback)

    def call_soon(self, callback: Callable[[], object]) -> FakeTimer:
        return self.schedule(self.now, callback)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.watched[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.watched[fd]

    @property
    def armed(self) -> int:
        """Timers that were neither cancelled nor run."""
        return sum(timer.callback is not None for _, timer in self.waiting)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [item for item in self.waiting if item[0] <= end]:
            item = min(due, key=lambda item: item[0])
            self.waiting.remove(item)
            self.now = max(self.now, item[0])
            callback, item[1].callback = item[1].callback, None
            if callback is not None:
                callback()
        self.now = end


class FakeOutput:
    """Writes an event as its type in angle brackets."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.bytes = b""

    def event(self, event: Event) -> None:
        self.events.append(event)
        self.bytes += b"<%b>" % event["type"].encode()

    def heartbeat(self) -> None:
        self.bytes += b"<ping>"

    def take_pieces(self) -> list[bytes]:
        taken, self.bytes = self.bytes, b""
        return [taken] if taken else []


class FakeClient(Client):
    """A client's leg that writes its calls down."""

    direct = None

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def commit(self) -> None:
        self.calls.append("commit")

    def flush(self) -> None:
        self.calls.append("flush")

    def write(self, pieces: list[bytes]) -> None:
        self.calls.append(b"".join(pieces))

    def end(self, pieces: list[bytes]) -> None:
        self.calls.append(("end", b"".join(pieces)))

    def fail(self, error: Error, pieces: Sequence[bytes]) -> None:
        self.calls.append(error)

    def abort(self, error: Error) -> None:
        self.calls.append(("abort", error))

    def taken(self) -> list[Any]:
        """Returns the calls since the last one."""
        calls, self.calls = self.calls, []
        return calls


class FakeExchange:
    """A request under way."""

    is_complete = False
    is_waiting = False
    sent = True
    resent = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def limit_silence(self, seconds: float) -> None:
        self.calls.append(f"silence {seconds:g}")

    def close(self) -> None:
        self.calls.append("close")


class FakePool:
    """Hands out exchanges that the test plays."""

    made: ClassVar[list[FakePool]] = []

    def __init__(self, peer: Peer, **options: Any) -> None:
        self.peer = peer
        self.options = options
        self.asked: list[tuple[Any, ...]] = []
        self.asked_once = 0  # of them
        self.is_closed = False
        self.is_ready = False
        self.keeps_idle = True
        self.problem: Exception | None = None
        self.stats = PoolStats(open=0, idle=0, connecting=0, pending=0, opened=0, reused=0, retried=0)
        FakePool.made.append(self)

    def keep_ready(self) -> None:
        self.is_ready = True

    def keep_idle(self, keeps: bool) -> None:
        self.keeps_idle = keeps

    def close_empty(self) -> None:
        self.is_closed = True

    def open(self, *arguments: Any) -> FakeExchange:
        if self.problem is not None:
            raise self.problem
        self.asked.append(arguments)
        return FakeExchange()

    def open_once(self, *arguments: Any) -> FakeExchange:
        self.asked_once += 1
        return self.open(*arguments)

    async def close(self) -> None:
        self.is_closed = True
