"""The tool calls of a response while it streams: dense indices, unique ids, one `tool.call` per call.

Knows no provider. The adapters assign each fragment to its call.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from gai_fast.core.json.chunks import member, objects, parse_chunk
from gai_fast.core.json.object_scan import ObjectScan
from gai_fast.kernels import compact_json
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import Event, join_surrogates
from gai_fast.providers.answers.events import json_input, parse_arguments
from gai_fast.providers.answers.finish_words import FINISH_WORDS, known_word
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.room import Room, too_many


class ToolCall:
    """One call in progress."""

    def __init__(self, call_id: str, name: str = "") -> None:
        self.call_id = call_id
        self.given_id = ""
        """The provider's id, which several calls may have."""
        self.name = name
        self.begun_name = ""
        """The beginning of its name, as long as more may come."""
        self.index: int | None = None
        """Its number among the calls that have a `tool.call.start`; None if it has none yet."""
        self.pieces: list[str] = []
        self.signed = 0
        """Characters of its signature."""
        self.closed = False
        self.is_held = False
        """Whether the arguments, one whole object, are held back: later arguments may replace them."""
        self.keeps_pieces = False
        """Whether every piece belongs to the input, even a whole object: the input is text, not JSON."""
        self._scan: ObjectScan | None = None

    def replace(self, pieces: list[str]) -> None:
        """Replaces the argument text."""
        self.pieces = pieces
        self._scan = None

    @property
    def is_empty(self) -> bool:
        """Whether the call has neither name nor arguments: some servers send such a call with each answer."""
        return not (self.name or self.begun_name) and (not self.pieces or self.arguments.strip() in ("", "{}"))

    @property
    def arguments(self) -> str:
        """The argument text as received."""
        text = "".join(self.pieces)
        return text if text.isascii() else join_surrogates(text)

    @property
    def is_cut_off(self) -> bool:
        """Whether its arguments are not JSON, which only the end of the call could make right."""
        text = "" if self.closed or self.keeps_pieces or self.is_empty else self.arguments
        return bool(text.strip()) and compact_json(text) is None

    @property
    def is_complete(self) -> bool:
        """Whether the argument text so far is one whole JSON object. Each piece is scanned once."""
        if self._scan is None:
            self._scan = ObjectScan()
        return self._scan.is_whole(self.pieces)


def _is_whole(call: ToolCall, arguments: str) -> bool:
    """Returns whether the first piece of a call is a whole object. The empty one is not parsed."""
    return arguments == "{}" or call.is_complete


def takes_place(arguments: str, before: str) -> bool:
    """Returns whether arguments take the place of the whole object before them, which may be the empty object.

    Some servers begin a call with `{}` (openai-agents-js#712), others send all arguments so far with each chunk
    (llama.cpp, models behind Qianfan).
    """
    if not arguments.lstrip().startswith("{"):
        return False
    if not before.strip()[1:-1].strip():
        return True
    with suppress(ValueError):  # it is not JSON, or nested too deep
        return _is_grown(parse_arguments(arguments), parse_arguments(before))
    return False


def _is_grown(value: Any, before: Any) -> bool:
    """Returns whether a JSON value is an earlier one to which something may have been added."""
    if isinstance(before, dict):
        return isinstance(value, dict) and all(
            key in value and _is_grown(value[key], inner) for key, inner in before.items()
        )
    if isinstance(before, list):
        return isinstance(value, list) and len(value) >= len(before) and all(map(_is_grown, value, before))
    return before is None or (not isinstance(value, (dict, list)) and str(value).startswith(str(before)))


def listed_calls(raw: Any) -> list[dict[str, Any]]:
    """Returns the calls of a chunk: the objects of a list, or of an object by their index, or one object.

    Some servers send any of these as JSON text.
    """
    if isinstance(raw, str):
        with suppress(Malformed):
            raw = parse_chunk(raw)
    if isinstance(raw, dict):
        raw = list(raw.values()) if all(map(str.isdecimal, raw)) else [raw]
    return objects(raw)


def function_of(raw: dict[str, Any]) -> dict[str, Any]:
    """Returns the object with name and arguments of a call: `function`, `custom`, or the call itself.

    In the call itself, `function` may be the name.
    """
    function = member(raw, "function") or member(raw, "custom")
    name = raw.get("function")
    if name and isinstance(name, str):
        return {"name": name, **raw}
    return function or (raw if "name" in raw or "arguments" in raw else function)


def _derived_id(number: int, seed: str) -> str:
    """Returns an id for a call without an id. The id depends only on the number and the seed."""
    return f"call_{sha256(f'{number} {seed}'.encode(errors='surrogatepass')).hexdigest()[:24] if seed else number}"


def outcome(words: Mapping[str, str], word: str, *, has_calls: bool) -> str:
    """Returns the `finish_reason` of a response.

    A response with calls has the reason `tool_calls` even if the provider's word means `stop` or is missing.

    Args:
        words: The finish reason for each of the provider's words that others do not have.
        word: The provider's word, empty if there was none.
        has_calls: Whether the response has tool calls.
    """
    reason = (words and words.get(word)) or FINISH_WORDS.get(known_word(word), "other")
    return "tool_calls" if has_calls and (reason == "stop" or not word) else reason


class ToolCalls:
    """The calls of one choice: dense indices, unique ids, one `tool.call` per call as its last event."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._open = 0
        """The number of calls that are not closed."""
        self.calls: list[ToolCall] = []
        self._used_ids: set[str] = set()
        self.announced: list[ToolCall] = []
        """The calls that have a `tool.call.start`, by their index. A call without a name has none yet."""
        self._held: ToolCall | None = None
        """The call whose arguments are held until another call begins. Empty arguments are held longer."""

    def __bool__(self) -> bool:
        return any(not call.is_empty for call in self.calls)

    def outcome(self, words: Mapping[str, str], word: str) -> str:
        """Returns the `finish_reason` of a response with these calls."""
        return outcome(words, word, has_calls=bool(self))

    def open(self, call_id: str | None, name: str, seed: str = "") -> tuple[ToolCall, list[Event]]:
        """Begins a call.

        Args:
            call_id: The provider's id. If it is missing, an id is derived; if another call has it, it gets a suffix.
            name: The tool, empty if it is not known yet.
            seed: A text that no other response has, such as its id or the chunk that begins the call: Anthropic
                requires ids to be unique in the whole conversation.

        Raises:
            Error: More calls are open than `limits.tool_calls`, the id is longer than `limits.call_id`, or the
                response exceeds the memory limit.
        """
        if self._open >= LIMITS.tool_calls:
            raise too_many("tool_calls", LIMITS.tool_calls)
        if call_id and len(call_id) > LIMITS.call_id:
            what = f"the id of a call is longer than {LIMITS.call_id} characters"
            raise Error("provider_unavailable", what, reason="answer_too_large")
        number = len(self.calls)
        identifier = call_id or _derived_id(number, seed)
        while identifier in self._used_ids:
            identifier += f"_{number}"
        self._used_ids.add(identifier)
        self._room.take(len(identifier) + len(name), 8)
        self._open += 1
        call = ToolCall(identifier, name)
        call.given_id = call_id or ""
        self.calls.append(call)
        released: list[Event] = [] if self._held is None else self._release(self._held)
        return call, [*released, *self._announce(call)] if name else released

    def _announce(self, call: ToolCall) -> list[Event]:
        call.index = len(self.announced)
        self.announced.append(call)
        start: Event = {
            "type": "tool.call.start",
            "call_id": call.call_id,
            "tool_call": {"name": call.name},
            "index": call.index,
        }
        # Fragments that arrived before the name become one delta.
        return [start] if call.is_held else [start, *self._delta(call, call.arguments)]

    def _release(self, call: ToolCall) -> list[Event]:
        """Returns the delta of the arguments that a call holds."""
        self._held = None if call is self._held else self._held
        if not call.is_held:
            return []
        call.is_held = False
        return self._delta(call, call.arguments)

    def _delta(self, call: ToolCall, arguments: str) -> list[Event]:
        if call.index is None or not arguments:
            return []
        return [{"type": "tool.call.delta", "call_id": call.call_id, "index": call.index, "arguments": arguments}]

    def add(self, call: ToolCall, arguments: str, name: str = "") -> list[Event]:
        """Adds a fragment of the arguments, and the name if the call has none yet.

        Raises:
            Error: The response exceeds the memory limit.
        """
        events: list[Event] = []
        if name and not call.name:
            self._room.take(len(name))
            call.name = name
            events = self._announce(call)
        if arguments:
            self._room.take(len(arguments))
            if call.is_held and takes_place(arguments, call.arguments):
                self._room.give_back(len(call.arguments), len(call.pieces))
                call.replace([])
                call.is_held = False
            elif call.is_held:
                events += self._release(call)
            call.pieces.append(arguments)
            if len(call.pieces) == 1 and not call.keeps_pieces and _is_whole(call, arguments):
                call.is_held = True
                self._held = self._held if arguments == "{}" else call
            else:
                events += self._delta(call, arguments)
        return events

    def sign(self, call: ToolCall, signature: str) -> Event:
        """Returns the event for a signature of a call. Encoders keep the last signature of each call.

        Raises:
            Error: The response exceeds the memory limit.
        """
        self._room.give_back(call.signed, call.signed > 0)
        call.signed = len(signature)
        self._room.take(call.signed)
        return {"type": "reasoning.signature", "call_id": call.call_id, "signature": signature}

    def copied(self, index: int, arguments: str) -> ToolCall:
        """Adds arguments that were copied to the call with this index, and returns the call."""
        self._room.note(len(arguments))
        call = self.announced[index]
        call.pieces.append(arguments)
        return call

    def add_rest(self, call: ToolCall, arguments: str) -> list[Event]:
        """Adds the rest of the whole argument text, which no fragment carried.

        If the fragments were another text and no value, the whole text takes their place. They are events already.

        Args:
            call: The call.
            arguments: The whole text.

        Raises:
            Error: The response exceeds the memory limit.
        """
        so_far = call.arguments
        if arguments.startswith(so_far):
            return self.add(call, arguments[len(so_far) :])
        if arguments and (call.is_held or compact_json(so_far) in (None, "{}")):
            self._room.take(len(arguments))
            call.replace([arguments])
        return []

    def close(self, call: ToolCall, *, cut_off: bool = False) -> list[Event]:
        """Completes a call, once.

        Args:
            call: The call.
            cut_off: Whether the provider may not have completed the call. A call that is cut off is left out unless its
                text is JSON.
        """
        if call.closed or call.is_empty:
            return []
        text = call.arguments
        compact = compact_json(text)
        call.name = call.name or call.begun_name
        if compact is None:
            if cut_off:
                return []
            if not text.strip():
                compact = "{}"
        call.closed = True
        self._open -= 1
        released = self._release(call)
        value: Any = text
        if compact is not None:
            try:
                value = json_input(compact)
            except ValueError:
                value = text  # it is nested too deep
        complete: Event = {
            "type": "tool.call",
            "call_id": call.call_id,
            "tool_call": {"name": call.name, "input": value},
        }
        # A call that never got a name has no start yet.
        return [*released, complete] if call.index is not None else [*self._announce(call), complete]

    def close_all(self, *, cut_off: bool = False) -> list[Event]:
        """Closes every call that is still open, in order."""
        events: list[Event] = [] if self._held is None else self._release(self._held)
        for call in self.calls:
            events += self.close(call, cut_off=cut_off)
        return events
