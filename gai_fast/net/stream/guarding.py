"""The guards of one engine's streams: which configuration's, their automata and judges, and what they count.

Owns what a reload keeps: an automaton whose lists are the same, and a judge whose settings are. Running streams keep
theirs. `guards/` has what guards do, `net/judges/` asks judges.

Automata are built in a thread (`build`), which lets the loop go on every few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from gai_fast.core.processing.processor import Processor, StreamInfo
from gai_fast.core.requests.texts import names_tokens, texts_of, with_texts
from gai_fast.guards.active import ActiveGuard, Guards
from gai_fast.guards.automaton import Automaton
from gai_fast.guards.building import build
from gai_fast.guards.input import InputCheck, LetThrough
from gai_fast.guards.outcomes import TOKENS, closed
from gai_fast.guards.restore import Placeholders
from gai_fast.guards.stages.output import output_stage
from gai_fast.model.errors import SetupError
from gai_fast.model.request import Request
from gai_fast.model.settings import GuardSettings, Settings
from gai_fast.net.judges.input_check import InputChecks
from gai_fast.net.judges.judges import Judges
from gai_fast.net.stream.new_texts import new_texts
from gai_fast.runtime.beside import breathing
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.timers import Timers

Built = Sequence[tuple[GuardSettings, Automaton]]
"""Automata, each with the settings of its guard."""


class GuardError(SetupError):
    """A guard of a configuration cannot be used; the text names it."""


class GuardTallies:
    """Counts what the guards of one process do; as `GuardCounts`.

    Attributes:
        actions: Matches, by guard, side and action.
        failures: Judges that gave no verdict, and searches that were given up, by guard.
        note_delay: Measures for how long a text waited, in seconds, by guard.
        audit: Writes the audit line of a stop; as `GuardCounts.stopped`.
    """

    def __init__(self) -> None:
        self.actions: Counter[tuple[str, str, str]] = Counter()
        self.failures: Counter[str] = Counter()
        self.note_delay: Callable[[str, float], None] | None = None
        self.audit: Callable[[str, str, str, str], None] | None = None

    def expect(self, guard: GuardSettings) -> None:
        """Starts the counts of a guard at 0: a rate does not see the first increase of a count that did not exist."""
        for side in guard.on:
            self.actions[guard.name, side, guard.action] += 0
        if guard.judge is not None or guard.patterns:
            self.failures[guard.name] += 0

    def acted(self, guard: str, on: str, action: str) -> None:
        """Works as `GuardCounts.acted`."""
        self.actions[guard, on, action] += 1

    def failed(self, guard: str) -> None:
        """Works as `GuardCounts.failed`."""
        self.failures[guard] += 1

    def delayed(self, guard: str, seconds: float) -> None:
        """Works as `GuardCounts.delayed`."""
        if self.note_delay is not None:
            self.note_delay(guard, seconds)

    def stopped(self, guard: str, on: str, stream_id: str, caller: str) -> None:
        """Works as `GuardCounts.stopped`."""
        if self.audit is not None:
            self.audit(guard, on, stream_id, caller)


class StreamGuards:
    """The guards of new streams; as `ProcessorSettings` it makes the stage of a stream's output.

    Args:
        timers: The loop's timers.
        loop: The running loop.

    Attributes:
        guards: The guards. None if the configuration has none.
        tallies: Counts what guards do.
    """

    def __init__(self, timers: Timers, loop: asyncio.AbstractEventLoop) -> None:
        self.guards: Guards | None = None
        self.tallies = GuardTallies()
        self._timers = timers
        self._loop = loop
        self._judges: Judges | None = None
        self._checks: InputChecks | None = None

    # -- configurations --

    def must_build(self, settings: Settings) -> bool:
        """Returns whether a configuration has lists whose automaton is not there."""
        known = self._built()
        return any(each.judge is None and _find(known, each) is None for each in settings.guards)

    def build(self, settings: Settings) -> Built:
        """Builds the automata of a configuration that are not there yet; takes long, and may do so in a thread.

        Args:
            settings: The configuration.

        Raises:
            GuardError: A guard cannot be used.
        """
        known, found = self._built(), list[tuple[GuardSettings, Automaton]]()
        for each in settings.guards:
            if each.judge is None and _find([*known, *found], each) is None:
                try:
                    found.append((each, build(each, pause=breathe)))
                except ValueError as problem:
                    raise GuardError(f"guard {each.name!r}: {problem}") from None
        return found

    async def prepare(self, settings: Settings) -> Built:
        """Builds as `build`, in a thread, if there is something to build."""
        if not self.must_build(settings):
            return ()
        return await self._loop.run_in_executor(None, breathing, partial(self.build, settings))

    async def begin(self, settings: Settings, use: Callable[[Built], None]) -> None:
        """Prepares the first configuration, and lets it be used."""
        use(await self.prepare(settings))

    def use(self, settings: Settings, built: Built = ()) -> None:
        """Uses a configuration for new streams. What was not built before is built now.

        Args:
            settings: The configuration.
            built: The result of `build`.

        Raises:
            GuardError: A guard cannot be used: nothing changes.
        """
        known = [*self._built(), *built]
        if any(each.judge is None and _find(known, each) is None for each in settings.guards):
            known += self.build(settings)
        asked = {each.name: each.judge for each in settings.guards if each.judge is not None}
        if asked and self._judges is None:
            self._judges = Judges(self._timers, self._loop)
        try:
            judges = {} if self._judges is None else self._judges.use(asked)
        except ValueError as problem:
            raise GuardError(str(problem)) from None
        active = [ActiveGuard(each, _find(known, each), judges.get(each.name)) for each in settings.guards]
        self.guards = Guards(settings, active) if active else None
        for each in settings.guards:
            self.tallies.expect(each)

    async def close(self) -> None:
        """Fails all questions to judges, and closes their connections."""
        if self._judges is not None:
            await self._judges.close()

    def _built(self) -> Built:
        active = () if self.guards is None else self.guards.active
        return [(each.settings, each.automaton) for each in active if each.automaton is not None]

    # -- streams --

    def processor(self, stream: StreamInfo) -> Processor | None:
        """Returns the stage of a stream's output. None if no guard looks at it, and no own words come back.

        Args:
            stream: The stream.
        """
        guards = self.guards
        active = () if guards is None else guards.for_request(stream.model, stream.caller)
        placeholders = cast("Placeholders | None", stream.placeholders)
        if not active and placeholders is None:
            return None
        return output_stage(active, stream, placeholders, self.tallies)

    async def let_through(self, request: Request, info: StreamInfo) -> tuple[Request, LetThrough | None]:
        """Returns what guards let through of a native request, and what is said of it.

        Args:
            request: The request.
            info: Whose request it is.

        Raises:
            Error: A guard does not let the request through.
        """
        guards = self.guards
        active = () if guards is None else guards.for_request(info.model, info.caller)
        looking = [each for each in active if each.sees("input")]
        if not looking:
            return request, None
        if names_tokens(request):
            raise closed(looking[0].name, TOKENS)
        texts = texts_of(request)
        strings = [string for text in texts for string in text.strings]
        check = InputCheck(looking, strings, info, self.tallies)
        await self.finish(check)
        new = new_texts(texts, check)
        return (request if new is None else with_texts(request, new.sent, new.left_out)), check.let_through()

    async def finish(self, check: InputCheck) -> None:
        """Finishes a check; as `InputChecks.run`.

        Raises:
            Error: A guard does not let the request through.
        """
        if self._checks is None:
            self._checks = InputChecks(self.tallies)
        await self._checks.run(check)


def _find(known: Built, guard: GuardSettings) -> Automaton | None:
    """Returns the automaton of equal lists."""
    if guard.judge is not None:
        return None
    for settings, automaton in known:
        if _lists(settings) == _lists(guard):
            return automaton
    return None


def _lists(guard: GuardSettings) -> tuple[object, ...]:
    """Returns all that an automaton depends on."""
    return guard.use, guard.category_of(), guard.normalize, guard.kinds, guard.patterns, guard.words
