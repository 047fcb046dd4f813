"""The guards of one configuration, ready to use: which of them hold for a request, with their automata and judges.

Owns the choice for a request. What makes automata is `building.py`; judges are
made by `net/judges/`, which this folder does not import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gai_fast.guards.automaton import Automaton, Match, Piece
from gai_fast.guards.outcomes import closed
from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.guard_rules import GuardRules
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import STREAM_SIDES, GuardSettings, GuardSide, Settings


class AskedQuestion(Protocol):
    """A question that waits for its answer."""

    def cancel(self) -> None:
        """Drops the question: it gets no answer; idempotent."""


class Asks(Protocol):
    """A guard's judge, as `net/judges/judge.Judge`."""

    def now(self) -> float:
        """Returns the time, in seconds on the judge's own clock."""

    def ask(
        self, question: Question, answered: Callable[[JudgeVerdict | Failed], object], ready: float | None = None
    ) -> AskedQuestion:
        """Asks for a verdict.

        Args:
            question: The text.
            answered: Called once with the verdict or the failure, in a later turn of the loop.
            ready: When the text was ready, as of `now`, if it had to wait for others. None means now.
        """


class GuardCounts(Protocol):
    """Counts what guards do, and writes the audit line of a stop."""

    def acted(self, guard: str, on: str, action: str) -> None:
        """Counts a match: on output each, elsewhere one for each category.

        Args:
            guard: The guard's name.
            on: What the text is, as in `[[guard]] on`.
            action: What happened to the text: `mask`, `stop` or `flag`.
        """

    def failed(self, guard: str) -> None:
        """Counts a judge that gave no verdict."""

    def delayed(self, guard: str, seconds: float) -> None:
        """Measures for how long a text waited for its verdict."""

    def stopped(self, guard: str, on: str, stream_id: str, caller: str) -> None:
        """Writes the audit line of a stop.

        Args:
            guard: The guard's name.
            on: As for `acted`.
            stream_id: The stream's id; empty if none has begun.
            caller: The caller's name.
        """


@dataclass(frozen=True, slots=True)
class ActiveGuard:
    """One guard, ready to use.

    Args:
        settings: Its settings.
        automaton: The search for its matches. None if it has a judge.
        judge: Who gives its verdicts. None if it has an automaton.
    """

    settings: GuardSettings
    automaton: Automaton | None = None
    judge: Asks | None = None

    @property
    def name(self) -> str:
        """The guard's name."""
        return self.settings.name

    def sees(self, side: GuardSide) -> bool:
        """Returns whether it looks at a side."""
        return side in self.settings.on

    def sees_any(self, sides: Sequence[GuardSide]) -> bool:
        """Returns whether it looks at one of some sides."""
        return not set(sides).isdisjoint(self.settings.on)

    def masked(self, text: str, pieces: Sequence[Piece], issue: Callable[[str, str], str | None] | None = None) -> str:
        """Returns a whole text with replacements of its matches.

        Args:
            text: The text.
            pieces: What its search has decided.
            issue: Returns the placeholder of a match by its kind and its text. None if there is none left; then, and
                without this function, the guard's replacement stands there.
        """
        parts: list[str] = []
        for piece in pieces:
            if isinstance(piece, Match):
                placeholder = None if issue is None else issue(piece.category, text[piece.start : piece.end])
                parts.append(placeholder or self.settings.replacement_of(piece.category))
            else:
                parts.append(piece)
        return "".join(parts)


class Guards:
    """The guards of one configuration.

    Args:
        settings: The configuration.
        active: Its guards, in their order.
    """

    def __init__(self, settings: Settings, active: Sequence[ActiveGuard]) -> None:
        self.rules = GuardRules(settings)
        """Which guards hold, also at the paths of upstreams."""
        self.active = tuple(active)
        """All guards, in the order of the configuration."""
        self._by_name = {each.settings.name: each for each in self.active}
        self._chosen: dict[tuple[str, str], tuple[ActiveGuard, ...]] = {}

    def for_request(self, model: str, caller: str) -> tuple[ActiveGuard, ...]:
        """Returns the guards that hold for a request, in the order of the configuration.

        Args:
            model: The model that the request names, or the default model's name. Fallbacks keep its guards.
            caller: The caller's name.
        """
        pair = model, caller
        chosen = self._chosen.get(pair)
        if chosen is None:
            by_name = self._by_name
            chosen = tuple([by_name[each.name] for each in self.rules.guards_for(model, caller)])
            if len(self._chosen) >= SHARED.guarded_pairs:  # callers of issuers, and ids of models, are without number
                self._chosen.clear()
            self._chosen[pair] = chosen
        return chosen

    def check_closed(self, model: str, caller: str, what: str, side: GuardSide | None = None) -> None:
        """Refuses what no guard can look into, where one holds.

        Args:
            model: As for `for_request`.
            caller: As for `for_request`.
            what: What is asked for, for the message.
            side: The side that a guard must look at to close it. None: input or output.

        Raises:
            Error: A guard holds.
        """
        for each in self.for_request(model, caller):
            if each.sees_any(STREAM_SIDES if side is None else (side,)):
                raise closed(each.name, what)

    def check_closed_at(self, upstream: str, caller: str, what: str, side: GuardSide | None = None) -> None:
        """Refuses what leads past the guards of an upstream's models; as `check_closed`.

        Args:
            upstream: The upstream's name.
            caller: As for `for_request`.
            what: As for `check_closed`.
            side: As for `check_closed`.

        Raises:
            Error: A guard holds for one of them.
        """
        for each in self.rules.guards_at(upstream, caller):
            if self._by_name[each.name].sees_any(STREAM_SIDES if side is None else (side,)):
                raise closed(each.name, what)
