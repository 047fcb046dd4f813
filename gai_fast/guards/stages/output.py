"""The guards of a stream's output, as one stage: those with automata, then the judges, then what restores own words.

Owns the order, and what an `ActiveGuard` is to the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Processor, StreamInfo
from gai_fast.guards.active import ActiveGuard, GuardCounts
from gai_fast.guards.arguments import ArgumentSearch
from gai_fast.guards.automaton import Automaton, SearchTurn
from gai_fast.guards.restore import Placeholders, Restorer
from gai_fast.guards.stages.channel import OutputGuard, Search
from gai_fast.guards.stages.judging import JudgeStage
from gai_fast.guards.stages.stage import GuardStage
from gai_fast.model.errors import Error
from gai_fast.model.events import Event


def output_stage(
    guards: Sequence[ActiveGuard], info: StreamInfo, placeholders: Placeholders | None, counts: GuardCounts
) -> Processor | None:
    """Returns the stage of a stream. None if no guard looks at its output, and no own words come back.

    Args:
        guards: The guards that hold for the stream, in the order of the configuration.
        info: The stream.
        placeholders: What its upstream got in place of own words. None if no guard restores.
        counts: Counts what the guards do.
    """
    turn = SearchTurn(info.caller)
    matching: list[OutputGuard] = []
    judging: list[ActiveGuard] = []
    for each in guards:
        if not each.sees("output"):
            continue
        if each.automaton is not None:
            matching.append(MatchGuard(each, each.automaton, info, counts, turn))
        else:
            judging.append(each)
    stages: list[Processor] = []
    if judging:
        if matching:
            stages.append(GuardStage(matching, turn))
        stages.append(JudgeStage(judging, info, counts))
        matching = []
    if placeholders is not None:
        matching.append(RestoreGuard(placeholders))
    if matching:
        stages.append(GuardStage(matching, None if judging else turn))  # own words are soon found
    if len(stages) < 2:
        return stages[0] if stages else None
    return Stages(stages)


class MatchGuard:
    """A guard that finds matches itself; as `OutputGuard`.

    Args:
        guard: The guard.
        automaton: Its automaton.
        stream: The stream.
        counts: As of `output_stage`.
        turn: What all searches of the stream may take in a turn of the loop.
    """

    def __init__(
        self, guard: ActiveGuard, automaton: Automaton, stream: StreamInfo, counts: GuardCounts, turn: SearchTurn
    ) -> None:
        self._turn = turn
        self._guard = guard
        self._automaton = automaton
        self._stream = stream
        self._counts = counts
        self.name = guard.name
        self.action: Literal["mask", "stop", "flag", "restore"] = guard.settings.action
        self._is_flag = guard.settings.action == "flag"

    def category_of(self, found: str) -> str:
        """Works as `OutputGuard.category_of`."""
        return self._guard.settings.category_of(found)

    def replacement_of(self, found: str) -> str:
        """Works as `OutputGuard.replacement_of`."""
        return self._guard.settings.replacement_of(found)

    @property
    def fails_open(self) -> bool:
        """Whether text passes that is not searched."""
        return self._guard.settings.fails_open

    def failed(self) -> None:
        """Works as `OutputGuard.failed`."""
        self._counts.failed(self.name)

    def met(self) -> None:
        """Counts a match. A stop has an audit line."""
        self._counts.acted(self.name, "output", self.action)
        if self.action == "stop":
            self._counts.stopped(self.name, "output", self._stream.stream_id, self._stream.caller)

    def scan(self) -> Search:
        """Works as `OutputGuard.scan`."""
        return self._automaton.scan(holds=not self._is_flag, turn=self._turn)

    def scan_arguments(self) -> ArgumentSearch:
        """Works as `OutputGuard.scan_arguments`."""
        scan = self._automaton.scan(holds=not self._is_flag, turn=self._turn)
        return ArgumentSearch(scan, holds=not self._is_flag, turn=self._turn)


class RestoreGuard:
    """Puts own words in the place of the placeholders that the upstream got for them; as `OutputGuard`.

    Args:
        placeholders: The placeholders of the request.
    """

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders
        self.name = ""
        self.action: Literal["mask", "stop", "flag", "restore"] = "restore"

    def category_of(self, found: str) -> str:
        """Returns the placeholder."""
        return found

    def replacement_of(self, found: str) -> str:
        """Returns the own words of a placeholder."""
        return self._placeholders.value(found) or found

    @property
    def fails_open(self) -> bool:
        """False: own words are soon found, and there is no such failure."""
        return False

    def failed(self) -> None:
        """Counts nothing; as `fails_open`."""

    def met(self) -> None:
        """Counts nothing: own words are no match."""

    def scan(self) -> Search:
        """Works as `OutputGuard.scan`."""
        return Restorer(self._placeholders)

    def scan_arguments(self) -> ArgumentSearch:
        """Works as `OutputGuard.scan_arguments`."""
        return ArgumentSearch(Restorer(self._placeholders))


class Stages(Processor):
    """Several stages in order, as one processor.

    Args:
        stages: The stages.
    """

    hides_scores: ClassVar[bool] = True

    def __init__(self, stages: Sequence[Processor]) -> None:
        self._chain = Chain(stages)

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Passes an event through all stages; raises as theirs."""
        return self._chain.process(event, now_ms)

    @property
    def due_ms(self) -> int | None:
        """The earliest time of a stage."""
        return self._chain.due_ms

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        """Flushes the stages that are due."""
        return self._chain.flush(now_ms)

    @property
    def holds(self) -> bool:
        """Whether a stage holds text."""
        return self._chain.holds

    @property
    def waiting(self) -> int:
        """The characters that wait for a verdict."""
        return self._chain.waiting

    def release(self, now_ms: int = 0) -> Iterable[Event]:
        """Releases the stages, up to one that still waits for a verdict."""
        return self._chain.release(now_ms)

    def announce(self, finish: Event, now_ms: int = 0) -> Event:
        """Announces the `finish` to all stages."""
        return self._chain.announce(finish, now_ms)

    def told(self, error: Error) -> Error:
        """Returns an error as all stages let it be read."""
        return self._chain.told(error)

    def connect(self, wake: Callable[[], None] | None) -> None:
        """Connects the stages with the stream."""
        self._chain.connect(wake)
