"""Processors that end streams and hold text, as tests need them in the place of guards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gai_fast.core.processing.processor import FRAME, Processor, Stop, StreamInfo
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.building import build
from gai_fast.guards.restore import Placeholders
from gai_fast.guards.stages.output import output_stage
from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, Event, with_text
from gai_fast.model.settings import GuardSettings, JudgeSettings

SAFETY: Event = {
    "type": "safety",
    "safety": {"category": "words", "action": "stop", "guard": "names", "on": "output"},
}


def stop() -> Stop:
    return Stop("content_filter", "guard")


def failed() -> Error:
    """A judge's failure that closes the stream."""
    return Error("provider_unavailable", "the guard 'policy' failed", reason="guard_failed", guard="policy")


class Guarding:
    """Makes the stage of the guards, and keeps for which streams it was asked.

    Args:
        make: Returns the stage of a stream. None if the stream is not guarded.
    """

    def __init__(self, make: Callable[[StreamInfo], Processor | None]) -> None:
        self.make = make
        self.asked: list[StreamInfo] = []
        self.made: list[Processor] = []

    def processor(self, stream: StreamInfo) -> Processor | None:
        self.asked.append(stream)
        made = self.make(stream)
        if made is not None and stream.stream_id:
            self.made.append(made)
        return made


class Stopping(Processor):
    """Ends the stream at the first event of a type, behind a `safety`. Then it passes what makes a stream legal.

    Args:
        kind: The type.
        problem: Makes what it raises.
    """

    def __init__(self, kind: str, problem: Callable[[], Exception] = stop) -> None:
        self.kind = kind
        self.problem = problem
        self.is_over = False

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        kind = event["type"]
        if self.is_over:
            if kind in FRAME:
                yield event
            return
        if kind != self.kind:
            yield event
            return
        self.is_over = True
        if kind in ("start", "stream.reset"):
            yield event
        if kind not in ("error", "stream.reset"):
            yield SAFETY
        raise self.problem()


class Word(Stopping):
    """Ends the stream at a word within one text, behind what stands before it."""

    def __init__(self, word: str, problem: Callable[[], Exception] = stop) -> None:
        super().__init__("none", problem)
        self.word = word

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        before, found, _ = event.get("text", "").partition(self.word)
        if found and not self.is_over:
            self.is_over = True
            if before:
                yield with_text(event, before)
            yield SAFETY
            raise self.problem()
        yield from super().process(event, now_ms)


class Judged(Processor):
    """Holds each text until there is a verdict; a call waits behind it, and `finish` must.

    Args:
        due_ms: When it is let through by itself; None if only a verdict does so.
    """

    def __init__(self, due_ms: int | None = None) -> None:
        self.held: list[Event] = []
        self.free = 0
        self.due = due_ms
        self.problem: Exception | None = None
        self.wake: Callable[[], None] | None = None
        self.released: list[int] = []
        self.is_over = False

    def connect(self, wake: Callable[[], None] | None) -> None:
        self.wake = wake

    def allow(self, texts: int = 1, problem: Exception | None = None) -> None:
        """Gives the verdict on so many texts, or what the next flush raises."""
        self.free += texts
        self.problem = problem
        if self.wake is not None:
            self.wake()

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        kind = event["type"]
        if kind in FRAME or kind == "stream.reset":
            if kind != "start":
                self.held.clear()
            yield event
        elif self.is_over:
            return
        elif kind in DELTAS or self.held:
            self.held.append(event)
        else:
            yield event

    @property
    def due_ms(self) -> int | None:
        if self.free or self.problem is not None:
            return 0
        return self.due if self.held else None

    @property
    def holds(self) -> bool:
        return bool(self.held)

    @property
    def waiting(self) -> int:
        return sum(len(event.get("text", "")) for event in self.held)

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        if self.problem is not None:
            problem, self.problem = self.problem, None
            self.is_over = True
            raise problem
        if self.due is not None and self.due <= now_ms:
            self.free = len(self.held)
        while self.held and (self.free or self.held[0]["type"] not in DELTAS):
            self.free -= self.held[0]["type"] in DELTAS
            yield self.held.pop(0)
        self.free = 0

    def release(self, now_ms: int = 0) -> Iterable[Event]:
        self.released.append(now_ms)
        return ()


# ---- guards of a configuration ---------------------------------------------------------------------------------------


class Counts:
    """Keeps what guards have done, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self.delays: list[tuple[str, float]] = []

    def acted(self, guard: str, on: str, action: str) -> None:
        self.all.append((action, guard, on))

    def failed(self, guard: str) -> None:
        self.all.append(("failed", guard))

    def delayed(self, guard: str, seconds: float) -> None:
        self.delays.append((guard, seconds))

    def stopped(self, guard: str, on: str, stream_id: str, caller: str) -> None:
        self.all.append(("stopped", guard, on, stream_id, caller))


class AskedOnce:
    """A question to `Answering`."""

    def __init__(
        self, question: Question, answered: Callable[[JudgeVerdict | Failed], object], ready: float | None
    ) -> None:
        self.question = question
        self.answered = answered
        self.ready = ready
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Answering:
    """A judge that answers when the test says so."""

    def __init__(self) -> None:
        self.time = 5.0
        self.asked: list[AskedOnce] = []

    def now(self) -> float:
        return self.time

    def ask(
        self, question: Question, answered: Callable[[JudgeVerdict | Failed], object], ready: float | None = None
    ) -> AskedOnce:
        self.asked.append(AskedOnce(question, answered, ready))
        return self.asked[-1]

    @property
    def texts(self) -> list[str]:
        """The texts without an answer."""
        return [each.question.text for each in self.asked if not each.is_cancelled]

    def answer(self, verdict: JudgeVerdict | Failed, at: int = 0) -> None:
        self.asked.pop(at).answered(verdict)


def matching(use: Any = "words", **more: Any) -> ActiveGuard:
    """Returns a guard with an automaton; without further settings it masks the word `kestrel`."""
    if use == "words" and not more.keys() & {"words"}:
        more["words"] = ("kestrel",)
    settings = GuardSettings(**{"name": "names", "use": use, **more})
    return ActiveGuard(settings, build(settings))


def judging(judge: Any, action: Any = "stop", name: str = "policy", **more: Any) -> ActiveGuard:
    """Returns a guard with a judge."""
    settings = GuardSettings(name, "http", action=action, judge=JudgeSettings(url="http://x", **more))
    return ActiveGuard(settings, judge=judge)


class Standing:
    """Makes the output stage of each stream from guards; as `Engine.guard_by` wants it.

    Args:
        guards: The guards.
        placeholders: The placeholders of all streams.
    """

    def __init__(self, *guards: ActiveGuard, placeholders: Placeholders | None = None) -> None:
        self.guards = guards
        self.placeholders = placeholders
        self.counts = Counts()

    def processor(self, stream: StreamInfo) -> Processor | None:
        return output_stage(self.guards, stream, self.placeholders, self.counts)
