"""The guards of one run's calls: what tools get, what is known of their results, and why a person has denied them.

Owns where the texts of a call stand, and what follows if a guard does not let them through. `guards/input.py` has what
guards do with texts.

1. Arguments are checked before anything else is done with a call. A result is checked before anybody has it: record,
   log, client and model get what was let through.
2. Texts are each string and each key of JSON, and the texts among the parts of a result. Others stay as they came.
3. What a guard stops, or cannot judge while it is closed, is a result that is an error. It names the guard, and repeats
   nothing of the text.
4. A notice of progress comes without its text if that must wait: for a judge, or for a turn of the loop.
5. A masked result is cut again: replacements may be longer than their matches.
6. The reason of a denial is a text of the caller's that a model reads: guards of input look at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.texts import Text
from gai_fast.core.run import CallResult, RunCall
from gai_fast.guards.active import ActiveGuard, GuardCounts
from gai_fast.guards.input import InputCheck
from gai_fast.guards.outcomes import FAILED
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.net.limits import LIMITS
from gai_fast.net.stream.guarding import StreamGuards
from gai_fast.runtime.beside import breathing
from gai_fast.runtime.breathing import breathe

Tell = Callable[[Sequence[Event]], object]
"""Sends events: what is said of texts."""

_T = TypeVar("_T")
_NOT_JSON: Final = "its result has a number that JSON has no form for"


class _Found(NamedTuple):
    """The texts of a value and of the parts beside it.

    Attributes:
        value: The texts of the value.
        strings: All texts, those of the value first.
        places: The places of the parts that are texts.
    """

    value: Text
    strings: list[str]
    places: list[int]


class RunGuards:
    """The guards of one run. Belongs to one loop.

    Args:
        guards: The guards that hold for the run.
        info: The stream of the run.
        counts: Counts what they do.
        finish: Finishes a check; as `StreamGuards.finish`.
        tell: Called with what is said of the texts.
    """

    def __init__(
        self,
        guards: Sequence[ActiveGuard],
        info: StreamInfo,
        counts: GuardCounts,
        finish: Callable[[InputCheck], Awaitable[None]],
        tell: Tell,
    ) -> None:
        self._of_callers = [each for each in guards if each.sees("input")]
        self._of_input = [each for each in guards if each.sees("tool_input")]
        self._of_results = [each for each in guards if each.sees("tool_result")]
        self._info = info
        self._counts = counts
        self._finish = finish
        self._tell = tell

    @classmethod
    def of_run(cls, guarding: StreamGuards, info: StreamInfo, tell: Tell) -> RunGuards | None:
        """Returns the guards of a run's calls. None if no guard looks at them.

        Args:
            guarding: The guards of the configuration.
            info: The stream of the run.
            tell: Called with what is said of arguments and results.
        """
        guards = guarding.guards
        active = () if guards is None else guards.for_request(info.model, info.caller)
        looking = [each for each in active if each.sees_any(("input", "tool_input", "tool_result"))]
        return cls(looking, info, guarding.tallies, guarding.finish, tell) if looking else None

    @property
    def sees_input(self) -> bool:
        """Whether a guard looks at arguments."""
        return bool(self._of_input)

    async def arguments(self, call: RunCall) -> tuple[Any, CallResult | None]:
        """Returns what guards let through of a call's arguments: rule 1.

        Args:
            call: The call.

        Returns:
            The arguments, and the result of the call if it must not be made.
        """
        value = call.arguments
        try:
            found = await _in_turns(_size_of(value, ()), partial(_texts_of, value, ()))
            check = InputCheck(self._of_input, found.strings, self._info, self._counts, "tool_input")
            await self._run(check)
            return (await self._written(check, found, value))[0], None
        except Error as problem:
            return value, _stopped(f"the call was not made: {_reason(problem, 'these arguments')}")

    async def result(self, result: CallResult) -> CallResult:
        """Returns what guards let through of a result: rule 1."""
        if not self._of_results:
            return result
        value, parts = result.value, result.parts
        try:
            found = await _in_turns(_size_of(value, parts), partial(_texts_of, value, parts))
            check = InputCheck(self._of_results, found.strings, self._info, self._counts, "tool_result")
            await self._run(check)
            let, texts = await self._written(check, found, value)
        except ValueError:
            return replace(_stopped(_NOT_JSON), duration_ms=result.duration_ms)
        except Error as problem:
            text = f"the call was made, and {_reason(problem, 'its result')}"
            return replace(_stopped(text), duration_ms=result.duration_ms)
        if not check.changed:
            return result
        let_parts: list[Mapping[str, Any]] = [*parts]
        for place, text in zip(found.places, texts, strict=True):
            let_parts[place] = {**parts[place], "text": text}
        return _cut(replace(result, value=let, parts=tuple(let_parts)))

    async def reason(self, text: str) -> str:
        """Returns what guards let through of a denial's reason; why not, if they do not: rule 6."""
        if not self._of_callers or not text:
            return text
        check = InputCheck(self._of_callers, [text], self._info, self._counts, is_late=True)
        try:
            await self._run(check)
        except Error as problem:
            return _reason(problem, "its reason")
        return check.texts[0]

    def progress(self, text: str) -> str:
        """Returns what is let through of a notice of progress; empty for nothing: rule 4."""
        if not self._of_results or not text:
            return text
        check = InputCheck(self._of_results, [text], self._info, self._counts, "tool_result")
        if check.judges:
            return ""
        try:
            if not check.turn():
                return ""
        except Error as problem:
            if problem.reason != FAILED:
                self._tell(check.said(problem.guard or ""))
            return ""
        self._say(check)
        return check.texts[0]

    async def _run(self, check: InputCheck) -> None:
        """Has texts checked.

        Raises:
            Error: A guard does not let them through.
        """
        try:
            await self._finish(check)
        except Error as problem:
            if problem.reason != FAILED:
                self._tell(check.said(problem.guard or ""))
            raise
        self._say(check)

    def _say(self, check: InputCheck) -> None:
        let = check.let_through()
        if let is not None and let.said:
            self._tell(let.said)

    async def _written(self, check: InputCheck, found: _Found, value: Any) -> tuple[Any, list[str]]:
        """Returns a value with what was let through of its texts, and the texts of the parts beside it."""
        if not check.changed:
            return value, []
        size = len(found.value.strings)
        strings = check.texts[:size]
        if isinstance(value, str):
            return strings[0], check.texts[size:]
        let = await _in_turns(len(found.value.source), partial(_rewritten, found.value, strings))
        return let, check.texts[size:]


def _size_of(value: Any, parts: Sequence[Mapping[str, Any]]) -> int:
    """Returns the characters of a call's texts, with those of JSON around them.

    Raises:
        ValueError: The value is not JSON.
    """
    size = len(value) if isinstance(value, str) else len(encode_json(value))
    return size + sum(len(part["text"]) for part in parts if part["type"] == "text")


def _texts_of(value: Any, parts: Sequence[Mapping[str, Any]]) -> _Found:
    """Returns the texts of a value and of parts: rule 2."""
    is_text = isinstance(value, str)
    text = Text((), value) if is_text else Text((), encode_json(value).decode(), "json", pause=breathe)
    places = [at for at, part in enumerate(parts) if part["type"] == "text"]
    return _Found(text, [*text.strings, *[parts[at]["text"] for at in places]], places)


def _rewritten(text: Text, strings: Sequence[str]) -> Any:
    """Returns a JSON value with other texts."""
    written: str = text.with_strings(strings)
    try:
        return parse_exact(written)
    except ValueError:  # too deep for a parser, which has left it as one text
        return written


async def _in_turns(size: int, work: Callable[[], _T]) -> _T:
    """Does work on texts: at once if they are short, else in a thread, which lets the loop go on."""
    if size <= LIMITS.tool_texts:
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, breathing, work)


def _cut(result: CallResult) -> CallResult:
    """Returns a masked result within the bound of all results: rule 5."""
    most = SHARED.tool_problem if result.is_error else SHARED.tool_result_most
    value = result.value
    written = value if isinstance(value, str) else encode_json(value).decode()
    data = written.encode("utf-8", "replace")
    size = len(data) + sum(len(part.get("text", "")) for part in result.parts)
    if size <= most:
        return result
    parts = tuple(part for part in result.parts if part["type"] != "text")
    return replace(result, value=data[:most].decode("utf-8", "ignore"), parts=parts, is_truncated=True)


def _reason(problem: Error, what: str) -> str:
    """Returns why a guard does not let a text through: rule 3."""
    if problem.reason == FAILED:
        return f"the guard {problem.guard!r} cannot judge {what} now"
    return f"the guard {problem.guard!r} does not let {what} through"


def _stopped(text: str) -> CallResult:
    return CallResult(text, is_error=True)
