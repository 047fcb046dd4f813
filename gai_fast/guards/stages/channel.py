"""One text of a stream before its guards: a choice's text, reasoning or refusal, or the arguments of a call.

Owns the order: each guard sees what the one before has let through, and an event leaves behind the text that stood
before it, in its place. Knows neither types of events nor actions beyond these four.

A `GuardLine` is one guard's search of the text. What passes between two lines is a list of items: text, events that
wait for their turn, and `STOP` behind the event of a match that ends the stream; nothing follows it. Of events that
wait, no more than `limits.behind` are kept: then they pass before the held text, which waits for more text alone.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, Protocol

from gai_fast.guards.limits import LIMITS
from gai_fast.guards.outcomes import safety
from gai_fast.guards.stages.changed import size_of
from gai_fast.model.events import Event


class Finding(Protocol):
    """A match."""

    @property
    def category(self) -> str:
        """The category of the matched text."""

    @property
    def end(self) -> int:
        """The index behind its last character in the text."""


class Search(Protocol):
    """The search of one text, as `automaton.Scan`, `arguments.ArgumentSearch` and `restore.Restorer`."""

    @property
    def held(self) -> int:
        """The number of characters that are held."""

    @property
    def behind(self) -> int:
        """The number of characters for which no turn had room. `feed` goes on with them, with more text or none."""

    @property
    def certain(self) -> Finding | None:
        """The match that has begun and may become longer. None if there is none, or it is known at its end alone."""

    def feed(self, text: str) -> Sequence[str | Finding]:
        """Returns what the next piece of the text decides: text that passes, and matches in place of their text."""

    def end(self) -> Sequence[str | Finding]:
        """Returns what the end of the text decides. The next piece is the beginning of another text."""


class ArgumentsSearch(Search, Protocol):
    """The search of a call's arguments, as `arguments.ArgumentSearch`."""

    @property
    def is_text(self) -> bool:
        """Whether the arguments are no JSON: what replaces a match is then not escaped."""


class OutputGuard(Protocol):
    """One guard of a stream's output."""

    @property
    def name(self) -> str:
        """The guard's name."""

    @property
    def action(self) -> Literal["mask", "stop", "flag", "restore"]:
        """The reaction to a match. `restore` replaces it without an event."""

    def category_of(self, found: str) -> str:
        """Returns the category of a match; `found` is that of its search."""

    def replacement_of(self, found: str) -> str:
        """Returns what replaces a match; as `category_of`."""

    @property
    def fails_open(self) -> bool:
        """Whether text passes that is not searched."""

    def met(self) -> None:
        """Counts a match."""

    def failed(self) -> None:
        """Counts that text is not searched."""

    def scan(self) -> Search:
        """Returns the search of a text. That of a `flag` holds nothing: its text passes before its match."""

    def scan_arguments(self) -> ArgumentsSearch:
        """Returns the search of a call's arguments, which are JSON as a rule; as `scan`."""


class Stopped:
    """The type of `STOP`."""


STOP: Final = Stopped()
"""Ends a list of items: a guard ends the stream."""

Item = str | Event | Stopped


class GuardLine:
    """One guard's search of one text.

    Args:
        guard: The guard.
        choice: The choice of the text.
        is_json: Whether the text is JSON, or arguments of a call.
        is_told: Whether the stream has the events of its matches already.
    """

    def __init__(self, guard: OutputGuard, choice: int, *, is_json: bool, is_told: bool) -> None:
        self.guard = guard
        self.changes = 0
        """The matches that were masked."""
        self.restored = 0
        """The own words that came back."""
        self._choice = choice
        self._is_json = is_json
        self._is_told = is_told
        self._arguments = guard.scan_arguments() if is_json else None
        self._search: Search = self._arguments or guard.scan()
        self._fed = 0
        self._passed = 0
        self._marks: deque[tuple[int, Event]] = deque()  # the events that wait, each with its place in the text
        self._waiting = 0  # their size

    @property
    def holds(self) -> bool:
        """Whether text is held, or events wait behind it."""
        return bool(self._marks) or self._is_undecided

    @property
    def _is_undecided(self) -> bool:
        """Whether text is held, or a match grows whose replacement was not sent."""
        search = self._search
        return search.held > 0 or search.behind > 0 or (self.guard.action == "mask" and search.certain is not None)

    @property
    def behind(self) -> int:
        """The characters for which no turn had room."""
        return self._search.behind

    def take(self, items: Sequence[Item]) -> list[Item]:
        """Returns what leaves of the next items, or of earlier ones."""
        out: list[Item] = []
        for item in items:
            if isinstance(item, str):
                self._fed += len(item)
                if self._place(self._search.feed(item), out) or self._is_certain(out):
                    break
            elif isinstance(item, Stopped):
                out += self.end()
                if not out or out[-1] is not STOP:
                    out.append(STOP)
                break
            elif self.holds:
                self._marks.append((self._fed, item))
                self._waiting += size_of(item)
                if self._waiting > LIMITS.behind:
                    out += [event for _, event in self._marks]
                    self._marks.clear()
                    self._waiting = 0
            else:
                out.append(item)
        return out

    def end(self) -> list[Item]:
        """Ends the text. Returns what was held."""
        out: list[Item] = []
        if not self._place(self._search.end(), out):
            out += [event for _, event in self._marks]
        self._marks.clear()
        self._waiting = 0
        self._fed = self._passed = 0
        return out

    def _place(self, pieces: Sequence[str | Finding], out: list[Item]) -> bool:
        """Adds what the search has decided, with the events in between. Returns whether the stream must end."""
        for piece in pieces:
            if isinstance(piece, str):
                self._pass(piece, out)
            elif self._meet(piece, out):
                return True
        if self._is_json and not self._is_undecided:
            self._passed = self._fed
        while self._marks and self._marks[0][0] <= self._passed:
            out.append(self._next_mark())
        return False

    def _is_certain(self, out: list[Item]) -> bool:
        """Returns whether a match that may become longer ends the stream: how long it becomes does not matter."""
        certain = self._search.certain if self.guard.action == "stop" else None
        return certain is not None and self._meet(certain, out)

    def _pass(self, text: str, out: list[Item]) -> None:
        if self._is_json:  # its matches have places in their own strings: events wait for all of it
            out.append(text)
            return
        start = self._passed
        end = self._passed = start + len(text)
        cut = start
        while self._marks and self._marks[0][0] < end:
            at = self._marks[0][0]
            if at > cut:
                out.append(text[cut - start : at - start])
                cut = at
            out.append(self._next_mark())
        if end > cut:
            out.append(text[cut - start :])

    def _next_mark(self) -> Event:
        event = self._marks.popleft()[1]
        self._waiting -= size_of(event)
        return event

    def _meet(self, match: Finding, out: list[Item]) -> bool:
        """Adds what a match becomes. Returns whether the stream must end."""
        guard = self.guard
        action, found = guard.action, match.category
        if action == "mask" or action == "restore":
            replacement = guard.replacement_of(found)
            is_escaped = self._arguments is not None and not self._arguments.is_text
            out.append(json.dumps(replacement, ensure_ascii=False)[1:-1] if is_escaped else replacement)
            if not self._is_json:
                self._passed = max(self._passed, match.end)
        if action == "restore":
            self.restored += 1
            return False
        self.changes += action == "mask"
        if self._is_told:
            return False
        guard.met()
        out.append(safety(guard.name, action, guard.category_of(found), "output", choice=self._choice))
        if action == "stop":
            out.append(STOP)
        return action == "stop"


class Channel:
    """The guards of one text, in their order.

    Args:
        guards: The guards.
        choice: The choice of the text.
        is_json: Whether the text is the arguments of a call.
        is_told: As of `GuardLine`.
    """

    def __init__(
        self, guards: Sequence[OutputGuard], choice: int, *, is_json: bool = False, is_told: bool = False
    ) -> None:
        self._lines = [GuardLine(guard, choice, is_json=is_json, is_told=is_told) for guard in guards]
        self._ended = -1
        """The lines that have ended, if the text ends in several turns; else -1."""
        self.delta: Event = {"type": ""}
        """The last delta of the text: what leaves is like it."""

    @property
    def holds(self) -> bool:
        """Whether text is held, or events wait behind it."""
        return any(line.holds for line in self._lines)

    @property
    def changes(self) -> int:
        """The matches that were masked so far."""
        found = 0
        for line in self._lines:
            found += line.changes
        return found

    @property
    def restored(self) -> int:
        """The own words that came back so far."""
        found = 0
        for line in self._lines:
            found += line.restored
        return found

    def take(self, item: str | Event) -> list[Item]:
        """Returns what leaves when a piece of the text comes, or an event behind it."""
        items: list[Item] = [item]
        for line in self._lines:
            items = line.take(items)
        return items if len(items) < 2 else _joined(items)

    @property
    def behind(self) -> int:
        """The characters for which no turn had room."""
        found = 0
        for line in self._lines:
            found += line.behind
        return found

    def go_on(self) -> list[Item]:
        """Returns what leaves of the text for which no turn had room. Those behind the last such guard go on first."""
        items: list[Item] = []
        has_begun = False
        last = max([at for at, line in enumerate(self._lines) if line.behind], default=0)
        for line in self._lines[last:]:
            items = line.take(items if has_begun else [""])
            has_begun = True
        if self._ended >= 0 and not self.behind:
            items += self._end_lines()
        return items if len(items) < 2 else _joined(items)

    def end(self) -> list[Item]:
        """Ends the text. Returns what was held; what no turn has room for stays `behind`, and ends with it."""
        self._ended = 0
        items = self._end_lines()
        return items if len(items) < 2 else _joined(items)

    def _end_lines(self) -> list[Item]:
        """Ends one line after the other, up to one for whose text no turn has room."""
        items: list[Item] = []
        for at, line in enumerate(self._lines):
            items = line.take(items)
            if at < self._ended or self.behind:
                continue
            self._ended = at + 1
            if not items or items[-1] is not STOP:
                items += line.end()
        if not self.behind:
            self._ended = -1
        return items


def _joined(items: list[Item]) -> list[Item]:
    """Returns the items with neighbouring texts as one: each text that leaves is a delta."""
    joined: list[Item] = []
    for item in items:
        last = joined[-1] if joined else None
        if isinstance(item, str) and isinstance(last, str):
            joined[-1] = last + item
        else:
            joined.append(item)
    return joined
