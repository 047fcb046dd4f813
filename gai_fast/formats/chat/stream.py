"""OpenAI's chat stream: writes events as `chat.completion.chunk` frames.

The chunks are those of OpenAI's `chat_completion_chunk.py`, with extensions that clients already use:

1. Frames are `data:` lines without `event:`: the Groq SDK wraps named events. `[DONE]` means that the answer is
   complete, so it never follows an error. An error is `{"error": {message, type, param, code}}`.
2. Reasoning is `delta.reasoning_content` (DeepSeek). Its signatures and opaque blocks are `delta.reasoning_details`
   (OpenRouter). Before the first signature these have no `text`, which readers would add to the reasoning. A tool
   call's signature is `extra_content.google.thought_signature` (Google).
3. Entries of `reasoning_details` and `annotations` have a dense `index`: OpenAI's Python SDK merges list entries of
   deltas by `index`, and fails without it.
4. Values that have no place in the dialect are members of `x_gai` in the chunk.
5. Usage is sent if the client asked for it; then all other chunks have `"usage": null`, like OpenAI's.
6. A call that the gateway makes is none of the client's: it is in `x_gai` when its arguments are complete, and the
   client's calls are counted without it.

| event | chunk |
|---|---|
| `start` | `delta.role` of the first choice; the model is in all chunks |
| `text.delta` | `delta.content` |
| `reasoning.delta` | `delta.reasoning_content` |
| `refusal.delta` | `delta.refusal` |
| `reasoning.signature` | `delta.reasoning_details`; for a call, the call's `extra_content` |
| `tool.call.start` `tool.call.delta` `tool.call` | `delta.tool_calls`; of the gateway: rule 6 |
| `citations` | `delta.annotations` |
| `audio.delta` | `delta.audio.data` |
| `tool.result` `server_tool` `image` `json.snapshot` `safety` | `x_gai` of a separate chunk |
| `approval.required` `approval.decided` | `x_gai` of a separate chunk |
| `provider.block` | `x_gai.provider_block` of a separate chunk |
| `warning` | `x_gai.warnings` of the last chunk |
| `usage` | `usage` of the last chunk, if `finish` has no usage |
| `step.start` `step.end` `tool.progress` | none: the dialect has no steps |
| `step.reset` | none: a step with content is never asked again |
| `stream.reset` | none: an answer with content is never restarted |
| `stream.gap` | none: a follower that lacks events is sent an error |
| `finish` | `finish_reason`, and `usage` in a chunk with `choices: []` |
| `error` | `{"error": …}`: rule 1 |
| `done` | `[DONE]` after a `finish`; nothing after an `error` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from gai_fast.formats._base import Framing, StreamContext, block_members, run_members
from gai_fast.formats._openai import annotation, argument_text, error_object, note_warning
from gai_fast.formats._passthrough import DialectEncoder
from gai_fast.formats.chat.parts import (
    extra_content,
    finish_of,
    finish_reason_of,
    logprobs_of,
    reasoning_detail,
    usage_of,
)
from gai_fast.kernels import Part, Piece, encode_json, escape
from gai_fast.model.errors import Error
from gai_fast.model.events import NO_EVENT, Event

_NO_EVENT: Final[Event] = NO_EVENT  # a constant: a name look-up costs 30 ns
_TEXT_KEYS: Final = {
    "text.delta": b"content",
    "reasoning.delta": b"reasoning_content",
    "refusal.delta": b"refusal",
}
_UNPREPARED: Final = dict.fromkeys(_TEXT_KEYS, b"")
"""The value of `_text_heads` before the first chunk. All streams share it, so it is never changed: a separate dict cost
each passed-through stream 3,000 instructions."""

# Events whose payload has no place in the dialect, and the payload's key.
_UNMAPPED: Final = {
    "image": "image",
    "json.snapshot": "json",
    "safety": "safety",
    "server_tool": "server_tool",
}

_CallKey: TypeAlias = tuple[int, str]


def _call_key(event: Event) -> _CallKey:
    """Returns the key of an event's call: call ids are unique within their choice only."""
    return event.get("choice", 0), event["call_id"]


class Chunks(DialectEncoder):
    """Events → `chat.completion.chunk` frames."""

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._usage_asked = context.usage
        self._created = context.clock() // 1000
        self._tail = b',"usage":null' if context.usage else b""
        self._name_stream(f"chatcmpl-{context.stream_id}", context.model)
        self._started = _NO_EVENT
        self._choices: list[int] = []
        self._details = 0
        self._annotations = 0
        self._length = 0
        self._calls: dict[_CallKey, int] = {}
        self._is_run = False
        self._with_arguments: set[_CallKey] = set()
        # For each call with a signature: the signature until the call starts, then empty.
        self._signatures: dict[_CallKey, str] = {}
        self._usage: Mapping[str, Any] = {}
        self._warnings: list[dict[str, Any]] = []

    def event(self, event: Event) -> None:
        """Writes the chunks of one event."""
        # The hot path: all bytes around the text are built once per stream, not once per delta (0.24 against 1.2 µs).
        head = self._text_heads.get(event["type"])
        if head is not None and "choice" not in event and "logprobs" not in event:
            if not self._head:
                self._begin()
                head = self._text_heads[event["type"]]
            if self._ids:  # an event of a log has its own number, which skips some if the event joins several
                self._seq = event.get("seq", self._seq + 1)
                self._out.append(b"id: %b.%d\n" % (self._ids, self._seq))
            else:
                self._seq += 1
            text = event["text"]
            self._out.append(head + escape(text) + self._text_tail)
            if event["type"] == "text.delta":
                self._length += len(text)
        else:
            super().event(event)

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Returns the parts of a delta like this one, or None before the first arguments of a call."""
        self._begin()
        head = self._text_heads.get(event["type"])
        if head is not None and "choice" not in event:
            return self._parts(head + b'"', b'"' + self._text_tail)
        if key == "arguments" and _call_key(event) not in self._with_arguments:
            return None
        return super().delta_parts(event, key)

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Appends frames of deltas that the kernel has encoded."""
        super().append_frames(frames, count)
        self._length += characters

    def _encode(self, event: Event) -> None:
        write = _WRITERS.get(event["type"])
        if write is not None:
            write(self, event)

    # -- chunks --

    def _name_stream(self, identifier: str, model: str) -> None:
        """Sets the members that all chunks share. The first chunk encodes them: passthrough often writes no chunk."""
        self._id, self._model = identifier, model
        self._head = b""
        self._text_heads = _UNPREPARED

    def _begin(self) -> bytes:
        """Returns the first bytes of every chunk."""
        if not self._head:
            self._head = b'{"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
                escape(self._id),
                self._created,
                escape(self._model),
            )
            before, after = self._choice(0, b'{"\0}').split(b"\0")
            start = self._lead + self._head + before
            self._text_heads = {kind: b'%b%b":' % (start, _TEXT_KEYS[kind]) for kind in self._text_heads}
            self._text_tail = after + b"]" + self._tail + b"}" + self._trail
        return self._head

    def _choice(self, index: int, delta: bytes, finish_reason: bytes = b"null", logprobs: bytes = b"") -> bytes:
        return b'{"index":%d,"delta":%b%b,"finish_reason":%b}' % (index, delta, logprobs, finish_reason)

    def _chunk(self, choices: bytes, x_gai: Mapping[str, Any] | None = None) -> None:
        extra = b',"x_gai":' + encode_json(x_gai) if x_gai else b""
        self._frame(self._begin() + choices + b"]" + self._tail + extra + b"}")

    def _open(self, index: int) -> None:
        """Writes the role of a choice once: the SDK's accumulator would append a second role to the first."""
        if index not in self._choices:
            self._choices.append(index)
            self._chunk(self._choice(index, b'{"role":"assistant","content":""}'))

    def _delta(self, event: Event, delta: bytes) -> None:
        index = event.get("choice", 0)
        self._open(index)
        scores = event.get("logprobs")
        logprobs = b"" if not scores else b',"logprobs":' + encode_json(logprobs_of(event["type"], scores))
        self._chunk(self._choice(index, delta, logprobs=logprobs))

    def _beside(self, event: Event, x_gai: Mapping[str, Any]) -> None:
        """Writes a chunk of an event's choice that has members for `x_gai` alone."""
        index = event.get("choice", 0)
        if index:
            self._open(index)
        self._chunk(self._choice(index, b"{}"), x_gai)

    # -- events --

    def _start(self, event: Event) -> None:
        self._started = event
        self._name_stream(self._id, event.get("model", self._model))
        self._open(0)

    def _text(self, event: Event) -> None:
        text = escape(event["text"])
        details = b""
        if self._details and event["type"] == "reasoning.delta":
            # Clients must assign the text to one of several signed blocks. Text without an entry is the first block's.
            details = b',"reasoning_details":[{"type":"reasoning.text","text":%b,"index":%d}]' % (text, self._details)
        if event["type"] == "text.delta" and "choice" not in event:
            self._length += len(event["text"])
        self._delta(event, b'{"%b":%b%b}' % (_TEXT_KEYS[event["type"]], text, details))

    def _signature(self, event: Event) -> None:
        if "call_id" in event:
            self._call_signature(event)
            return
        detail = reasoning_detail(self._details, event, self._started)
        self._details += 1
        self._text_heads = {kind: head for kind, head in self._text_heads.items() if kind != "reasoning.delta"}
        self._delta(event, b'{"reasoning_details":[%b]}' % encode_json(detail))

    def _call_signature(self, event: Event) -> None:
        key = _call_key(event)
        is_known = key in self._signatures
        has_started = key in self._calls
        self._signatures[key] = "" if has_started else event["signature"]
        if has_started and not is_known:
            # OpenAI's Python SDK asserts that every fragment of a call has a `function`.
            extra = encode_json(extra_content(event["signature"]))
            self._call_delta(event, b'"function":{"arguments":""},"extra_content":%b' % extra)

    def _call_start(self, event: Event) -> None:
        if "executed_by" in event:
            return
        key = _call_key(event)
        self._calls[key] = len(self._calls) if self._is_run else event.get("index", len(self._calls))
        entry: dict[str, Any] = {
            "id": event["call_id"],
            "type": "function",
            "function": {"name": event["tool_call"].get("name", ""), "arguments": ""},
        }
        if key in self._signatures:
            entry["extra_content"] = extra_content(self._signatures[key])
            self._signatures[key] = ""
        self._call_delta(event, encode_json(entry)[1:-1])

    def _call_arguments(self, event: Event) -> None:
        key, fragment = _call_key(event), event["arguments"]
        if key not in self._calls:  # the gateway's, or a processor has dropped its start
            return
        if fragment.strip():
            self._with_arguments.add(key)
        self._call_delta(event, b'"function":{"arguments":%b}' % escape(fragment))

    def _call(self, event: Event) -> None:
        if "executed_by" in event:
            self._of_run(event)
            return
        key = _call_key(event)
        if key not in self._calls:
            self._call_start(event)
        if key not in self._with_arguments:
            arguments = argument_text(event["tool_call"]["input"])
            self._call_delta(event, b'"function":{"arguments":%b}' % escape(arguments))
        if "signature" in event:
            self._call_signature(event)

    def _call_delta(self, event: Event, members: bytes) -> None:
        self._delta(event, b'{"tool_calls":[{"index":%d,%b}]}' % (self._calls[_call_key(event)], members))

    def _citations(self, event: Event) -> None:
        length = 0 if "choice" in event else self._length
        annotations = [
            {**annotation(citation, length), "index": index}
            for index, citation in enumerate(event["citations"], self._annotations)
        ]
        self._annotations += len(annotations)
        self._delta(event, b'{"annotations":%b}' % encode_json(annotations))

    def _audio(self, event: Event) -> None:
        self._delta(event, b'{"audio":{"data":%b}}' % escape(event["audio"]["chunk"]))

    def _unmapped(self, event: Event) -> None:
        key = _UNMAPPED[event["type"]]
        self._beside(event, {key: event[key]} if key in event else {})  # type: ignore[literal-required]  # the key depends on the type

    def _step(self, event: Event) -> None:
        self._is_run = True

    def _of_run(self, event: Event) -> None:
        self._beside(event, run_members(event))

    def _provider_block(self, event: Event) -> None:
        self._beside(event, {"provider_block": block_members(event)})

    def _snapshot(self, event: Event) -> None:
        self._usage = event["usage"]

    def _warning(self, event: Event) -> None:
        note_warning(self._warnings, event)

    def _finish(self, event: Event) -> None:
        usage = event.get("usage", self._usage) if self._usage_asked else {}
        with_calls = {choice for choice, _ in self._calls}
        reason, x_gai = finish_reason_of(event, has_calls=0 in with_calls)
        last = {"warnings": self._warnings} if self._warnings else {}
        for index in filter(None, self._choices):
            own, _ = finish_reason_of(finish_of(event, index), has_calls=index in with_calls)
            self._chunk(self._choice(index, b"{}", escape(own)))
        self._chunk(self._choice(0, b"{}", escape(reason)), x_gai if usage else {**x_gai, **last})
        if usage:
            self._usage_chunk(usage, last)

    def _usage_chunk(self, usage: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        """Writes the chunk of the usage. `more` are further members of its `x_gai`."""
        counts, beside = usage_of(usage)
        extra = {**beside, **more}
        usage_extra = b',"x_gai":' + encode_json(extra) if extra else b""
        self._frame(self._begin() + b'],"usage":' + encode_json(counts) + usage_extra + b"}")

    def _error(self, event: Event) -> None:
        self._frame(encode_json({"error": error_object(Error.from_payload(event["error"]))}))

    def _done(self, event: Event) -> None:
        if event["finished"] and self._sse:
            self._frame(b"[DONE]")


_WRITERS: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "start": Chunks._start,
    **dict.fromkeys(_TEXT_KEYS, Chunks._text),
    "reasoning.signature": Chunks._signature,
    "tool.call.start": Chunks._call_start,
    "tool.call.delta": Chunks._call_arguments,
    "tool.call": Chunks._call,
    "citations": Chunks._citations,
    "audio.delta": Chunks._audio,
    **dict.fromkeys(_UNMAPPED, Chunks._unmapped),
    **dict.fromkeys(("tool.result", "approval.required", "approval.decided"), Chunks._of_run),
    "step.start": Chunks._step,
    "provider.block": Chunks._provider_block,
    "usage": Chunks._snapshot,
    "warning": Chunks._warning,
    "finish": Chunks._finish,
    "error": Chunks._error,
    "done": Chunks._done,
}
