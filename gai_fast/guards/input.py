"""Whole texts before their guards: the input of a request, arguments and results of the gateway's tools. Sans-IO.

Owns which texts are let through, and what is said of them.

1. Guards that find matches look in their order, each at what the one before let through; then judges, all at once, at
   that text. `net/judges/` asks them.
2. A turn searches at most `limits.slice` characters, of which each text takes `limits.slice_text` besides its own, and
   makes at most `limits.turn_steps` steps of transitions. After `limits.request_steps` in all, the guards that have not
   searched all texts have failed, as judges do.
3. With `restore` a match becomes a placeholder, else the guard's replacement. The texts of tools, and those that come
   later than the request, get no placeholders of their own: a value that the request has keeps the one that it has.
4. Said and counted is one `safety` a guard and category, whatever number of matches there are, in the order of the
   guards; counted also if a later guard refuses the texts.
5. Arguments of a tool that a judge would mask are stopped, as those of a call in an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.guards.active import ActiveGuard, GuardCounts
from gai_fast.guards.automaton import Match, Piece, SearchTurn
from gai_fast.guards.joined import Edit, JoinedTexts, edits_of
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.outcomes import judge_failed, refused, safety, unjudged
from gai_fast.guards.restore import Placeholders, Restorer
from gai_fast.guards.verdicts import Channel, Failed, JudgeVerdict, Question
from gai_fast.model.events import Event
from gai_fast.model.settings import GuardSide


class LetThrough:
    """What guards have let through of a request's input.

    Args:
        said: The events behind `start`.
        placeholders: The placeholders that the upstream gets. None if there are none.
    """

    def __init__(self, said: tuple[Event, ...] = (), placeholders: Placeholders | None = None) -> None:
        self.said = said
        self.placeholders = placeholders


class InputCheck:
    """Some texts before their guards.

    Args:
        guards: The guards that look at them, in their order.
        texts: The texts, in the order of the request.
        info: Whose request it is: the model, the caller, and the id of its stream.
        counts: Counts what guards do.
        side: What the texts are; not `output`.
        is_late: Whether they come later than the request: rule 3.

    Attributes:
        texts: The texts that go up; final after `turn` and `judged`.
    """

    def __init__(
        self,
        guards: Sequence[ActiveGuard],
        texts: Sequence[str],
        info: StreamInfo,
        counts: GuardCounts,
        side: GuardSide = "input",
        *,
        is_late: bool = False,
    ) -> None:
        self.texts = list(texts)
        self.judges = [each for each in guards if each.judge is not None]
        """The guards whose judges must be asked."""
        self._given = texts
        self._guards = guards
        self._info = info
        self._counts = counts
        self._side: GuardSide = side
        self._placeholders: Placeholders | None = None
        self._issues = side == "input" and not is_late
        if not self._issues:
            self._placeholders = cast("Placeholders | None", info.placeholders)
        self.masked: set[int] = set()
        """The places of the texts in which more than a placeholder stands."""
        self._found: dict[str, dict[str, float | None]] = {}
        self._unjudged: set[str] = set()
        self._verdicts: dict[str, list[tuple[tuple[int, str], JudgeVerdict | Failed]]] = {}
        self._whole: JoinedTexts | None = None
        self._search = self._searched()

    # -- searches --

    def turn(self) -> bool:
        """Searches for one turn of the loop. Returns whether all is searched.

        Raises:
            Error: A guard does not let the request through.
        """
        for _ in self._search:
            return False
        return True

    def _searched(self) -> Iterator[None]:
        """Searches all texts with each guard; yields where a turn ends."""
        left, steps = LIMITS.slice, LIMITS.turn_steps  # what the turn has room for, whichever guard needs it
        work = SearchTurn(self._info.caller)
        for guard in self._guards:
            automaton = guard.automaton
            if automaton is None:
                continue
            scan = automaton.scan(turn=work)
            for place, text in enumerate(self.texts):
                left -= LIMITS.slice_text
                if left <= 0:
                    yield
                    left, steps = LIMITS.slice, LIMITS.turn_steps
                if not text:
                    continue
                pieces: list[Piece] = []
                at = 0
                while at < len(text):
                    before, made = at, automaton.steps
                    part, at = scan.feed_turn(text, at, steps)
                    pieces += part
                    left -= at - before
                    steps -= automaton.steps - made
                    if work.is_used_up:
                        break
                    if left <= 0 or steps <= 0:
                        yield
                        left, steps = LIMITS.slice, LIMITS.turn_steps
                if work.is_used_up:
                    self._fail(guard)
                    break
                pieces += scan.end()
                if any(isinstance(each, Match) for each in pieces):
                    self._meet(guard, place, text, pieces)

    def _meet(self, guard: ActiveGuard, place: int, text: str, pieces: Sequence[Piece]) -> None:
        """Does what a guard does with the matches of a text."""
        for piece in pieces:
            if isinstance(piece, Match):
                self._note(guard, piece.category)
        settings = guard.settings
        if settings.action == "stop":
            self._stop(guard)
        if settings.action == "flag":
            return
        if not settings.restore:
            self.masked.add(place)
        issue = partial(self._issue, place) if settings.restore else None
        self.texts[place] = guard.masked(text, pieces, issue)

    def _issue(self, place: int, kind: str, value: str) -> str | None:
        """Returns a placeholder: rule 3. None if there is none: the text is masked."""
        if not self._issues:
            issued = None if self._placeholders is None else self._placeholders.issued(kind, value)
        else:
            if self._placeholders is None:
                self._placeholders = Placeholders(self._given)
            issued = self._placeholders.issue(kind, value)
        if issued is None:
            self.masked.add(place)
        return issued

    def _fail(self, guard: ActiveGuard) -> None:
        """Does what follows if a guard cannot look at all texts."""
        self._counts.failed(guard.name)
        if not guard.settings.fails_open:
            self._count()
            raise judge_failed(guard.name)
        self._unjudged.add(guard.name)

    # -- judges --

    def pieces(self) -> list[tuple[int, str]]:
        """Returns what judges are asked, each piece with its begin; called once the texts are searched."""
        self._whole = JoinedTexts(self.texts)
        return self._whole.pieces()

    def question(self, guard: ActiveGuard) -> Question:
        """Returns whose texts a judge is asked about; its own text does not count."""
        info, side = self._info, self._side
        channel: Channel = "input" if side == "input" else "tool_call"
        return Question(guard.name, side, channel, "", info.model, info.caller, info.stream_id)

    def judged(
        self, guard: ActiveGuard, pieces: Sequence[tuple[int, str]], answers: Sequence[JudgeVerdict | Failed]
    ) -> None:
        """Does what follows from the answers of a guard's judge.

        Args:
            guard: The guard.
            pieces: The pieces that it has answered, each with its begin.
            answers: Its answers to them.

        Raises:
            Error: The request is not let through.
        """
        settings = guard.settings
        self._verdicts[guard.name] = [*zip(pieces, answers, strict=True)]
        for answer in answers:
            if isinstance(answer, Failed):
                self._fail(guard)
            elif answer.flagged:
                category = answer.category or ""
                self._note(guard, category, answer.score)
                if settings.action == "stop" or (settings.action == "mask" and self._side == "tool_input"):
                    self._stop(guard)

    def end(self) -> None:
        """Masks what judges have found; called when all have answered."""
        edits: list[Edit] = []
        for guard in self.judges:
            settings = guard.settings
            for (start, text), answer in self._verdicts[guard.name] if settings.action == "mask" else ():
                if isinstance(answer, JudgeVerdict):
                    edits += edits_of(start, text, answer, settings.replacement_of(answer.category or ""))
        if self._whole is None or not edits:
            return
        masked = self._whole.masked(edits)
        self.masked.update([place for place, text in enumerate(masked) if text != self.texts[place]])
        self.texts = masked

    # -- what is let through --

    @property
    def size(self) -> int:
        """The characters of all texts."""
        found = 0
        for each in self._given:
            found += len(each)
        return found

    @property
    def is_long(self) -> bool:
        """Whether one turn does not search all texts."""
        return self.size > LIMITS.slice

    @property
    def placeholders(self) -> Placeholders | None:
        """The placeholders. None if there are none."""
        return self._placeholders

    @property
    def changed(self) -> list[int]:
        """The places of the texts that are not as they came."""
        return [place for place, text in enumerate(self.texts) if text != self._given[place]]

    def own(self, place: int) -> str:
        """Returns a text with the caller's own words in place of placeholders, as stores keep it."""
        text = self.texts[place]
        if self._placeholders is None:
            return text
        restorer = Restorer(self._placeholders)
        return restorer.restored([*restorer.feed(text), *restorer.end()])

    def let_through(self) -> LetThrough | None:
        """Returns what is let through. None if guards have found nothing, and nothing is to be said."""
        if not self._found and not self._unjudged and self._placeholders is None:
            return None
        self._count()
        return LetThrough(self.said(), self._placeholders)

    def said(self, stopped_by: str = "") -> tuple[Event, ...]:
        """Returns what is said of the texts so far: rule 4.

        Args:
            stopped_by: The name of the guard that has stopped them; empty if none has.
        """
        said: list[Event] = []
        for guard in self._guards:
            action = "stop" if guard.name == stopped_by else guard.settings.action
            for category, score in self._found.get(guard.name, {}).items():
                said.append(safety(guard.name, action, category, self._side, score=score))
            if guard.name in self._unjudged:
                said.append(unjudged(guard.name))
        return tuple(said)

    def _note(self, guard: ActiveGuard, found: str, score: float | None = None) -> None:
        categories = self._found.setdefault(guard.name, {})
        category = guard.settings.category_of(found)
        known = categories.get(category)
        categories[category] = score if known is None or (score is not None and score > known) else known

    def _count(self, stopped_by: str = "") -> None:
        """Counts what guards have found; arguments as for `said`."""
        for guard in self._guards:
            if guard.name != stopped_by:
                for _ in self._found.get(guard.name, {}):
                    self._counts.acted(guard.name, self._side, guard.settings.action)

    def _stop(self, guard: ActiveGuard) -> None:
        self._count(stopped_by=guard.name)
        self._counts.acted(guard.name, self._side, "stop")
        self._counts.stopped(guard.name, self._side, self._info.stream_id, self._info.caller)
        raise refused(guard.name)
