"""Tool calls of the chat dialect: assigns each fragment to its call.

Neither `index` nor `id` alone identifies a call. OpenAI sends the index with every fragment and the id with the first.
Gemini's OpenAI endpoint sends no index, Ollama and some gateways send the index 0 for all calls, and other servers send
a new id with every fragment, or a new index. Some use the tool's name as the id of each of its calls
(cloudwego/eino-ext#652).

Some servers send all arguments so far with each fragment (DeepSeek's models behind Qianfan), or the whole call again
behind its fragments. What a call already has is not added again.

Some servers send a name in pieces, others the whole name with each fragment. A name that is the beginning of a tool's
waits for the next fragment.
"""

from __future__ import annotations

from typing import Any, Final

from gai_fast.core.json.chunks import count, label, member, members, objects
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Malformed
from gai_fast.model.events import Event
from gai_fast.providers.answers.events import argument_piece
from gai_fast.providers.answers.room import Room
from gai_fast.providers.answers.tool_calls import ToolCall, ToolCalls, function_of, listed_calls, takes_place

FUNCTION_CALL: Final = -1
"""The index of the call in the deprecated `function_call`; no entry of `tool_calls` has it."""


class CallFragment:
    """A piece of a tool call in one chunk. Members that the chunk lacks are empty."""

    def __init__(
        self, index: int | None, identifier: str, name: str, arguments: str, signature: str, is_text: bool = False
    ) -> None:
        self.index = index
        self.identifier = identifier
        self.name = name
        self.arguments = arguments
        self.signature = signature
        self.is_text = is_text


class ChatCalls(ToolCalls):
    """The calls of one choice, assembled from fragments.

    Args:
        room: As for `ToolCalls`.
        tool_names: The names of the request's tools, as far as they are known.
    """

    def __init__(self, room: Room, tool_names: frozenset[str] = frozenset()) -> None:
        super().__init__(room)
        self._tool_names = tool_names
        self.at: dict[int, ToolCall] = {}
        """The current call for each `tool_calls[].index`."""
        self.named: dict[str, ToolCall] = {}
        """The current call for each id from the provider."""
        self.last: ToolCall | None = None

    def is_repeated(self, fragment: CallFragment) -> bool:
        """Returns whether a fragment of the deprecated `function_call` repeats the call of `tool_calls`."""
        return fragment.index == FUNCTION_CALL and bool(self.calls) and FUNCTION_CALL not in self.at

    def find(self, fragment: CallFragment) -> ToolCall | None:
        """Returns the call that a fragment continues, or None if the fragment begins a call."""
        index, identifier = fragment.index, fragment.identifier
        call = self.last if index is None else self.at.get(index)
        known = self.named.get(identifier) if identifier else None
        if known is not None and (index is None or call is not None):
            if call is not None and call.given_id == identifier:
                known = call  # of several calls with this id, the one with the index is meant
            return self._repeated(fragment) if _begins_with_same_id(known, fragment) else known
        if call is None and self.last is not None and _goes_on(self.last, fragment):
            return self.last
        former = self.at.get(FUNCTION_CALL) if call is None else None
        if former is not None and fragment.arguments and former.name == fragment.name:
            return None if _unrepeated(former, fragment) else former  # `tool_calls` repeat the deprecated member
        return None if call is None or _begins(call, fragment) else call

    def _repeated(self, fragment: CallFragment) -> ToolCall | None:
        """Returns the call that a fragment repeats, of several calls with its id; None if it repeats no call.

        Some servers send all calls again at the end.
        """
        if not fragment.arguments:
            return None
        for call in self.calls:
            is_alike = call.name == fragment.name and not _unrepeated(call, fragment) and call.is_complete
            if is_alike and call.given_id == fragment.identifier:
                return call
        return None

    def is_steady(self, call: ToolCall | None, fragment: CallFragment) -> bool:
        """Returns whether this fragment, and any later fragment like it, changes only the arguments of one call.

        That is so if the fragment repeats the id of its call, or if it has no id and only one call is possible. If it
        has another id, or only a name, a later fragment like it may begin a call. If it repeats id and name, a later
        fragment like it may repeat arguments.

        Args:
            call: The result of `find` for the fragment.
            fragment: The fragment.
        """
        if fragment.identifier:
            if fragment.name:
                return False
            is_known = call is not None and bool(call.name) and self.named.get(fragment.identifier) is call
            return is_known and (fragment.index is None or self.at.get(fragment.index) is call)
        if fragment.name or (call is None and self.calls):
            return False
        return fragment.index is not None or (call is not None and len(self.calls) == 1)

    def begin(self, fragment: CallFragment, seed: str) -> tuple[ToolCall, list[Event]]:
        """Begins a call with a fragment, which `take` then adds. Arguments and errors as for `open`."""
        last = self.last
        released = [] if last is None or last.name else self.add(last, "", last.begun_name)
        call, events = self.open(fragment.identifier, "" if self._may_grow(fragment.name) else fragment.name, seed)
        call.keeps_pieces = fragment.is_text
        return call, released + events

    def _may_grow(self, name: str) -> bool:
        """Returns whether a name is no tool's, but the beginning of one."""
        names = self._tool_names
        return bool(names and name) and name not in names and any(one.startswith(name) for one in names)

    def _name(self, call: ToolCall, fragment: CallFragment) -> str:
        """Returns the name for a call without one; empty as long as more of the name may come."""
        begun, name = call.begun_name, fragment.name
        if begun and name:
            name = name if name.startswith(begun) else begun + name
            if name not in self._tool_names and not self._may_grow(name):
                name = begun
        if not self._may_grow(name):
            return name or (begun if fragment.arguments else "")
        self._room.take(len(name) - len(begun), 0)
        call.begun_name = name
        return ""

    def take(self, call: ToolCall, fragment: CallFragment) -> list[Event]:
        """Adds a fragment to a call and returns its events.

        Raises:
            Error: The response exceeds the memory limit.
        """
        if fragment.identifier:
            if not call.given_id:
                self._room.take(len(fragment.identifier))
                call.given_id = fragment.identifier
            named = self.named.get(fragment.identifier)
            if named is not call:
                if named is None:
                    self._room.take(len(fragment.identifier))
                self.named[fragment.identifier] = call
        self.last = call
        if fragment.index is not None and self.at.get(fragment.index) is not call:
            self._room.take(0)
            self.at[fragment.index] = call
        name = "" if call.name else self._name(call, fragment)
        events = self.add(call, _unrepeated(call, fragment), name)
        if fragment.signature:
            events.append(self.sign(call, fragment.signature))
        return events

    def copied(self, index: int, arguments: str) -> ToolCall:
        """Adds arguments that were copied to the call with this index, and returns the call."""
        self.last = super().copied(index, arguments)
        return self.last


def _goes_on(call: ToolCall, fragment: CallFragment) -> bool:
    """Returns whether a fragment under a new index continues the last call: it has arguments alone, and they fit on.

    Some servers count the fragments of a call by the index (Nebius, Cerebras).
    """
    if fragment.identifier or fragment.name or not fragment.arguments or not call.name or call.is_complete:
        return False
    return bool(call.pieces) or fragment.arguments.lstrip().startswith("{")


def _begins(call: ToolCall, fragment: CallFragment) -> bool:
    """Returns whether a fragment under a call's index begins another call.

    A new id begins a call, except if the server sends a new id with every fragment. Without ids, a call has ended if
    its text is complete JSON.
    """
    is_another = bool(call.name) and fragment.name not in ("", call.name)
    has_begun_name = bool(call.begun_name) and not call.name
    if fragment.identifier and fragment.name and (is_another or has_begun_name or not call.pieces):
        return True
    if not fragment.name and not (fragment.identifier and fragment.arguments):
        return False
    if not (fragment.identifier or is_another or fragment.arguments):
        return False
    return call.is_complete


def _begins_with_same_id(call: ToolCall, fragment: CallFragment) -> bool:
    """Returns whether a fragment with the id of a call begins another call.

    Only a name begins a call. The call must be complete, and the fragment must have another name, or an object that is
    neither the call's nor grown from it.
    """
    if not fragment.name or not call.is_complete:
        return False
    if call.name and fragment.name != call.name:
        return True
    arguments = fragment.arguments
    if call.keeps_pieces or not arguments.lstrip().startswith("{") or len(_unrepeated(call, fragment)) < len(arguments):
        return False
    return not takes_place(arguments, call.arguments)


def _unrepeated(call: ToolCall, fragment: CallFragment) -> str:
    """Returns the arguments of a fragment without those that its call already has.

    A fragment that repeats id and name of its call may begin with all arguments so far. A fragment that
    repeats a complete object adds nothing: no argument can follow it.
    """
    arguments, pieces = fragment.arguments, call.pieces
    # Few fragments are as long as there are pieces, and begin like the first one: only those are compared.
    if not pieces or len(arguments) < len(pieces) or not arguments.startswith(pieces[0]):
        return arguments
    if len(arguments) < sum(map(len, pieces)):  # no joining for each of thousands of long fragments
        return arguments
    before = "".join(pieces)
    if not arguments.startswith(before):
        return arguments
    if fragment.identifier and fragment.name:
        return arguments[len(before) :]
    return "" if arguments == before and call.is_complete else arguments


def read_fragments(calls: Any, part: str) -> list[CallFragment]:
    """Returns the fragments in the calls of a message.

    Args:
        calls: The calls.
        part: `delta` or `message`.

    Raises:
        Malformed: They are not calls.
    """
    listed = listed_calls(calls)
    if calls and not (listed or isinstance(calls, (list, dict))):
        raise Malformed("the tool calls are no list")
    fragments: list[CallFragment] = []
    for position, call in enumerate(listed):
        index = count(call.get("index"))
        if index is None and part == "message":
            index = position
        fragments.append(read_fragment(call, index))
    return fragments


def read_fragment(raw: dict[str, Any], index: int | None) -> CallFragment:
    """Returns the fragment in a raw call.

    Args:
        raw: The call.
        index: Its index, or None.
    """
    function = function_of(raw)
    return CallFragment(
        index,
        label(raw.get("id")),
        label(function.get("name")),
        argument_piece(function["arguments"] if "arguments" in function else function.get("input")),
        label(member(member(raw, "extra_content"), "google").get("thought_signature")),
        is_text="custom" in raw,
    )


def put_arguments_as_text(chunk: dict[str, Any], part: str, text: str) -> None:
    """Replaces arguments that are JSON values with their JSON text: some servers send objects."""
    functions: list[dict[str, Any]] = []
    is_text = True
    for choice in objects(chunk.get("choices")):
        for call in listed_calls(member(choice, part).get("tool_calls")):
            function = function_of(call)
            if "arguments" in function:
                functions.append(function)
                is_text = is_text and isinstance(function["arguments"], (str, type(None)))
    if is_text:
        return
    path = ("choices", part, "tool_calls", "function", "arguments")
    found = list(members(text, *path)) if text else []
    if len(found) != len(functions):
        found = [encode_json(function["arguments"]).decode() for function in functions]
    for function, arguments in zip(functions, found, strict=True):
        if not isinstance(function["arguments"], (str, type(None))):
            function["arguments"] = arguments
