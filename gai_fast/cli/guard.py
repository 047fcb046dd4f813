"""`gai-fast guard`: tries the guards of a configuration on a text."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import click

from gai_fast.cli import (
    ConfigFailure,
    Failure,
    config_option,
    json_option,
    load_config,
    log_bugs_only,
    option,
    print_json,
)
from gai_fast.cli.limits import LIMITS
from gai_fast.config.problems import nearest, shown
from gai_fast.guards import growth
from gai_fast.guards.automaton import Match
from gai_fast.guards.building import build
from gai_fast.guards.joined import JoinedTexts
from gai_fast.guards.restore import Placeholders
from gai_fast.guards.verdicts import Channel, Failed, JudgeVerdict, Question
from gai_fast.model.settings import GuardSettings, GuardSide, JudgeSettings, Settings

_CHANNELS: Final[dict[GuardSide, Channel]] = {"input": "input", "output": "text"}
"""What judges are told of a text; other texts are of calls."""


@click.group()
def command() -> None:
    """Try guards on a text."""


@command.command()
@config_option
@option("--guard", "name", metavar="NAME", help="This guard alone; by default all, in their order.")
@option(
    "--on",
    type=click.Choice(get_args(GuardSide)),
    help="What the text is: sent by a caller or a model, for a tool or by one; by default output, else input.",
)
@json_option
def test(config_path: Path | None, name: str | None, on: GuardSide | None, json: bool) -> None:
    """Read a text, and print what guards find in it and what passes.

    The text comes from the standard input. Models and callers of a guard do not count. Exit code 1: a judge has failed;
    2: there is no such guard.
    """
    settings = load_config(config_path).settings
    guards = _chosen(settings, name)
    side = on or ("output" if any("output" in each.on for each in guards) else "input")
    for each in guards:
        if side not in each.on:
            click.echo(f"guard {each.name} does not see {side}", err=True)
    for warning in growth.warnings(guards):
        click.echo(f"warning: {warning}", err=True)
    tried = _Trial([each for each in guards if side in each.on], _text(), side)
    tried.match()
    if tried.judged:
        from gai_fast.cli.serve import run_async

        log_bugs_only()
        run_async(tried.ask())
    for failure in tried.failures:
        click.echo(failure, err=True)
    if json:
        print_json({"matches": [each.members() for each in tried.found], "text": tried.text})
    else:
        for found in tried.found:
            click.echo(f"{found.guard}  {found.category}  {found.start}-{found.end}  {found.action}")
        click.echo(("\n" if tried.found else "") + tried.text, nl=not tried.text.endswith("\n"))
    if tried.failures:
        raise click.exceptions.Exit(Failure.exit_code)


def _chosen(settings: Settings, name: str | None) -> list[GuardSettings]:
    names = [each.name for each in settings.guards]
    if not names:
        raise ConfigFailure("there is no [[guard]]: name a configuration that has one by --config")
    if name is not None and name not in names:
        raise ConfigFailure(f"no [[guard]] is named {shown(name)}{nearest(name, names)}")
    return [each for each in settings.guards if name in (None, each.name)]


def _text() -> str:
    """Reads the standard input to its end."""
    data = sys.stdin.buffer.read(LIMITS.guarded_text + 1)
    if len(data) > LIMITS.guarded_text:
        raise Failure(f"the text is larger than {LIMITS.guarded_text} bytes")
    return data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ShownMatch:
    """A match.

    Attributes:
        guard: The guard's name.
        category: The category.
        start: The index of its first character in the text that the guard saw.
        end: The index behind its last one.
        action: What happens to it.
    """

    guard: str
    category: str
    start: int
    end: int
    action: str

    def members(self) -> dict[str, Any]:
        """Returns the match as it is printed."""
        where = {"from": self.start, "to": self.end}
        return {"guard": self.guard, "category": self.category, **where, "action": self.action}


@dataclass(slots=True)
class _Trial:
    """One text, and what guards do to it: first those that find matches, one behind the other, then all judges."""

    guards: Sequence[GuardSettings]
    text: str
    side: GuardSide
    found: list[ShownMatch] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def judged(self) -> dict[str, JudgeSettings]:
        """The judges to ask, by guard. None if nothing is left to judge."""
        return {each.name: each.judge for each in self.guards if each.judge is not None and self.text}

    def match(self) -> None:
        """Searches the text."""
        placeholders = Placeholders([self.text])
        for guard in self.guards:
            if guard.judge is None and self.text:
                self.text = self._passed(guard, placeholders)

    def _passed(self, guard: GuardSettings, placeholders: Placeholders) -> str:
        """Returns what a guard lets through."""
        passed: list[str] = []
        scan = build(guard).scan()
        for piece in (*scan.feed(self.text), *scan.end()):
            if not isinstance(piece, Match):
                passed.append(piece)
                continue
            start, end, kind = piece.start, piece.end, piece.category
            self.found.append(ShownMatch(guard.name, guard.category_of(kind), start, end, guard.action))
            if guard.action == "stop":
                return self._before("".join(passed))
            own = self.text[start:end]
            placeholder = placeholders.issue(kind, own) if guard.restore and self.side == "input" else None
            passed.append(own if guard.action == "flag" else placeholder or guard.replacement_of(kind))
        return "".join(passed)

    def _before(self, passed: str) -> str:
        """Returns what has passed before a stop: an answer's beginning; of a request nothing."""
        return passed if self.side == "output" else ""

    async def ask(self) -> None:
        """Asks the judges, all at once."""
        from gai_fast.net.judges.input_check import judge_input
        from gai_fast.net.judges.judges import Judges
        from gai_fast.runtime.timers import TimerWheel

        loop = asyncio.get_running_loop()
        judges = Judges(TimerWheel(loop), loop)
        try:
            used = judges.use(self.judged)
            whole = JoinedTexts([self.text])
            channel = _CHANNELS.get(self.side, "tool_call")
            asked = [
                judge_input(judge, Question(name, self.side, channel, self.text), whole.pieces())
                for name, judge in used.items()
            ]
            answers = dict(zip(used, await asyncio.gather(*asked), strict=True))
        except ValueError as problem:
            raise ConfigFailure(str(problem)) from None
        finally:
            await judges.close()
        sizes = {start: len(piece) for start, piece in whole.pieces()}
        self._take([(guard, answers[guard.name]) for guard in self.guards if guard.name in answers], sizes)

    def _take(
        self, answers: list[tuple[GuardSettings, list[tuple[int, JudgeVerdict | Failed]]]], sizes: dict[int, int]
    ) -> None:
        """Does what follows from the answers.

        Args:
            answers: The answers for each guard, each with the begin of its piece.
            sizes: The size of each piece, by its begin.
        """
        edits: list[tuple[int, int, str]] = []
        stop, is_closed = len(self.text), False
        for guard, pieces in answers:
            assert guard.judge is not None
            for begin, answer in pieces:
                if isinstance(answer, Failed):
                    self.failures.append(f"guard {guard.name}: {answer.text}")
                    is_closed = is_closed or not guard.judge.fails_open
                elif answer.flagged:
                    category = answer.category or ""
                    for start, end in answer.spans or ((0, sizes[begin]),):
                        at = begin + start, begin + end
                        # Arguments are not masked by what a judge says: the call is stopped.
                        is_stop = guard.action == "mask" and self.side == "tool_input"
                        action = "stop" if is_stop else guard.action
                        self.found.append(ShownMatch(guard.name, guard.category_of(category), *at, action))
                        if action == "mask":
                            edits.append((*at, guard.replacement_of(category)))
                        elif action == "stop":
                            stop = min(stop, at[0])
        is_stopped = any(each.action == "stop" and each.guard in self.judged for each in self.found)
        [masked] = JoinedTexts([self.text[:stop]]).masked([each for each in edits if each[0] < stop])
        self.text = "" if is_closed else self._before(masked) if is_stopped else masked
