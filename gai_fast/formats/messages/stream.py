"""Anthropic's stream: writes events as the events of a message.

    message_start → (content_block_start → content_block_delta* → content_block_stop)* → message_delta → message_stop

1. One block is open at a time. Text, reasoning and each call have separate blocks; the first delta of another kind
   closes the open block. Clients run a call as soon as its block is closed, so a block whose arguments are not a whole
   object is not closed for another one: other events wait, up to a limit. A fragment that comes later nevertheless has
   the index of its closed block: the SDKs join fragments by index.
2. A refusal is text. Reasoning of any provider is `thinking`; a signature closes its block. Signatures of other
   providers than Anthropic have the provider's name. The signature of a call has no place: it is a separate
   `redacted_thinking` block, which clients send back. A signature after text is written before the next block and
   left out at the end: clients show the last block, which must be the text.
3. Tools that Anthropic runs have blocks of their kinds: Anthropic's own blocks if the answer has them.
4. A citation is part of the open text block.
5. `message_start` counts no tokens: they are not known yet. `message_delta` has all of them.
6. Values without a place in the dialect are in `x_gai`: in `message_delta`, or in a `ping`, which every client ignores.
   Choices beyond the first are left out.
7. An error is an `error` event, and nothing follows it.
8. The category of a refusal is in `stop_details`; the category of another provider is its `explanation`. If the answer
   ended for another reason, the whole `safety` is in `x_gai` of `message_delta`.

| event | Messages |
|---|---|
| `start` | `message_start` |
| `text.delta` `refusal.delta` | `text_delta` of a `text` block |
| `reasoning.delta` | `thinking_delta` of a `thinking` block |
| `reasoning.signature` | `signature_delta`; a `redacted_thinking` block if it is redacted or of a call |
| `tool.call.start` `tool.call.delta` `tool.call` | `tool_use` and its `input_json_delta`; the gateway's: a `ping` |
| `provider.block` | the block of Anthropic; for other providers a `ping` |
| `server_tool` | `server_tool_use` and the block of its result, unless it has been written; for others a `ping` |
| `citations` | `citations_delta` of the open text block, or of a new one |
| `tool.result` `image` `audio.delta` `json.snapshot` `approval.required` `approval.decided` | a `ping` |
| `safety` | a `ping`; the category of a refusal is in `stop_details` (rule 8) |
| `warning` | `x_gai.warnings` of `message_delta` |
| `usage` | `usage` of `message_delta`, if `finish` has no usage |
| `step.start` | the end of the open block: the text of each turn has its own |
| `step.end` `tool.progress` | none: the dialect has no steps |
| `step.reset` | none: a step with content is never asked again |
| `stream.reset` | none: an answer with content is never restarted |
| `stream.gap` | none: a follower that lacks events is sent an error |
| `finish` | `message_delta` |
| `error` | `error` |
| `done` | `message_stop` after a `finish`; nothing after an `error` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gai_fast.core.json.object_scan import ObjectScan
from gai_fast.formats._base import Framing, StreamContext, block_members, run_members
from gai_fast.formats._passthrough import DialectEncoder
from gai_fast.formats.limits import LIMITS
from gai_fast.formats.messages.parts import (
    citation_of,
    container_of,
    error_object,
    input_of,
    is_refusal,
    marked,
    native_author,
    note_warning,
    refusal_of,
    run_of,
    server_tool_block,
    stop_reason_of,
    stop_sequence_of,
    usage_of,
)
from gai_fast.kernels import Part, encode_json, escape
from gai_fast.model.errors import Error
from gai_fast.model.events import Event

# Events whose payload has no place in the dialect, and the payload's key.
_UNMAPPED: Final = {
    "audio.delta": "audio",
    "image": "image",
    "json.snapshot": "json",
}

_TEXT: Final = "text"
_THINKING: Final = "thinking"
_BLOCK_OF: Final = {"text.delta": _TEXT, "refusal.delta": _TEXT, "reasoning.delta": _THINKING}
_EMPTY: Final = {
    _TEXT: b'{"type":"text","text":""}',
    _THINKING: b'{"type":"thinking","thinking":"","signature":""}',
}
_DELTA: Final = {
    _TEXT: b'{"type":"text_delta","text":',
    _THINKING: b'{"type":"thinking_delta","thinking":',
}
_START: Final = (
    b',"message":{"id":%b,"type":"message","role":"assistant","model":%b,"content":[],"stop_reason":null,'
    b'"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}'
)
"""The members of `message_start`: an object that is built and encoded costs 3,000 instructions more."""
_OF_CALL: Final = frozenset(("tool.call.delta", "tool.call", "reasoning.signature"))
"""The events that continue the block of a call."""
_ENDS: Final = frozenset(("finish", "error", "done"))
_FRAGMENT: Final = b'{"type":"input_json_delta","partial_json":'
_KINDS: Final[tuple[bytes, ...]] = (
    b"message_start",
    b"content_block_start",
    b"content_block_delta",
    b"content_block_stop",
    b"message_delta",
    b"message_stop",
    b"ping",
    b"error",
)
_SSE_LEADS: Final[dict[bytes, bytes]] = {kind: b'event: %b\ndata: {"type":"%b"' % (kind, kind) for kind in _KINDS}
"""By kind, the bytes of an event before its members. Formatting them costs 200 instructions more than a look-up."""
_LINE_LEADS: Final[dict[bytes, bytes]] = {kind: b'{"type":"%b"' % kind for kind in _KINDS}
"""The same for the other framings."""


class Messages(DialectEncoder):
    """Events → the events of a message."""

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self.has_blocks = True
        self._id = f"msg_{context.stream_id}"
        self._model = context.model
        self._request_id = context.request_id
        self._run = ""  # the run whose own block was written last: its `server_tool` follows
        self._provider: str | None = None
        self._started = False
        self._count = 0  # blocks so far
        self._block = ""  # the open block: text, thinking, or a space and the id of a call
        self._head = b""  # the first bytes of each delta of the open block
        self._held_signature = ""  # a signature after text: rule 2
        self._delta_end = b"}}" + self._trail
        self._calls: dict[str, int] = {}  # the index of each call's block
        self._pieces: list[str] = []  # the fragments of the call whose block was opened last
        self._scan = ObjectScan()  # of these
        # The closing frames of an incomplete call's block: rule 1. None if they were written.
        self._waiting: list[Event | None] = []
        self._next = 0  # the place in it of the next one
        self._waiting_of: dict[str, list[int]] = {}  # the places in it of each call's events, by the call's block
        self._room = LIMITS.delayed_events  # characters that may wait; 0 or less: nothing waits any more
        self._with_arguments: set[str] = set()
        self._not_objects: set[str] = set()  # calls whose arguments are not a JSON object
        self._call_signatures: dict[str, str] = {}  # the signature of each call
        self._unwritten: dict[str, None] = {}  # calls whose signature is written after the open block
        self._usage: Mapping[str, Any] = {}
        self._safety: Mapping[str, Any] | None = None
        self._warnings: list[dict[str, Any]] = []

    def event(self, event: Event) -> None:
        """Writes the message's events for this event."""
        # The hot path: all bytes around the text are built once per block.
        if _BLOCK_OF.get(event["type"]) == self._block and not event.get("choice"):
            self._seq = event.get("seq", self._seq + 1)
            if self._ids:
                self._frame_at = len(self._out)
            self._out.append(self._head + escape(event["text"]) + self._delta_end)
            if self._ids:
                self._stamp()
        else:
            super().event(event)

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of a delta like this one, if its block is open."""
        block = _BLOCK_OF.get(event["type"]) or f" {event.get('call_id')}"
        if block != self._block or event.get("choice"):
            return None
        if key == "arguments" and (block[1:] not in self._with_arguments or block[1:] in self._not_objects):
            return None
        if self._waiting:
            return None  # the next fragment may complete the call
        return self._parts(self._head + b'"', b'"' + self._delta_end)

    def copied(self, event: Event, text: str) -> None:
        """Receives the arguments that the kernel has written into the open block."""
        if event["type"] == "tool.call.delta":
            self._pieces.append(text)

    def heartbeat(self) -> None:
        """Writes a `ping`."""
        self._event(b"ping", b"")

    def _encode(self, event: Event) -> None:
        if event["type"] not in _WRITERS or event.get("choice"):
            return
        is_end = event["type"] in _ENDS
        if is_end:
            self._room = 0
        else:
            self._write(event)
        if self._waiting:
            self._release()
        if is_end:
            _WRITERS[event["type"]](self, event)

    def _write(self, event: Event) -> None:
        """Writes the frames of an event, or keeps the event if it has to wait."""
        if self._waiting or self._block[:1] == " ":
            continues = event["type"] in _OF_CALL and self._block == f" {event.get('call_id')}"
            if not continues and (self._waiting or self._is_within_call()):
                if event["type"] in _OF_CALL and "call_id" in event:
                    self._waiting_of.setdefault(f" {event['call_id']}", []).append(len(self._waiting))
                self._waiting.append(event)
                self._room -= LIMITS.delayed_event + len(event.get("text", "")) + len(event.get("arguments", ""))
                return
        _WRITERS[event["type"]](self, event)

    def _release(self) -> None:
        """Writes the events that have waited, up to the next call that is not complete; each is looked at once."""
        waiting = self._waiting
        while self._next < len(waiting) and not self._is_within_call():
            event = waiting[self._next]
            self._next += 1
            if event is None:
                continue
            _WRITERS[event["type"]](self, event)
            block = self._block
            if block[:1] != " " or not self._is_within_call():
                continue
            has_passed = False  # whether events before the next one wait on
            for place in self._waiting_of.pop(block, ()):
                own = waiting[place]
                if own is None or place < self._next:
                    continue
                if self._block != block or not (has_passed or self._is_within_call()):
                    break  # the remaining events follow in order
                while self._next < place and waiting[self._next] is None:
                    self._next += 1
                has_passed = has_passed or place > self._next
                _WRITERS[own["type"]](self, own)
                waiting[place] = None
        if self._next == len(waiting):
            self._waiting, self._next, self._waiting_of = [], 0, {}

    def _is_within_call(self) -> bool:
        """Returns whether the open block is a call whose arguments are not a whole object yet."""
        if self._block[:1] != " " or self._room <= 0:
            return False
        return not self._scan.is_whole(self._pieces)

    # -- events of a message --

    def _lead_of(self, kind: bytes) -> bytes:
        """Returns the bytes of an event before its members."""
        return _SSE_LEADS[kind] if self._sse else _LINE_LEADS[kind]

    def _event(self, kind: bytes, members: bytes) -> None:
        self._frame_at = len(self._out)
        self._out.append(b"%b%b}%b" % (self._lead_of(kind), members, self._trail))

    def _open(self, block: str, content: bytes, delta: bytes) -> None:
        """Opens a block.

        Args:
            block: The block's name.
            content: The block's first state, as JSON.
            delta: The first bytes of its deltas.
        """
        self._close()
        self._write_held_signature()
        self._event(b"content_block_start", b',"index":%d,"content_block":%b' % (self._count, content))
        self._block = block
        self._head = self._delta_head(self._count, delta)
        self._count += 1

    def _delta_head(self, index: int, delta: bytes) -> bytes:
        return b'%b,"index":%d,"delta":%b' % (self._lead_of(b"content_block_delta"), index, delta)

    def _delta(self, head: bytes, text: str) -> None:
        self._frame_at = len(self._out)
        self._out.append(head + escape(text) + self._delta_end)

    def _close(self) -> None:
        """Closes the open block, then writes the delayed signatures of calls."""
        if not self._block:
            return
        self._block = ""
        self._event(b"content_block_stop", b',"index":%d' % (self._count - 1))
        self._write_call_signatures()

    def _whole_block(self, content: Mapping[str, Any]) -> None:
        """Writes a block without deltas."""
        block = encode_json(content)
        self._close()
        self._write_held_signature()
        self._event(b"content_block_start", b',"index":%d,"content_block":%b' % (self._count, block))
        self._event(b"content_block_stop", b',"index":%d' % self._count)
        self._count += 1

    def _ping(self, x_gai: Mapping[str, Any]) -> None:
        self._event(b"ping", b',"x_gai":' + encode_json(x_gai))

    # -- events of a stream --

    def _start(self, event: Event) -> None:
        self._provider = event.get("provider")
        if self._started:
            return  # the client has the start of an earlier attempt
        self._started = True
        self._model = event.get("model", self._model)
        self._event(b"message_start", _START % (escape(self._id), escape(self._model)))

    def _text(self, event: Event) -> None:
        block = _BLOCK_OF[event["type"]]
        if block != self._block:
            self._open(block, _EMPTY[block], _DELTA[block])
        self._delta(self._head, event["text"])

    def _signature(self, event: Event) -> None:
        call_id = event.get("call_id")
        if call_id is not None:
            self._call_signature(call_id, event["signature"])
            return
        signature = marked(event["signature"], self._provider)
        if event.get("redacted"):
            self._whole_block({"type": "redacted_thinking", "data": signature})
            return
        if self._block == _TEXT:
            self._held_signature = signature
            return
        if self._block != _THINKING:
            self._open(_THINKING, _EMPTY[_THINKING], _DELTA[_THINKING])
        self._sign(signature)

    def _sign(self, signature: str) -> None:
        """Writes a signature into the open block, and closes it."""
        self._delta(self._delta_head(self._count - 1, b'{"type":"signature_delta","signature":'), signature)
        self._close()

    def _write_held_signature(self) -> None:
        """Writes the signature after the text as a separate block, because another block follows."""
        held, self._held_signature = self._held_signature, ""
        if held:
            self._open(_THINKING, _EMPTY[_THINKING], _DELTA[_THINKING])
            self._sign(held)

    def _call_signature(self, call_id: str, signature: str) -> None:
        if self._call_signatures.get(call_id) == signature:
            return
        self._call_signatures[call_id] = signature
        self._unwritten[call_id] = None
        if not self._block.startswith(" "):  # between two fragments of a call this would close the call's block
            self._close()
            self._write_call_signatures()

    def _write_call_signatures(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        for call_id in unwritten:
            data = marked(self._call_signatures[call_id], self._provider, call_id)
            self._whole_block({"type": "redacted_thinking", "data": data})

    def _call_start(self, event: Event) -> None:
        if "executed_by" in event:
            return
        call_id = event["call_id"]
        call = {"type": "tool_use", "id": call_id, "name": event["tool_call"].get("name", ""), "input": {}}
        self._open(f" {call_id}", encode_json(call), _FRAGMENT)
        self._pieces, self._scan = [], ObjectScan()
        self._calls[call_id] = self._count - 1

    def _call_arguments(self, event: Event) -> None:
        call_id, fragment = event["call_id"], event["arguments"]
        if call_id in self._not_objects or call_id not in self._calls:  # the gateway's, or without a start
            return
        if call_id not in self._with_arguments:
            begin = fragment.lstrip()[:1]
            if not begin:
                return  # the SDK fails on a blank input
            self._with_arguments.add(call_id)
            if begin != "{":  # an input must be an object: other arguments are written complete, in an object
                self._not_objects.add(call_id)
                return
        if self._block == f" {call_id}":
            self._pieces.append(fragment)
            self._delta(self._head, fragment)
        else:
            self._delta(self._delta_head(self._calls[call_id], _FRAGMENT), fragment)

    def _call(self, event: Event) -> None:
        if "executed_by" in event:
            self._of_run(event)
            return
        call_id, given = event["call_id"], event["tool_call"]["input"]
        if call_id not in self._calls:
            self._call_start(event)
        if call_id not in self._with_arguments or call_id in self._not_objects:
            self._with_arguments.add(call_id)
            self._not_objects.discard(call_id)
            text = encode_json(input_of(given)).decode()
            self._call_arguments({**event, "arguments": text})
        if self._block == f" {call_id}":
            self._close()
        if "signature" in event:
            self._call_signature(call_id, event["signature"])

    def _server_tool(self, event: Event) -> None:
        run = event["server_tool"]
        if self._provider != native_author():
            self._ping({"server_tool": run})
        elif not run.get("id") or run["id"] != self._run:
            self._tool_block(server_tool_block(run))

    def _provider_block(self, event: Event) -> None:
        if event["provider"] != native_author():
            self._ping({"provider_block": block_members(event)})
            return
        block: Any = event["block"]
        self._tool_block(block)
        self._run = run_of(block)

    def _tool_block(self, block: Mapping[str, Any]) -> None:
        """Writes a block whose input, if it has one, is a delta."""
        if "input" not in block:
            self._whole_block(block)
            return
        given = encode_json(block["input"]).decode()  # before the block is opened, since it may fail
        self._open(" server tool", encode_json({**block, "input": {}}), _FRAGMENT)
        self._delta(self._head, given)
        self._close()

    def _citations(self, event: Event) -> None:
        citations = [encode_json(citation_of(citation)) for citation in event["citations"]]
        if self._block != _TEXT:
            self._open(_TEXT, _EMPTY[_TEXT], _DELTA[_TEXT])
        head = self._delta_head(self._count - 1, b'{"type":"citations_delta","citation":')
        for citation in citations:
            self._frame_at = len(self._out)
            self._out.append(head + citation + self._delta_end)

    def _add_safety(self, event: Event) -> None:
        if is_refusal(self._safety):  # the stored one is not the last `safety`
            self._ping({"safety": self._safety})
        self._safety = event["safety"]
        if not is_refusal(self._safety):
            self._ping({"safety": self._safety})

    def _unmapped(self, event: Event) -> None:
        key = _UNMAPPED[event["type"]]
        self._ping({key: event[key]} if key in event else {})  # type: ignore[literal-required]  # the key depends on the type

    def _step(self, event: Event) -> None:
        """Begins the text of a turn in a block of its own."""
        self._provider = event.get("provider", self._provider)
        self._close()

    def _of_run(self, event: Event) -> None:
        self._ping(run_members(event))

    def _snapshot(self, event: Event) -> None:
        self._usage = event["usage"]

    def _warning(self, event: Event) -> None:
        note_warning(self._warnings, event)

    def _finish(self, event: Event) -> None:
        self._close()
        reason, x_gai = stop_reason_of(event, has_calls=bool(self._calls))
        counts, beside = usage_of(event.get("usage", self._usage))
        if self._warnings:
            beside["warnings"] = self._warnings
        details = refusal_of(self._safety, reason)
        if details is None and is_refusal(self._safety):
            beside["safety"] = self._safety
        delta = {"stop_reason": reason, "stop_sequence": stop_sequence_of(event), "stop_details": details}
        delta |= container_of(event)
        members = b',"delta":%b,"usage":%b' % (encode_json(delta), encode_json(counts))
        x_gai |= beside
        if x_gai:
            members += b',"x_gai":' + encode_json(x_gai)
        self._event(b"message_delta", members)

    def _error(self, event: Event) -> None:
        error = encode_json(error_object(Error.from_payload(event["error"])))
        self._event(b"error", b',"error":%b,"request_id":%b' % (error, escape(self._request_id)))

    def _done(self, event: Event) -> None:
        if event["finished"]:
            self._event(b"message_stop", b"")


_WRITERS: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "start": Messages._start,
    **dict.fromkeys(_BLOCK_OF, Messages._text),
    "reasoning.signature": Messages._signature,
    "tool.call.start": Messages._call_start,
    "tool.call.delta": Messages._call_arguments,
    "tool.call": Messages._call,
    "server_tool": Messages._server_tool,
    "provider.block": Messages._provider_block,
    "citations": Messages._citations,
    "safety": Messages._add_safety,
    **dict.fromkeys(_UNMAPPED, Messages._unmapped),
    **dict.fromkeys(("tool.result", "approval.required", "approval.decided"), Messages._of_run),
    "step.start": Messages._step,
    "usage": Messages._snapshot,
    "warning": Messages._warning,
    "finish": Messages._finish,
    "error": Messages._error,
    "done": Messages._done,
}
