"""The guards of a stream's output: what must not be said is replaced, ends the stream or is reported.

Owns which texts a stream has, where each of them ends, and what an event without text becomes. `channel.py` has the
guards of one text. The stage is the first processor of its stream.

1. Each choice and channel is a text of its own: text, reasoning, refusal, the arguments of each call.
2. Text, reasoning and refusal end where another channel of their choice begins: what is held is decided then. The
   arguments of a call end with its `tool.call`; calls may take turns.
3. Other events wait behind the held text of their choice, and end nothing. Sounds and images do not wait: they have no
   place in the text, and a sound that stands still is heard.
4. `tool.call` has the arguments that were let through. Strings of server tools and results of tools, titles and quotes
   of citations, and what a provider says beside its `finish` are texts that come at once. A citation whose address has
   a match is left out, and so is a block of the provider with one: nobody knows what its parts mean.
5. What was masked cannot be proven any more: reasoning loses its signature, a call too. Citations lose their places in
   a text of another length. Deltas have no `logprobs`: they spell the tokens of the upstream.
6. After a `Stop` the stage passes what makes a stream legal, and nothing else.
7. The searches of one turn of the loop take no more than `SearchTurn` has. What is left of an event waits for the next
   turns, and all events behind it; `waiting` counts both. An end that does not wait for them has one turn more: what is
   not searched by then is dropped.
8. Once the searches have taken `limits.request_steps`, guards have failed, as judges do: the stream ends, or, if all
   are open then, its text passes unsearched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, NoReturn, cast

from gai_fast.core.processing.processor import FRAME, Processor
from gai_fast.guards.automaton import SearchTurn
from gai_fast.guards.outcomes import judge_failed, reworded, stopped, unjudged
from gai_fast.guards.stages.changed import Changed, beside, rewritten, size_of
from gai_fast.guards.stages.channel import Channel, Item, OutputGuard, Stopped
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, MEDIA, Event, JSONText

_ARGUMENTS: Final = "tool.call.delta"
_QUOTED: Final = ("title", "cited_text")
_TURN: Final[Event] = {"type": ""}
"""Stands for the end of a turn between the events of a work; it is never sent."""
Work = Iterator[Event]
"""What becomes of an event: events, and `_TURN` wherever the turn has no more room."""
_HAS_STRINGS: Final = frozenset('{["')
"""What a JSON value begins with that is no number and no literal."""


class _Choice:
    """The texts of one choice.

    Attributes:
        number: Its number.
        kind: The type of the deltas of its last prose. Empty if another channel has begun since.
        prose: The text of this type.
        calls: The arguments of its calls under way, by call id.
        latest: The channel of its last delta.
        changed: What was changed in it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.kind = ""
        self.prose: Channel | None = None
        self.calls: dict[str, Channel] = {}
        self.latest: Channel | None = None
        self.changed = Changed()


class GuardStage(Processor):
    """Looks at the output of one stream.

    Args:
        guards: The guards, in the order of the configuration. What restores own words is the last one.
        turn: What their searches may take in a turn of the loop. None if they have no bound.
    """

    hides_scores: ClassVar[bool] = True

    def __init__(self, guards: Sequence[OutputGuard], turn: SearchTurn | None = None) -> None:
        self._guards = guards
        self._turn = turn
        self._turn_ms = -1
        """When the turn has begun."""
        self._begun: Work | None = None
        """The rest of an event."""
        self._later: deque[Event] = deque()
        """The events behind it."""
        self._later_size = 0
        self._finding = [each for each in guards if each.action != "restore"]
        self._has_failed = False
        """Whether the stream was told that its text is not searched any more."""
        self._choices: dict[int, _Choice] = {}
        self._is_over = False

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        """Processes an event.

        Raises:
            Stop: A guard ends the stream. What stands before the match, and the `safety`, were yielded before.
        """
        kind = event["type"]
        if self._is_over:
            return (event,) if kind in FRAME else ()
        if kind == "start":
            return (event,)
        if kind == "stream.reset":
            self._forget()
            return (event,)
        if now_ms != self._turn_ms:
            self._begin_turn(now_ms)
        if kind in FRAME:
            return self._end(event)
        if self._begun is not None:
            self._later.append(event)
            self._later_size += size_of(event)
            return ()
        return self._run(self._work(kind, event))

    @property
    def holds(self) -> bool:
        """Whether text is held."""
        if self._begun is not None:
            return True
        return any(each.holds for choice in self._choices.values() for each in _channels(choice))

    @property
    def waiting(self) -> int:
        """The characters that wait for the next turns."""
        if self._begun is None:
            return 0
        behind = [each.behind for choice in self._choices.values() for each in _channels(choice)]
        return self._later_size + sum(behind)

    @property
    def due_ms(self) -> int | None:
        """The next turn, if something waits for it."""
        return None if self._begun is None else 0

    def flush(self, now_ms: int = 0) -> Iterable[Event]:
        """Yields what another turn has room for; raises as `process`."""
        self._begin_turn(now_ms)
        return self._go_on()

    def release(self, now_ms: int = 0) -> Iterable[Event]:
        """Yields what is held, because no more text comes; raises as `process`. What waits for a turn stays held."""
        if self._begun is None:
            yield from self._run(self._released())

    # -- turns --

    @property
    def _is_amid_work(self) -> bool:
        """Whether a work waits for a turn. Compiled, `_begun` is taken for None wherever it was just set to that."""
        return self._begun is not None

    def _begin_turn(self, now_ms: int) -> None:
        self._turn_ms = now_ms
        if self._turn is not None:
            self._turn.begin()

    def _run(self, work: Work) -> Iterator[Event]:
        """Yields the events of a work, up to the end of the turn."""
        for event in work:
            if event is _TURN:
                self._begun = work
                return
            yield event

    def _go_on(self) -> Iterator[Event]:
        """Goes on with what waits for a turn."""
        begun, self._begun = self._begun, None
        if begun is not None:
            yield from self._run(begun)
        while self._later and not self._is_amid_work:
            event = self._later.popleft()
            self._later_size -= size_of(event)
            yield from self._run(self._work(event["type"], event))

    def _forget(self) -> None:
        """Drops all text."""
        self._choices.clear()
        self._begun = None
        self._later.clear()
        self._later_size = 0

    def _work(self, kind: str, event: Event) -> Work:
        return self._delta(kind, event) if kind in DELTAS else self._other(kind, event)

    def _released(self) -> Work:
        for choice in self._choices.values():
            yield from self._end_prose(choice)
            for call_id in list(choice.calls):
                yield from self._sent(choice, choice.calls.pop(call_id), None)

    def announce(self, finish: Event, now_ms: int = 0) -> Event:
        """Returns a `finish` as it will pass, for judges behind this stage. Its matches are told when it comes."""
        given, own = beside(finish)
        value = self._members(given, Channel(self._guards, finish.get("choice", 0), is_json=True, is_told=True))
        seen, _ = self._at_once(value)
        return finish if seen is given else cast(Event, {**finish, "provider_metadata": {**seen, **own}})

    def told(self, error: Error) -> Error:
        """Returns an error in whose words what a guard masks or stops is replaced; those of a guard have none."""
        if error.guard is not None:
            return error
        message = self._masked(error.message)
        reason = error.reason and self._masked(error.reason)
        param = error.param and self._masked(error.param)
        details = error.details
        if details is not None:
            details = {key: self._masked(each) if isinstance(each, str) else each for key, each in details.items()}
        if (message, reason, param, details) == (error.message, error.reason, error.param, error.details):
            return error
        return reworded(error, message, reason, param, details)

    def _masked(self, text: str) -> str:
        for guard in self._finding:
            if guard.action != "flag":
                search = guard.scan()
                found = [*search.feed(text), *search.end()]
                text = "".join(
                    [each if isinstance(each, str) else guard.replacement_of(each.category) for each in found]
                )
        return text

    # -- texts --

    def _delta(self, kind: str, event: Event) -> Iterator[Event]:
        choice = self._choice_of(event)
        if kind == _ARGUMENTS:
            yield from self._end_prose(choice)
            channel = self._call(choice, event["call_id"])
        elif choice.prose is not None and choice.kind == kind:
            channel = choice.prose
        else:
            yield from self._end_prose(choice)
            channel = choice.prose = Channel(self._guards, choice.number)
            choice.kind = kind
        choice.latest = channel
        channel.delta = event
        text: str = event[DELTAS[kind]]  # type: ignore[literal-required]  # the key depends on the type
        yield from self._sent(choice, channel, text)

    def _call(self, choice: _Choice, call_id: str) -> Channel:
        channel = choice.calls.get(call_id)
        if channel is None:
            channel = choice.calls[call_id] = Channel(self._guards, choice.number, is_json=True)
        return channel

    def _end_prose(self, choice: _Choice) -> Iterator[Event]:
        """Ends the text, reasoning or refusal of a choice: another channel begins."""
        prose = choice.prose
        if prose is not None:
            choice.kind, choice.prose, choice.latest = "", None, None
            yield from self._sent(choice, prose, None)

    def _end(self, event: Event) -> Iterator[Event]:
        """Ends all texts before the end of the stream, which may have more of them from its provider."""
        if self._begun is not None:
            self._begin_turn(self._turn_ms)
            yield from self._go_on()
        if self._begun is None:
            yield from self._run(self._released())
        else:
            self._forget()
        given, own = beside(event)
        if given:
            choice = self._choice_of(event)
            seen, said = self._at_once(self._members(given, Channel(self._guards, choice.number, is_json=True)))
            yield from self._in_turn(choice, said)
            if seen is not given:
                event = cast(Event, {**event, "provider_metadata": {**seen, **own}})
        yield event

    def _sent(self, choice: _Choice, channel: Channel, item: str | Event | None) -> Iterator[Event]:
        """Yields what leaves when the next item of a channel comes. None is the end of the channel."""
        delta, masked, restored = channel.delta, channel.changes, channel.restored
        items = channel.end() if item is None else channel.take(item)
        while True:
            if self._turn is not None and self._turn.is_used_up and not self._has_failed:
                yield from self._failed()
            if channel.changes != masked:
                choice.changed.masked(delta["type"])
            if channel.restored != restored:
                choice.changed.restored(delta["type"])
            for each in items:
                if isinstance(each, Stopped):
                    self._stop()
                elif isinstance(each, str):
                    yield rewritten(delta, each)
                else:
                    yield from self._fitting(choice, each)
            if not channel.behind:
                return
            yield _TURN
            masked, restored = channel.changes, channel.restored
            items = channel.go_on()

    def _failed(self) -> Iterator[Event]:
        """Does what follows if no text is searched any more: rule 8.

        Raises:
            Error: A guard is closed then.
        """
        self._has_failed = True
        for guard in self._finding:
            if not guard.fails_open:
                guard.failed()
                self._is_over = True
                self._forget()
                raise judge_failed(guard.name)
        for guard in self._finding:
            guard.failed()
            yield unjudged(guard.name)

    def _stop(self) -> NoReturn:
        self._is_over = True
        self._forget()
        raise stopped()

    # -- events without a channel --

    def _other(self, kind: str, event: Event) -> Iterator[Event]:
        choice = self._choice_of(event)
        if kind == "tool.call":
            yield from self._complete_call(choice, event)
        elif kind == "tool.call.start":
            yield from self._end_prose(choice)
            yield event
        elif kind in MEDIA:
            yield event
        else:
            seen = yield from self._seen(kind, event, choice)
            yield from self._in_turn(choice, seen)

    def _in_turn(self, choice: _Choice, items: Sequence[Item]) -> Iterator[Event]:
        """Yields events behind the held text of their choice."""
        latest = choice.latest
        for each in items:
            if isinstance(each, Stopped):
                if latest is not None:
                    yield from self._sent(choice, latest, None)
                self._stop()
            if isinstance(each, str):
                continue
            if latest is not None and latest.holds:
                yield from self._sent(choice, latest, each)
            else:
                yield from self._fitting(choice, each)

    def _seen(self, kind: str, event: Event, choice: _Choice) -> Generator[Event, None, list[Item]]:
        """Returns an event without text in a delta as guards let it through, and what they say."""
        if kind == "citations":
            return (yield from self._citations(event, choice))
        if kind == "server_tool":
            return (yield from self._with_member(event, "server_tool", choice))
        if kind == "tool.result":
            return (yield from self._with_member(event, "tool_result", choice))
        if kind == "provider.block":
            found = Channel(self._finding, choice.number, is_json=True)
            given: Any = event  # compiled, a member of an `Event` raises if its type is another one
            block, said = yield from self._value(given["block"], found)
            return [event, *said] if block is given["block"] and not _stops(said) else said
        return [event]

    def _with_member(self, event: Event, key: str, choice: _Choice) -> Generator[Event, None, list[Item]]:
        channel = Channel(self._guards, choice.number, is_json=True)
        member, said = yield from self._members(cast("dict[str, Any]", event)[key], channel)
        return said if _stops(said) else [cast(Event, {**event, key: member}), *said]

    def _citations(self, event: Event, choice: _Choice) -> Generator[Event, None, list[Item]]:
        kept: list[dict[str, Any]] = []
        said: list[Item] = []
        for citation in event["citations"]:
            uri = citation.get("uri", "")
            passed, heard = yield from self._value(uri, Channel(self._finding, choice.number, is_json=True))
            said += heard
            if passed is uri and not _stops(said):
                words = {key: citation[key] for key in _QUOTED if key in citation}
                seen, heard = yield from self._members(words, Channel(self._guards, choice.number, is_json=True))
                said += heard
                kept.append({**citation, **seen})
            if _stops(said):
                return said
        return [{**event, "citations": kept}, *said] if kept else said

    def _complete_call(self, choice: _Choice, event: Event) -> Iterator[Event]:
        call = event["tool_call"]
        channel = choice.calls.pop(event["call_id"], None)
        if channel is None:
            yield from self._end_prose(choice)
        else:
            if choice.latest is channel:
                choice.latest = None
            yield from self._sent(choice, channel, None)
            if not channel.changes and not channel.restored:
                yield event
                return
        whole = Channel(self._guards, choice.number, is_json=True, is_told=channel is not None)
        given, said = yield from self._arguments(call.get("input"), whole)
        if _stops(said):
            yield from self._in_turn(choice, said)
        changed = cast(Event, {**event, "tool_call": {**call, "input": given}})
        if whole.changes:
            changed.pop("signature", None)
        yield changed
        yield from self._in_turn(choice, said)

    def _fitting(self, choice: _Choice, event: Event) -> Iterator[Event]:
        """Yields an event as it fits to what was let through before it: rule 5."""
        fitting = choice.changed.fitting(event)
        if fitting is not None:
            yield fitting

    def _arguments(self, value: Any, channel: Channel) -> Generator[Event, None, tuple[Any, list[Item]]]:
        """As `_value`, of a call's arguments: those that are a text are searched as their deltas are.

        A text may be the input of a custom tool, or what is no JSON but for a `NaN` in it: clients read its escapes.
        """
        if not isinstance(value, str):
            return (yield from self._value(value, channel))
        masked, said = yield from self._searched(value, channel)
        return (value if _stops(said) else masked), said

    def _members(self, members: Any, channel: Channel) -> Generator[Event, None, tuple[Any, list[Item]]]:
        """As `_value`, of an object that events have: the names of its members are no texts."""
        if not isinstance(members, dict):
            return (yield from self._value(members, channel))
        given = [*members.values()]
        values, said = yield from self._value(given, channel)
        return (members if values is given or _stops(said) else dict(zip(members, values, strict=True))), said

    def _value(self, value: Any, channel: Channel) -> Generator[Event, None, tuple[Any, list[Item]]]:
        """Returns a JSON value in which each string and key is a text of its own, and what guards say of it.

        A value in which nothing was replaced is returned itself. A number with a match becomes a string.

        Args:
            value: The value.
            channel: A new channel of JSON.
        """
        text = value.text if isinstance(value, JSONText) else encode_json(value).decode()
        masked, said = yield from self._searched(text, channel)
        if masked == text or _stops(said):
            return value, said
        if text[0] not in _HAS_STRINGS:
            return masked, said
        return (JSONText(masked, None, parse_exact) if isinstance(value, JSONText) else parse_exact(masked)), said

    def _searched(self, text: str, channel: Channel) -> Generator[Event, None, tuple[str, list[Item]]]:
        """Returns what passes of a whole text through a new channel, and what guards say of it."""
        items = [*channel.take(text)]
        while channel.behind and not _stops(items):
            yield _TURN
            items += channel.go_on()
        if not _stops(items):
            items += channel.end()
        while channel.behind and not _stops(items):
            yield _TURN
            items += channel.go_on()
        if self._turn is not None and self._turn.is_used_up and not self._has_failed and not _stops(items):
            items += self._failed()
        said: list[Item] = [each for each in items if not isinstance(each, str)]
        return "".join([each for each in items if isinstance(each, str)]), said

    def _at_once(self, work: Generator[Event, None, tuple[Any, list[Item]]]) -> tuple[Any, list[Item]]:
        """Returns the result of a work without waiting for other turns: the texts beside an end are short."""
        while True:
            try:
                next(work)
            except StopIteration as end:
                return cast("tuple[Any, list[Item]]", end.value)
            self._begin_turn(self._turn_ms)

    def _choice_of(self, event: Event) -> _Choice:
        number = event.get("choice", 0)
        choice = self._choices.get(number)
        if choice is None:
            choice = self._choices[number] = _Choice(number)
        return choice


def _stops(items: Sequence[Item]) -> bool:
    """Returns whether a guard ends the stream."""
    return bool(items) and isinstance(items[-1], Stopped)


def _channels(choice: _Choice) -> Iterator[Channel]:
    if choice.prose is not None:
        yield choice.prose
    yield from choice.calls.values()
