"""The judges of a stream's output: which texts they are asked about, and what their verdicts do to the stream.

Owns what an event is to a judge. `pieces.py` has the order and the pieces; `net/judges/` asks. The stage sees what the
guards with automata have let through.

1. Text, reasoning, refusals and the arguments of calls are judged as they come; server tools, results of tools, blocks
   of the provider, the titles of citations, and what stands beside `finish` at once, each event as one piece. JSON is
   judged with its characters in place of their escapes: a judge reads texts.
2. Other events wait behind the text of their choice. A `safety` that stops the stream waits for nothing: text that has
   no verdict by then is dropped.
3. What a mask has changed loses what does not fit any more (`changed.py`). Citations and blocks of the provider with a
   match are left out, and so is what stands beside `finish`.
4. `finish`, `error` and `stream.reset` drop all text without a verdict, and give up the questions. The end of a whole
   answer does not come before its verdicts (`holds`).
5. A stream has one warning of a guard without a verdict, on its input or its output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Final, cast

from gai_fast.core.processing.processor import FRAME, Processor, StreamInfo
from gai_fast.guards.active import ActiveGuard, AskedQuestion, GuardCounts
from gai_fast.guards.arguments import unescaped
from gai_fast.guards.outcomes import judge_failed, reworded, safety, stopped, unjudged
from gai_fast.guards.stages.changed import Changed, beside, rewritten, size_of
from gai_fast.guards.stages.pieces import Ended, JudgedMatch, Passed, Piece, Pieces, Rules
from gai_fast.guards.verdicts import Channel, Failed, JudgeVerdict, Question
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, Event, JSONText

_CHANNELS: Final[dict[str, Channel]] = {
    "text.delta": "text",
    "reasoning.delta": "reasoning",
    "refusal.delta": "refusal",
    "tool.call.delta": "tool_call",
}
_QUOTED: Final = ("title", "cited_text")
_BESIDE: Final = "finish.beside"
"""The type of what stands in for the metadata of a `finish` while they are judged. It is never sent."""


class _Answer:
    """A judge's answer that the pieces do not know yet."""

    def __init__(self, piece: Piece, verdict: JudgeVerdict | Failed) -> None:
        self.piece = piece
        self.verdict: JudgeVerdict | Failed = verdict


class JudgeStage(Processor):
    """Has the output of one stream judged.

    Args:
        guards: The guards with a judge.
        stream: The stream.
        counts: Counts what they do.
    """

    hides_scores: ClassVar[bool] = True

    def __init__(self, guards: Sequence[ActiveGuard], stream: StreamInfo, counts: GuardCounts) -> None:
        self._guards = guards
        self._stream = stream
        self._counts = counts
        self._pieces = Pieces([rules_of(each) for each in guards])
        self._asked: dict[Piece, AskedQuestion] = {}
        self._answers: list[_Answer] = []
        self._changed: dict[int, Changed] = {}  # by choice
        self._wake: Callable[[], None] | None = None
        self._is_over = False
        self._drops_metadata = False
        self._warned = frozenset([each.get("guard", "") for each in stream.said if each["type"] == "warning"])

    # -- events --

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Processes an event.

        Raises:
            Stop: A judge stops the stream. What stands before the match, and the `safety`, were yielded before.
            Error: A judge has failed, and its guard is closed then.
        """
        kind = event["type"]
        if self._is_over:
            return (event,) if kind in FRAME else ()
        if kind in FRAME or kind == "stream.reset":
            if kind != "start":
                self._drop()
                self._changed.clear()
            return (_without_metadata(event) if self._drops_metadata and kind == "finish" else event,)
        if kind == "safety" and event["safety"].get("action") == "stop":
            return (event,)
        self._add(kind, event, event.get("choice", 0), now_ms)
        return self._let_through(now_ms)

    def _add(self, kind: str, event: Event, choice: int, now_ms: int) -> None:
        pieces = self._pieces
        channel = _CHANNELS.get(kind)
        if channel is not None:
            text: str = event[DELTAS[kind]]  # type: ignore[literal-required]  # the key depends on the type
            pieces.add(event, text, choice, channel, event.get("call_id", ""), now_ms)
        elif kind == "tool.call" and not pieces.complete(choice, event["call_id"]):
            pieces.end_prose(choice)
            given = event["tool_call"].get("input")
            text = given if isinstance(given, str) else _json(given)
            pieces.add_whole(event, text, choice, "tool_call", now_ms)
        elif kind == "server_tool":
            pieces.add_whole(event, _json(event["server_tool"]), choice, "tool_call", now_ms)
        elif kind == "tool.result":
            pieces.add_whole(event, _json(event["tool_result"]), choice, "tool_call", now_ms)
        elif kind == "provider.block":
            loose: Any = event  # compiled, a member of an `Event` raises if its type is another one
            pieces.add_whole(event, unescaped(_json(loose["block"])), choice, "text", now_ms)
        elif kind == "citations":
            quoted = [str(each[key]) for each in event["citations"] for key in _QUOTED if key in each]
            pieces.add_whole(event, "\n".join(quoted), choice, "text", now_ms)
        else:
            if kind == "tool.call.start":
                pieces.end_prose(choice)
            pieces.behind(event, choice, size_of(event))

    @property
    def due_ms(self) -> int | None:
        """The time of the next piece. A verdict that has come is due at once."""
        return 0 if self._answers else self._pieces.due_ms

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        """Yields what verdicts have let through; asks for the pieces that are due; raises as `process`."""
        answers, self._answers = self._answers, []
        for each in answers:
            self._pieces.judged(each.piece, each.verdict)
        return self._let_through(now_ms)

    @property
    def holds(self) -> bool:
        """Whether a verdict is missing."""
        return not self._is_over and self._pieces.holds

    @property
    def waiting(self) -> int:
        """The characters that wait for a verdict, and the size of the events behind them."""
        return self._pieces.waiting

    def release(self, now_ms: int = 0) -> Iterable[Event]:
        """Asks for all that waits for more text, because no more comes."""
        self._pieces.finish()
        return self._let_through(now_ms)

    def announce(self, finish: Event, now_ms: int = 0) -> Event:
        """Has judged what stands beside a `finish`, which waits for the verdict."""
        given, _ = beside(finish)
        if given:
            self._drops_metadata = True  # until they are let through
            # It waits for its verdict whatever may be exposed: so does the `finish`.
            text = unescaped(_json(given))
            self._pieces.add_whole({"type": _BESIDE}, text, finish.get("choice", 0), "text", now_ms, exposes=False)
        return finish

    def told(self, error: Error) -> Error:
        """Returns an error without its upstream's words, which nobody has judged."""
        if not error.quotes or all(each.settings.action == "flag" for each in self._guards):
            return error
        return reworded(error, "the upstream has failed, in words that no guard has judged", None, None, None)

    def connect(self, wake: Callable[[], None] | None) -> None:
        """Receives what wakes the stream. At its end all questions are given up."""
        self._wake = wake
        if wake is None:
            self._drop()

    # -- verdicts --

    def _let_through(self, now_ms: int) -> Iterator[Event]:
        for piece in self._pieces.asks(now_ms):
            self._ask(piece, now_ms)
        for outcome in self._pieces.take():
            if isinstance(outcome, Passed):
                event = self._passed(outcome)
                if event is not None:
                    yield event
            elif isinstance(outcome, JudgedMatch):
                guard = self._guards[outcome.judge]
                self._counts.acted(guard.name, "output", outcome.action)
                category = guard.settings.category_of(outcome.category or "")
                yield safety(guard.name, outcome.action, category, "output", score=outcome.score, choice=outcome.choice)
            elif isinstance(outcome, Ended):
                self._end(outcome)
            elif (name := self._guards[outcome.judge].name) not in self._warned:
                yield unjudged(name)

    def _end(self, end: Ended) -> None:
        name = self._guards[end.judge].name
        self._is_over = True
        self._drop()
        if end.failure is not None:
            raise judge_failed(name)
        self._counts.stopped(name, "output", self._stream.stream_id, self._stream.caller)
        raise stopped()

    def _passed(self, passed: Passed) -> Event | None:
        """Returns an event that was let through, as it fits to what was sent before. None if it is left out."""
        event = cast(Event, passed.event)
        kind = event["type"]
        if kind == _BESIDE:
            self._drops_metadata = passed.is_masked  # a text that is replaced by nothing does not come here
            return None
        if kind not in DELTAS:
            if passed.is_masked:
                return None
            changed = self._changed.get(event.get("choice", 0))
            return event if changed is None else changed.fitting(event)
        if passed.is_masked:
            self._changed.setdefault(event.get("choice", 0), Changed()).masked(kind)
        own: str = event[DELTAS[kind]]  # type: ignore[literal-required]  # the key depends on the type
        return rewritten(event, own if passed.text is None else passed.text)

    def _ask(self, piece: Piece, now_ms: int) -> None:
        guard, stream = self._guards[piece.judge], self._stream
        judge = guard.judge
        assert judge is not None
        text = unescaped(piece.text) if piece.channel == "tool_call" else piece.text
        question = Question(guard.name, "output", piece.channel, text, stream.model, stream.caller, stream.stream_id)
        ready = judge.now() - (now_ms - piece.ready_ms) / 1e3
        waited = ready if piece.ready_ms < now_ms else None
        self._asked[piece] = judge.ask(question, partial(self._answered, piece, ready), waited)

    def _answered(self, piece: Piece, ready: float, verdict: JudgeVerdict | Failed) -> None:
        """Receives a judge's answer, in a turn of the loop of its own."""
        if self._asked.pop(piece, None) is None:
            return
        guard = self._guards[piece.judge]
        judge = guard.judge
        assert judge is not None
        self._counts.delayed(guard.name, judge.now() - ready)
        if isinstance(verdict, Failed):
            self._counts.failed(guard.name)
        self._answers.append(_Answer(piece, verdict))
        if self._wake is not None:
            self._wake()

    def _drop(self) -> None:
        """Drops all text without a verdict."""
        self._pieces.drop()
        self._answers.clear()
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.cancel()


def rules_of(guard: ActiveGuard) -> Rules:
    """Returns what follows from the verdicts of a guard's judge."""
    settings = guard.settings
    judge = settings.judge
    assert judge is not None
    return Rules(settings.action, settings.replacement_of, judge.max_exposure, judge.fails_open)


def _without_metadata(finish: Event) -> Event:
    kept, own = {**finish}, beside(finish)[1]
    kept.pop("provider_metadata", None)
    return cast(Event, {**kept, "provider_metadata": own} if own else kept)


def _json(value: Any) -> str:
    return value.text if isinstance(value, JSONText) else encode_json(value).decode()
