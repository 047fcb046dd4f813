"""The output of a Responses answer: items and their parts, built from events.

Owns the item and part of an event, their start and end, and their JSON objects. Calls `emit` with each change as an
event of the dialect. Streams write these events; whole answers use the items only.

1. Visible text and refusals are parts of a message; reasoning is the summary of a reasoning item. An item ends when a
   delta of another kind, a call or a tool starts; later text opens another message.
2. A signature ends its reasoning item. A signature without reasoning before it (a redacted block, or the signature of a
   call) is an item of its own, so that clients send it back.
3. Several calls may be open. A call ends with its `tool.call`; a call without one is `incomplete` at the end.
4. A call that the gateway makes is an `mcp_call`, which is open until its result. A call that waits for an approval is
   an `mcp_approval_request` as well; without a result its `mcp_call` is incomplete. The `mcp_call` of the response that
   makes or denies such a call names the request.
5. A tool that the provider runs is an item of the tool's kind, or an `mcp_call` if the dialect has no such kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gai_fast.core.requests.gateway_calls import KIND, PREFIX, tool_of
from gai_fast.core.requests.stored_ids import own_item_id
from gai_fast.formats._base import result_text
from gai_fast.formats._openai import annotation, argument_text
from gai_fast.formats.responses.parts import sealed
from gai_fast.formats.responses.tools import ToolItem, failure
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.events import DELTAS, Event
from gai_fast.model.limits import SHARED
from gai_fast.model.tool_rules import OWN_LABEL

Emit = Callable[[str, dict[str, Any]], None]
"""Called with the type of a dialect event, and its members after `sequence_number`."""


class ItemPlace:
    """The target of deltas of one kind: a part of an item, or the arguments of a call.

    Args:
        delta: The type of the delta's event.
        members: The members of the delta's event before `delta`.
        after: The members after `delta`.

    Attributes:
        around: The frame of a delta without number and text, or None before the first delta.
        pieces: The texts so far.
    """

    def __init__(self, delta: str, members: dict[str, Any], after: Mapping[str, Any]) -> None:
        self.delta = delta
        self.around: tuple[bytes, bytes, bytes] | None = None
        self.members = members
        self.after = after
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)


class _Kind:
    """A kind of part: `prefix` begins its event types, `member` is the key of its text."""

    def __init__(self, prefix: str, part: str, member: str, index: str, part_event: str) -> None:
        self.prefix = prefix
        self.part = part
        self.member = member
        self.index = index
        self.part_event = part_event


_TEXT: Final = _Kind("response.output_text", "output_text", "text", "content_index", "response.content_part")
_REFUSAL: Final = _Kind("response.refusal", "refusal", "refusal", "content_index", "response.content_part")
_SUMMARY: Final = _Kind(
    "response.reasoning_summary_text", "summary_text", "text", "summary_index", "response.reasoning_summary_part"
)
_KINDS: Final = {"text.delta": _TEXT, "refusal.delta": _REFUSAL, "reasoning.delta": _SUMMARY}
# For each kind of call: the item's type, the prefix of its events, and the member for the text.
_FUNCTION: Final = ("function_call", "response.function_call_arguments", "arguments")
_CUSTOM: Final = ("custom_tool_call", "response.custom_tool_call_input", "input")
_GATEWAYS: Final = (KIND, "response.mcp_call_arguments", "arguments")
_NOTHING: Final[Mapping[str, Any]] = {}


class _Call:
    """An open call."""

    def __init__(self, index: int, item: dict[str, Any], kind: tuple[str, str, str], place: ItemPlace) -> None:
        self.index = index
        self.item = item
        self.kind = kind
        self.place = place


class ResponsesOutput:
    """The items of one answer.

    Args:
        stream_id: The stream's id, part of the items' ids.
        custom_tools: The names of the client's tools with plain text as input.
        emit: Called with each event of the dialect.
        namespaces: Namespace and name of each of its tools in a namespace, by the names that calls may have.

    Attributes:
        identifier: The id of the next item, or empty for an id from `stream_id`.
        items: The items' objects, in order. An open item has no text yet.
        provider: The provider that answers.
    """

    def __init__(
        self,
        stream_id: str,
        custom_tools: frozenset[str],
        emit: Emit,
        namespaces: Mapping[str, tuple[str, str]] = _NOTHING,
    ) -> None:
        self.identifier = ""
        self.items: list[dict[str, Any]] = []
        self.provider: str | None = None
        self._stream_id = stream_id
        self._custom_tools = custom_tools
        self._namespaces = namespaces
        self._emit = emit
        self._item: dict[str, Any] | None = None  # the open message or reasoning item
        self._at = 0  # the index of the open item
        self._part: ItemPlace | None = None
        self._part_kind = _TEXT
        self._annotations: list[dict[str, Any]] = []
        self._scores: list[dict[str, Any]] = []
        self._begin = 0  # characters of visible text before the part
        self._characters = 0
        self._calls: dict[str, _Call] = {}
        self._running: dict[str, _Call] = {}  # the gateway's, whose arguments are complete
        self._tools: dict[str, ToolItem] = {}
        self._drawing: dict[str, ToolItem] = {}  # the image tools among `_tools`
        self._requested: set[str] = set()
        self._turn = 0, 0  # the items, and the characters of visible text, before the turn of a run
        self._room = SHARED.collected

    def close_events(self) -> None:
        """Emits no more events. `emit` refers to the encoder, which refers to this: a cycle for the collector."""
        self._emit = discard
        self._tools.clear()
        self._drawing.clear()

    def take(self, event: Event) -> None:
        """Applies an event of the first choice; ignores events that change no item."""
        kind = event["type"]
        if kind in DELTAS:
            text: Any = event.get(DELTAS[kind], "")
            self.add(self.place(event) or self.open(event), text)
            if "logprobs" in event:
                given: Any = event  # compiled, a member of an `Event` raises if its type is another one
                self.add_scores(given["logprobs"])
            return
        change = _CHANGES.get(kind)
        if change is not None:
            change(self, event)

    # -- deltas --

    def place(self, event: Event) -> ItemPlace | None:
        """Returns the open place of a delta like this one, or None if `open` must be called."""
        kind = event["type"]
        if kind == "tool.call.delta":
            call = self._calls.get(event["call_id"])
            return None if call is None else call.place
        return self._part if self._part_kind is _KINDS[kind] else None

    def open(self, event: Event) -> ItemPlace:
        """Opens the place of a delta, and ends the part or item before it."""
        if event["type"] == "tool.call.delta":
            return self._open_call(event["call_id"], "").place
        return self._open_part(_KINDS[event["type"]])

    def add(self, place: ItemPlace, text: str) -> None:
        """Adds the text of deltas to their place.

        Raises:
            Error: The answer, with its overhead, is larger than `SHARED.collected`.
        """
        self.take_room(len(text))
        place.pieces.append(text)
        if place is self._part and self._part_kind is _TEXT:
            self._characters += len(text)

    def add_scores(self, scores: Any) -> list[dict[str, Any]]:
        """Adds the probabilities of tokens to the open text; returns them in the dialect's form, which demands `bytes`.

        Args:
            scores: `logprobs` of an event; a program's own event may have any value there.

        Raises:
            Error: As `add`.
        """
        if self._part_kind is not _TEXT or not isinstance(scores, list):
            return []
        self.take_room(len(encode_json(scores)))
        written = [_score(score) for score in scores if isinstance(score, dict)]
        self._scores += written
        return written

    def take_room(self, size: int) -> None:
        """Counts characters before they are stored, with their overhead.

        Raises:
            Error: The answer, with its overhead, is larger than `SHARED.collected`.
        """
        self._room -= size + SHARED.log_piece_cost
        if self._room < 0:
            what = f"the answer is larger than {SHARED.collected} characters, and this format repeats it at its end"
            raise Error("provider_unavailable", what, reason="answer_too_large")

    # -- items --

    def _new(self, item: dict[str, Any]) -> int:
        """Adds an item, emits its current object, and returns its index."""
        self.take_room(SHARED.log_block_cost)
        self.items.append(item)
        index = len(self.items) - 1
        self._emit("response.output_item.added", {"output_index": index, "item": item})
        return index

    def _done(self, index: int) -> None:
        self._emit("response.output_item.done", {"output_index": index, "item": self.items[index]})

    def _identifier(self, prefix: str) -> str:
        identifier, self.identifier = self.identifier, ""
        return identifier or own_item_id(prefix, self._stream_id, len(self.items))

    # -- messages and reasoning --

    def _open_part(self, kind: _Kind) -> ItemPlace:
        is_reasoning = kind is _SUMMARY
        item = self._item
        if item is not None and (item["type"] == "reasoning") is is_reasoning:
            self._close_part()
        else:
            self.close()
            item = self._item = self._new_reasoning() if is_reasoning else self._new_message()
            self._at = self._new(item)
        parts = item["summary"] if is_reasoning else item["content"]
        members = {"item_id": item["id"], "output_index": self._at, kind.index: len(parts)}
        after = {"logprobs": []} if kind is _TEXT else _NOTHING
        place = self._part = ItemPlace(f"{kind.prefix}.delta", members, after)
        self._part_kind = kind
        self._begin = self._characters
        self._annotations = []
        self._scores = []
        self._emit(f"{kind.part_event}.added", {**members, "part": self._part_object("")})
        return place

    def _new_message(self) -> dict[str, Any]:
        empty = {"status": "in_progress", "role": "assistant", "content": []}
        return {"id": self._identifier("msg"), "type": "message", **empty}

    def _new_reasoning(self) -> dict[str, Any]:
        return {"id": self._identifier("rs"), "type": "reasoning", "summary": []}

    def _part_object(self, text: str) -> dict[str, Any]:
        kind = self._part_kind
        part: dict[str, Any] = {"type": kind.part, kind.member: text}
        return part | {"annotations": self._annotations, "logprobs": self._scores} if kind is _TEXT else part

    def _close_part(self) -> None:
        place, item = self._part, self._item
        if place is None or item is None:
            return
        self._part = None
        kind, text = self._part_kind, place.text
        part = self._part_object(text)
        after = {"logprobs": self._scores} if kind is _TEXT else _NOTHING
        self._emit(f"{kind.prefix}.done", {**place.members, kind.member: text, **after})
        self._emit(f"{kind.part_event}.done", {**place.members, "part": part})
        (item["summary"] if kind is _SUMMARY else item["content"]).append(part)

    def close(self, status: str = "completed") -> None:
        """Ends the open message or reasoning item, if any.

        Args:
            status: The final status of a message.
        """
        item = self._item
        if item is None:
            return
        self._close_part()
        self._item = None
        if item["type"] == "message":
            item["status"] = status
        self._done(self._at)

    def _sign(self, event: Event) -> None:
        """Adds a signature: rule 2."""
        call = self._calls.get(event.get("call_id", "")) or self._running.get(event.get("call_id", ""))
        if call is not None and call.kind[0] == KIND:
            event = {**event, "call_id": call.item["id"]}  # by which a client sends the call back
        content = sealed(event, self.provider)
        self.take_room(len(content))
        item = self._item
        if item is not None and item["type"] == "reasoning" and "redacted" not in event and "call_id" not in event:
            item["encrypted_content"] = content
            self.close()
            return
        self.close()
        self._done(self._new({**self._new_reasoning(), "encrypted_content": content}))

    def _cite(self, event: Event) -> None:
        """Adds citations to the visible text; their offsets become relative to the text's part."""
        place = self._part
        if place is None or self._part_kind is not _TEXT:
            place = self._open_part(_TEXT)
        length = self._characters - self._begin
        for citation in event["citations"]:
            # Offsets into an earlier part would be negative.
            moved = {**citation}
            for key in ("start", "end"):
                place_in_text = moved.get(key)
                if place_in_text is not None:
                    moved[key] = max(0, place_in_text - self._begin)
            chat_form = annotation(moved, length)
            added = {"type": "url_citation", **chat_form["url_citation"]}
            at = {"annotation_index": len(self._annotations), "annotation": added}
            self.take_room(len(encode_json(added)))
            self._annotations.append(added)
            self._emit("response.output_text.annotation.added", {**place.members, **at})

    # -- calls --

    def _start_call(self, event: Event) -> None:
        """Opens a call."""
        name = event["tool_call"].get("name", "")
        if "executed_by" in event:
            self._open_gateways(event["call_id"], name, event.get("server", OWN_LABEL))
        else:
            self._open_call(event["call_id"], name)

    def _open_gateways(self, call_id: str, name: str, label: str) -> _Call:
        """Opens a call that the gateway makes."""
        self._make_way(call_id)
        item: dict[str, Any] = {"id": self._identifier(PREFIX), "type": _GATEWAYS[0], "status": "in_progress"}
        item |= {"server_label": label, "name": tool_of(label, name), "arguments": "", "output": None, "error": None}
        index = self._new(item)
        at = {"item_id": item["id"], "output_index": index}
        call = self._calls[call_id] = _Call(index, item, _GATEWAYS, ItemPlace(f"{_GATEWAYS[1]}.delta", at, _NOTHING))
        self._emit("response.mcp_call.in_progress", at)
        return call

    def _make_way(self, call_id: str) -> None:
        """Ends what is open before a call."""
        self.close()
        if call_id in self._calls:  # a processor may have dropped its end
            self._close_call(call_id, "incomplete")

    def _open_call(self, call_id: str, name: str) -> _Call:
        self._make_way(call_id)
        kind = _CUSTOM if name in self._custom_tools else _FUNCTION
        # By value: compiled code makes a new tuple of each access to the constant.
        begin = "fc" if kind[0] == _FUNCTION[0] else "ctc"
        item: dict[str, Any] = {"id": self._identifier(begin), "type": kind[0]}
        item |= {"status": "in_progress", kind[2]: "", "call_id": call_id, **self._named(name)}
        index = self._new(item)
        place = ItemPlace(f"{kind[1]}.delta", {"item_id": item["id"], "output_index": index}, _NOTHING)
        call = self._calls[call_id] = _Call(index, item, kind, place)
        return call

    def _named(self, name: str) -> dict[str, Any]:
        """Returns the members of a call that name its tool."""
        found = self._namespaces.get(name)
        return {"name": name} if found is None else {"name": found[1], "namespace": found[0]}

    def _end_call(self, event: Event) -> None:
        """Ends a call whose arguments are complete."""
        call_id, complete = event["call_id"], event["tool_call"]
        if call_id not in self._calls:
            self._start_call(event)
        call = self._calls[call_id]
        if not call.place.text.strip():
            text = argument_text(complete["input"])
            self.add(call.place, text)
            self._emit(call.place.delta, {**call.place.members, "delta": text})
        if call.kind[0] == KIND:  # by value, as above
            self._run_call(call_id)
            if "signature" in event:
                self._sign(event)
            return
        if complete.get("name"):
            call.item.update(self._named(complete["name"]))
        self._close_call(call_id, "completed")
        if "signature" in event:
            self._sign(event)

    def _close_call(self, call_id: str, status: str) -> None:
        call = self._calls.pop(call_id, None) or self._running.pop(call_id)
        _, prefix, member = call.kind
        text = call.place.text
        call.item["status"], call.item[member] = status, text
        if status == "completed":
            self._emit(f"{prefix}.done", {**call.place.members, member: text})
        self._done(call.index)

    def _run_call(self, call_id: str) -> None:
        """Notes that the arguments of a gateway's call are complete."""
        call = self._running[call_id] = self._calls.pop(call_id)
        call.item["arguments"] = call.place.text
        self._emit(f"{_GATEWAYS[1]}.done", {**call.place.members, "arguments": call.place.text})

    def _end_run(self, call: _Call, event: Event) -> None:
        """Ends a gateway's call with its result."""
        text = result_text(event)
        self.take_room(len(text))
        is_error = bool(event.get("is_error"))
        call.item["error" if is_error else "output"] = failure(text) if is_error else text
        call.item["status"] = "failed" if is_error else "completed"
        self._emit(f"response.mcp_call.{call.item['status']}", call.place.members)
        self._done(call.index)

    def _ask(self, event: Event) -> None:
        """Adds the question whether a gateway's call may be made."""
        self.close()
        approval, call = event["approval"], self._running.get(event["call_id"])
        label = approval.get("server", OWN_LABEL)
        asked = {"server_label": label, "name": tool_of(label, approval.get("tool", ""))}
        if call is not None:
            asked = {key: call.item[key] for key in asked}
        arguments = argument_text(approval.get("input", {}))
        self.take_room(len(arguments))
        self._done(self._new({"id": approval["id"], "type": "mcp_approval_request", **asked, "arguments": arguments}))

    def _name_request(self, event: Event) -> None:
        """Names the request for a call's approval, if an earlier response has it."""
        call = self._running.get(event["call_id"])
        if call is not None and event["approval"]["id"] == event["call_id"]:
            call.item["approval_request_id"] = event["call_id"]

    def _begin_turn(self, event: Event) -> None:
        self.close()
        self.provider = event.get("provider", self.provider)
        self._turn = len(self.items), self._characters

    def _void_turn(self, event: Event) -> None:
        """Drops the items of the turn. No item of an earlier turn is open, and no client has one of this turn."""
        items, self._characters = self._turn
        del self.items[items:]
        self._item = self._part = None
        self._calls.clear()
        self._running.clear()
        self._tools.clear()
        self._drawing.clear()

    def _add_result(self, event: Event) -> None:
        """Adds the result of a call that the client did not run."""
        running = self._running.pop(event.get("call_id", ""), None)
        if running is not None:
            self._end_run(running, event)
            return
        self.close()
        output = argument_text(event.get("tool_result", ""))  # events have no empty members
        self.take_room(len(output))
        members = {"status": "completed", "call_id": event.get("call_id", ""), "output": output}
        item = {"id": self._identifier("fco"), "type": "function_call_output", **members}
        self._done(self._new(item))

    # -- tools that the provider runs --

    def _run_tool(self, event: Event) -> None:
        """Starts, updates or ends a tool's run."""
        run = event["server_tool"]
        identifier = run.get("id", "")  # events have no empty members
        if identifier in self._requested:
            return  # its item is complete
        # Encoded before an item changes: the end of the answer repeats all items, so each must be valid JSON.
        self.take_room(len(encode_json(run)))
        tool = self._tools.get(identifier)
        if tool is None:
            tool = self._open_tool(identifier, run.get("name", ""), run)
        tool.take(run)
        if tool.is_request:
            self._requested.add(identifier)
        if tool.is_request or run["status"] != "started":
            self._close_tool(identifier)

    def _draw(self, event: Event) -> None:
        """Adds an image or a partial image to the last open image tool."""
        image = event["image"]
        running = next(reversed(self._drawing), None)
        tool = self._open_tool("", "image_generation") if running is None else self._drawing[running]
        self.take_room(len(image["data"]))
        tool.show(image)
        if not running and not image.get("partial"):
            self._close_tool("")  # a tool without an id gets no `server_tool` event that ends it

    def _open_tool(self, identifier: str, name: str, run: Mapping[str, Any] | None = None) -> ToolItem:
        self.close()
        if identifier in self._tools:
            self._close_tool(identifier, is_complete=False)
        tool = self._tools[identifier] = ToolItem(
            identifier or self._identifier("st"), name, len(self.items), self.provider, self._emit
        )
        if tool.draws:
            self._drawing[identifier] = tool
        if run is not None and tool.is_request:
            tool.take(run)  # an item that is only a request is emitted complete
        self._new(tool.item)
        tool.begin()
        return tool

    def _close_tool(self, identifier: str, *, is_complete: bool = True) -> None:
        tool = self._tools.pop(identifier)
        self._drawing.pop(identifier, None)
        tool.end(is_complete=is_complete)
        self._done(tool.index)

    def _add_block(self, event: Event) -> None:
        """Adds a provider's own item for which there is no other event: the compacted conversation."""
        item: Any = event["block"]
        if item.get("type") == "compaction" and "id" in item and "encrypted_content" in item:
            self.close()
            self.take_room(len(encode_json(item)))
            self._done(self._new(item))

    # -- the end --

    def finish(self, *, is_complete: bool) -> None:
        """Ends all open items.

        Args:
            is_complete: The answer was not cut off.
        """
        self.close("completed" if is_complete else "incomplete")
        for call_id in [*self._calls, *self._running]:
            self._close_call(call_id, "incomplete")
        for identifier in [*self._tools]:
            self._close_tool(identifier, is_complete=False)

    def break_off(self) -> None:
        """Ends all open items without emitting events: the failure is written next."""
        self._emit = discard
        self.finish(is_complete=False)


_CHANGES: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "reasoning.signature": ResponsesOutput._sign,
    "citations": ResponsesOutput._cite,
    "tool.call.start": ResponsesOutput._start_call,
    "tool.call": ResponsesOutput._end_call,
    "tool.result": ResponsesOutput._add_result,
    "approval.required": ResponsesOutput._ask,
    "approval.decided": ResponsesOutput._name_request,
    "step.start": ResponsesOutput._begin_turn,
    "step.reset": ResponsesOutput._void_turn,
    "server_tool": ResponsesOutput._run_tool,
    "image": ResponsesOutput._draw,
    "provider.block": ResponsesOutput._add_block,
}


def _score(score: dict[str, Any]) -> dict[str, Any]:
    """Returns the probability of a token with the members that the dialect demands."""
    others = score.get("top_logprobs")
    top = [_with_bytes(other) for other in others if isinstance(other, dict)] if isinstance(others, list) else []
    return {**_with_bytes(score), "top_logprobs": top}


def _with_bytes(score: dict[str, Any]) -> dict[str, Any]:
    if isinstance(score.get("bytes"), list):
        return score
    return {**score, "bytes": list(str(score.get("token", "")).encode("utf-8", "replace"))}


def discard(kind: str, members: dict[str, Any]) -> None:
    """Ignores an event; the `emit` of answers that are not streamed."""
