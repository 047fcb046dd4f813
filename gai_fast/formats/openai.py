"""OpenAI's Chat Completions: chunks and whole completions out, errors as its SDKs expect them.

Owns the dialect's answers and the bytes of passthrough; its requests are read in `_chat_request.py`. Knows no route and
no provider's quirks.

Shapes (OpenAI's `chat_completion_chunk.py`; the extensions are those that clients know already):

1. Frames are `data:` lines without `event:`: the Groq SDK wraps named events. `[DONE]` says complete, so it never
   follows an error, which is `{"error": {message, type, param, code}}`.
2. Reasoning is `delta.reasoning_content` (DeepSeek). Its signatures and opaque blocks are `delta.reasoning_details`
   (OpenRouter), whose `text` is left out of deltas up to the first signature: readers would take it for more
   reasoning. A tool call's signature is `extra_content.google.thought_signature` (Google).
3. Entries of `reasoning_details` and `annotations` have a dense `index`: OpenAI's Python SDK merges list entries of
   deltas by it and fails without.
4. What has no place in the dialect stands under `x_gai` on the chunk.
5. Usage is told where it was asked for; then all other chunks have `"usage": null`, as OpenAI's have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from gai_fast._impl import Part, Piece, encode_json, escape
from gai_fast.errors import Code, Error
from gai_fast.events import Event, JSONText
from gai_fast.formats._base import (
    ClientRequest,
    DataEncoder,
    Encoder,
    Format,
    Framing,
    PassthroughEncoder,
    StreamContext,
    StreamEncoder,
    WholeEncoder,
)
from gai_fast.formats._chat_request import DETAIL_FORMATS, read_chat_members, read_chat_request, with_usage
from gai_fast.request import Request
from gai_fast.result import Result

# ---- parts of an answer ----------------------------------------------------------------------------------------------

# Finish reasons that OpenAI's clients do not know.
_OWN_REASONS: Final = frozenset(("cancelled", "pause", "other"))

# OpenAI has no type for a broken upstream: everything that is not the caller's doing is its `server_error`. An unknown
# model is `invalid_request_error` there as well.
_ERROR_TYPES: Final[Mapping[Code, str]] = {
    "invalid_request": "invalid_request_error",
    "unauthorized": "authentication_error",
    "forbidden": "permission_error",
    "not_found": "invalid_request_error",
    "rate_limited": "rate_limit_error",
    "context_length_exceeded": "invalid_request_error",
    "content_filtered": "invalid_request_error",
    "unsupported": "invalid_request_error",
}


def _told_finish(event: Event) -> tuple[str, dict[str, Any]]:
    """The dialect's `finish_reason`, and what goes under `x_gai` beside it."""
    reason = event.get("finish_reason", "stop")
    aside: dict[str, Any] = {}
    if reason in _OWN_REASONS:
        reason, aside["finish_reason"] = "stop", reason
    if "continued" in event:
        aside["continued"] = event["continued"]
    return reason, aside


def _told_usage(usage: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Usage in OpenAI's names, and what goes under `x_gai` beside it."""
    prompt = {"cached_tokens": usage.get("cached_input_tokens", 0)}
    if "cache_write_input_tokens" in usage:
        prompt["cache_write_tokens"] = usage["cache_write_input_tokens"]
    told = {
        "prompt_tokens": usage.get("input_tokens", 0),
        "completion_tokens": usage.get("output_tokens", 0),
        "total_tokens": usage.get("total_tokens", 0),
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
    }
    return told, {"usage_source": usage["source"]} if "source" in usage else {}


def _annotation(citation: Mapping[str, Any], length: int) -> dict[str, Any]:
    """A citation with all four members, since the AI SDK's provider for OpenAI refuses a stream where one is missing.

    Args:
        citation: As the event has it.
        length: The code points of the text so far: both offsets where the citation has none.
    """
    start, end = citation.get("start"), citation.get("end")
    if start is None or end is None:
        start = end = length
    source = {"url": citation.get("uri", ""), "title": citation.get("title", "")}
    return {"type": "url_citation", "url_citation": {**source, "start_index": start, "end_index": end}}


def _reasoning_detail(index: int, block: Mapping[str, Any], provider: str | None) -> dict[str, Any]:
    """OpenRouter's entry for a signature event, or for a reasoning part of a message."""
    if block.get("redacted"):
        detail = {"type": "reasoning.encrypted", "data": block["signature"]}
    else:
        text = {"text": block["text"]} if block.get("text") else {}
        detail = {"type": "reasoning.text", **text, "signature": block["signature"]}
    if provider in DETAIL_FORMATS:
        detail["format"] = DETAIL_FORMATS[provider]
    return {**detail, "index": index}


def _extra_content(signature: str) -> dict[str, Any]:
    return {"google": {"thought_signature": signature}}


def _arguments(value: Any) -> str:
    """A complete call's arguments as the text the dialect wants."""
    if isinstance(value, JSONText):
        return value.text
    return value if isinstance(value, str) else encode_json(value).decode()


def _error_object(error: Error) -> dict[str, Any]:
    own = error.details or {}
    if own.get("message"):
        return {key: own.get(key) for key in ("message", "type", "param", "code")}
    return {
        "message": error.message,
        "type": _ERROR_TYPES.get(error.code, "server_error"),
        "param": None,
        "code": error.code,
    }


# ---- streams ---------------------------------------------------------------------------------------------------------

_TEXT_KEYS: Final = {
    "text.delta": b"content",
    "reasoning.delta": b"reasoning_content",
    "refusal.delta": b"refusal",
}

# Events whose payload has no place in the dialect, and the key that holds it.
_ASIDES: Final = {
    "image": "image",
    "json.snapshot": "json",
    "safety": "safety",
    "server_tool": "server_tool",
    "tool.result": "tool_result",
}

_CallKey: TypeAlias = tuple[int, str]


def _call_key(event: Event) -> _CallKey:
    """Which call an event speaks of: ids are unique within their choice only."""
    return event.get("choice", 0), event["call_id"]


class _Chunks(DataEncoder):
    """Events → `chat.completion.chunk` frames."""

    __slots__ = (
        "_annotations",
        "_calls",
        "_choices",
        "_created",
        "_details",
        "_head",
        "_id",
        "_length",
        "_model",
        "_provider",
        "_signatures",
        "_tail",
        "_text_heads",
        "_text_tail",
        "_usage",
        "_usage_asked",
        "_warnings",
        "_with_arguments",
    )

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._usage_asked = context.usage
        self._created = context.clock() // 1000
        self._tail = b',"usage":null' if context.usage else b""
        self._name_stream(f"chatcmpl-{context.stream_id}", context.model)
        self._provider: str | None = None
        self._choices: list[int] = []
        self._details = 0
        self._annotations = 0
        self._length = 0
        self._calls: dict[_CallKey, int] = {}
        self._with_arguments: set[_CallKey] = set()
        # Told, or waiting for the call's start.
        self._signatures: dict[_CallKey, str] = {}
        self._usage: Mapping[str, Any] = {}
        self._warnings: list[dict[str, Any]] = []

    def event(self, event: Event) -> None:
        """Writes the chunks of one event."""
        # The hot path: all but the text is written once per stream, not once per token (0.24 against 1.2 µs).
        head = self._text_heads.get(event["type"])
        if head is not None and "choice" not in event:
            if not self._head:
                self._begin()
                head = self._text_heads[event["type"]]
            self._seq += 1
            if self._ids:
                self._out.append(b"id: %b.%d\n" % (self._ids, self._seq))
            text = event["text"]
            self._out.append(head + escape(text) + self._text_tail)
            if event["type"] == "text.delta":
                self._length += len(text)
        else:
            super().event(event)

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """How a delta like this one is written."""
        self._begin()
        head = self._text_heads.get(event["type"])
        if head is not None and "choice" not in event:
            return self._parts(head + b'"', b'"' + self._text_tail)
        return super().delta_parts(event, key)

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Takes deltas that are written already."""
        super().append_frames(frames, count)
        self._length += characters

    def _encode(self, event: Event) -> None:
        write = _WRITERS.get(event["type"])
        if write is not None:
            write(self, event)

    # -- chunks --

    def _name_stream(self, identifier: str, model: str) -> None:
        """Sets what all chunks have in common. It is written with the first of them: what is passed on has none."""
        self._id, self._model = identifier, model
        self._head = b""
        self._text_heads = dict.fromkeys(_TEXT_KEYS, b"")

    def _begin(self) -> bytes:
        """What every chunk begins with."""
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

    def _choice(self, index: int, delta: bytes, finish_reason: bytes = b"null") -> bytes:
        return b'{"index":%d,"delta":%b,"finish_reason":%b}' % (index, delta, finish_reason)

    def _chunk(self, choices: bytes, aside: Mapping[str, Any] | None = None) -> None:
        extra = b',"x_gai":' + encode_json(aside) if aside else b""
        self._frame(self._begin() + choices + b"]" + self._tail + extra + b"}")

    def _open(self, index: int) -> None:
        """Says a choice's role, once: the SDK's accumulator joins a second one to the first."""
        if index not in self._choices:
            self._choices.append(index)
            self._chunk(self._choice(index, b'{"role":"assistant","content":""}'))

    def _delta(self, event: Event, delta: bytes) -> None:
        index = event.get("choice", 0)
        self._open(index)
        self._chunk(self._choice(index, delta))

    # -- events --

    def _start(self, event: Event) -> None:
        self._provider = event.get("provider")
        self._name_stream(self._id, event.get("model", self._model))
        self._open(0)

    def _text(self, event: Event) -> None:
        said = escape(event["text"])
        aside = b""
        if self._details and event["type"] == "reasoning.delta":
            # Of several signed blocks a client must know which text is whose; the first one's is what is left.
            aside = b',"reasoning_details":[{"type":"reasoning.text","text":%b,"index":%d}]' % (said, self._details)
        self._delta(event, b'{"%b":%b%b}' % (_TEXT_KEYS[event["type"]], said, aside))

    def _signature(self, event: Event) -> None:
        if "call_id" in event:
            self._call_signature(event)
            return
        detail = _reasoning_detail(self._details, event, self._provider)
        self._details += 1
        self._text_heads.pop("reasoning.delta", None)
        self._delta(event, b'{"reasoning_details":[%b]}' % encode_json(detail))

    def _call_signature(self, event: Event) -> None:
        key = _call_key(event)
        told = key in self._signatures
        self._signatures[key] = event["signature"]
        if key in self._calls and not told:
            # OpenAI's Python SDK asserts that every fragment of a call has a `function`.
            extra = encode_json(_extra_content(event["signature"]))
            self._call_delta(event, b'"function":{"arguments":""},"extra_content":%b' % extra)

    def _call_start(self, event: Event) -> None:
        key = _call_key(event)
        self._calls[key] = event.get("index", len(self._calls))
        entry: dict[str, Any] = {
            "id": event["call_id"],
            "type": "function",
            "function": {"name": event["tool_call"].get("name", ""), "arguments": ""},
        }
        if key in self._signatures:
            entry["extra_content"] = _extra_content(self._signatures[key])
        self._call_delta(event, encode_json(entry)[1:-1])

    def _call_arguments(self, event: Event) -> None:
        fragment = event["arguments"]
        if fragment.strip():
            self._with_arguments.add(_call_key(event))
        self._call_delta(event, b'"function":{"arguments":%b}' % escape(fragment))

    def _call(self, event: Event) -> None:
        key = _call_key(event)
        if key not in self._calls:
            self._call_start(event)
        if key not in self._with_arguments:
            arguments = _arguments(event["tool_call"]["input"])
            self._call_delta(event, b'"function":{"arguments":%b}' % escape(arguments))
        if "signature" in event:
            self._call_signature(event)

    def _call_delta(self, event: Event, members: bytes) -> None:
        self._delta(event, b'{"tool_calls":[{"index":%d,%b}]}' % (self._calls[_call_key(event)], members))

    def _citations(self, event: Event) -> None:
        length = 0 if "choice" in event else self._length
        told = [
            {**_annotation(citation, length), "index": index}
            for index, citation in enumerate(event["citations"], self._annotations)
        ]
        self._annotations += len(told)
        self._delta(event, b'{"annotations":%b}' % encode_json(told))

    def _audio(self, event: Event) -> None:
        self._delta(event, b'{"audio":{"data":%b}}' % escape(event["audio"]["chunk"]))

    def _aside(self, event: Event) -> None:
        keys = ("call_id", _ASIDES[event["type"]])
        self._chunk(self._choice(0, b"{}"), {key: event[key] for key in keys if key in event})  # type: ignore[literal-required]  # the key depends on the type

    def _snapshot(self, event: Event) -> None:
        self._usage = event["usage"]

    def _warning(self, event: Event) -> None:
        self._warnings.append({"reason": event.get("reason", "")})

    def _finish(self, event: Event) -> None:
        usage = event.get("usage", self._usage) if self._usage_asked else {}
        reason, aside = _told_finish(event)
        last = {"warnings": self._warnings} if self._warnings else {}
        finish_reason = escape(reason)
        for index in filter(None, self._choices):
            self._chunk(self._choice(index, b"{}", finish_reason))
        self._chunk(self._choice(0, b"{}", finish_reason), aside if usage else {**aside, **last})
        if usage:
            told, beside = _told_usage(usage)
            extra = {**beside, **last}
            x_gai = b',"x_gai":' + encode_json(extra) if extra else b""
            self._frame(self._begin() + b'],"usage":' + encode_json(told) + x_gai + b"}")

    def _error(self, event: Event) -> None:
        self._frame(encode_json({"error": _error_object(Error.from_payload(event["error"]))}))

    def _done(self, event: Event) -> None:
        if event["finished"] and self._sse:
            self._frame(b"[DONE]")


_WRITERS: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "start": _Chunks._start,
    **dict.fromkeys(_TEXT_KEYS, _Chunks._text),
    "reasoning.signature": _Chunks._signature,
    "tool.call.start": _Chunks._call_start,
    "tool.call.delta": _Chunks._call_arguments,
    "tool.call": _Chunks._call,
    "citations": _Chunks._citations,
    "audio.delta": _Chunks._audio,
    **dict.fromkeys(_ASIDES, _Chunks._aside),
    "usage": _Chunks._snapshot,
    "warning": _Chunks._warning,
    "finish": _Chunks._finish,
    "error": _Chunks._error,
    "done": _Chunks._done,
}


class _Passthrough(_Chunks):
    """The upstream's own frames, byte for byte, and what they leave out (CONTRACT §5 `warning`).

    1. Events that the frames have told already write nothing.
    2. Warnings stand on one chunk with `choices: []` before `[DONE]`.
    3. `[DONE]` waits for the `finish`, and is added where the upstream sent none: after an error there is none.
    4. An error that no frame told (a cut stream, a timeout) and a cancelled answer get chunks of our own.
    5. An answer without any frame (a whole JSON object to a streamed request) is translated.
    """

    __slots__ = ("_done_frame", "_end", "_passing", "_told")

    whole: bool = False

    def __init__(self, framing: Framing, context: StreamContext) -> None:
        super().__init__(framing, context)
        self._passing = False
        self._told = False
        self._done_frame = b""
        self._end = b""

    def frame(self, raw: bytes, *, last: bool) -> None:
        """Takes one frame of the upstream's."""
        self._passing = True
        if last:
            if _DONE_LINE.search(raw):
                self._done_frame = raw
                return
            # Bare JSON is an error to the relay, but no client reads a line that is no SSE.
            self._told = _DATA_LINE.search(raw) is not None
        self._out.append(raw)
        self._end = raw[-4:] if len(raw) >= 4 else (self._end + raw)[-4:]

    def delta_parts(self, event: Event, key: str) -> Sequence[Part] | None:
        """Nothing is written for a delta: its frame is passed on."""
        return ()

    def append_frames(self, frames: Piece, count: int, characters: int = 0) -> None:
        """Takes frames of the upstream's, all of them deltas."""
        self._out.append(frames)
        self._end = bytes(frames[-4:]) or b"\n\n"  # what has been sent already ended so

    def event(self, event: Event) -> None:
        """Writes what no frame has told."""
        if event["type"] == "stream.reset":
            self._passing, self._choices = False, [0]  # the next answer may have no frames; its role has been told
        if not self._passing:
            super().event(event)
            return
        write = _PASSING.get(event["type"])
        if write is not None:
            write(self, event)

    def heartbeat(self) -> None:
        """Writes a keep-alive."""
        # The LF of a CRLF may come with the next frame: after a LF of ours it would be an empty line.
        if self._end.endswith(b"\r"):
            self._out.append(b": ping\r")
        else:
            super().heartbeat()

    def _own(self) -> None:
        """Makes sure that a frame of ours begins a line and an event of its own."""
        if self._end and not _BLANK_LINE.search(self._end):
            self._out.append(b"\n\n")
        self._end = b""

    def _named(self, event: Event) -> None:
        identifier = event.get("provider_metadata", {}).get("id")
        self._name_stream(identifier or self._id, event.get("model", self._model))

    def _ended(self, event: Event) -> None:
        # The upstream's own reason has its own word; a cancel of ours has none.
        if event.get("finish_reason") == "cancelled" and "finish_reason_raw" not in event:
            self._own()
            self._finish(event)
        elif self._warnings:
            self._own()
            self._chunk(b"", {"warnings": self._warnings})

    def _failed(self, event: Event) -> None:
        if not self._told:
            self._own()
            self._error(event)

    def _closed(self, event: Event) -> None:
        if event["finished"]:
            if not self._done_frame:
                self._own()
            self._out.append(self._done_frame or b"data: [DONE]\n\n")


_PASSING: Final[Mapping[str, Callable[[Any, Event], None]]] = {
    "start": _Passthrough._named,
    "warning": _Chunks._warning,
    "usage": _Chunks._snapshot,
    "finish": _Passthrough._ended,
    "error": _Passthrough._failed,
    "done": _Passthrough._closed,
}

_DATA_LINE: Final = re.compile(rb"(?:^|[\r\n])data:")
# A prefix test, as the SDKs make it (openai `_streaming.py`).
_DONE_LINE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2}\Z")


# ---- whole answers ---------------------------------------------------------------------------------------------------


class _Whole(WholeEncoder):
    """Events → one `chat.completion`."""

    def __init__(self, context: StreamContext) -> None:
        super().__init__(context)
        self._created = context.clock() // 1000
        self._finish: Event = {}
        self._warnings: list[dict[str, Any]] = []

    def event(self, event: Event) -> None:
        """Takes one event."""
        if event["type"] == "warning":
            self._warnings.append({"reason": event.get("reason", "")})
        elif event["type"] == "finish":
            self._finish = event
        super().event(event)

    def _answer(self, result: Result) -> bytes:
        reason, aside = _told_finish(self._finish)
        answer: dict[str, Any] = {
            "id": f"chatcmpl-{self._context.stream_id}",
            "object": "chat.completion",
            "created": self._created,
            "model": result.model or self._context.model,
            "choices": [{"index": 0, "message": self._message(result), "finish_reason": reason}],
        }
        if result.usage:
            answer["usage"], beside = _told_usage(result.usage)
            aside |= beside
        if self._warnings:
            aside["warnings"] = self._warnings
        if aside:
            answer["x_gai"] = aside
        return encode_json(answer)

    def _message(self, result: Result) -> dict[str, Any]:
        parts = result.message["content"]
        silent = not result.text and (result.tool_calls or result.refusal)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if silent else result.text,
            "refusal": result.refusal or None,
        }
        if result.reasoning:
            message["reasoning_content"] = result.reasoning
        signed = [part for part in parts if part["type"] == "reasoning" and "signature" in part]
        if signed:
            message["reasoning_details"] = [
                _reasoning_detail(index, part, result.provider) for index, part in enumerate(signed)
            ]
        if result.tool_calls:
            calls = [part for part in parts if part["type"] == "tool_call"]
            message["tool_calls"] = [
                {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                | ({"extra_content": _extra_content(part["signature"])} if "signature" in part else {})
                for call, part in zip(result.tool_calls, calls, strict=True)
            ]
        if result.citations:
            message["annotations"] = [_annotation(citation, len(result.text)) for citation in result.citations]
        return message


class _WholePassthrough(_Whole):
    """The upstream's whole answer as it is; the answer is built from events where the upstream streamed after all."""

    whole: bool = True

    def __init__(self, context: StreamContext) -> None:
        super().__init__(context)
        self._raw = b""

    def frame(self, raw: bytes, *, last: bool) -> None:
        """Takes the upstream's whole body; frames of a stream are told by their events."""
        if last and raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            self._raw = raw

    def _answer(self, result: Result) -> bytes:
        return self._raw or super()._answer(result)


# ---- the format ------------------------------------------------------------------------------------------------------


class OpenAIFormat(Format):
    """OpenAI's Chat Completions."""

    name: ClassVar[str] = "openai"

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """An encoder of `chat.completion.chunk` objects."""
        return _Chunks(framing, context)

    def whole(self, context: StreamContext) -> Encoder:
        """One `chat.completion`."""
        return _Whole(context)

    def passthrough(self, framing: Framing, context: StreamContext, *, whole: bool) -> PassthroughEncoder | None:
        """The upstream's own bytes; NDJSON and streams with ids must be written anew."""
        if whole:
            return _WholePassthrough(context)
        return None if framing == "ndjson" or context.ids else _Passthrough(framing, context)

    def read_request(self, body: dict[str, Any]) -> ClientRequest:
        """The members of a chat request that matter to every route and upstream.

        Raises:
            InvalidRequest: `model` is no string, or `stream` no boolean.
        """
        return read_chat_members(body)

    def with_usage(self, body: dict[str, Any]) -> dict[str, Any]:
        """The same request with `stream_options.include_usage`."""
        return with_usage(body)

    def parse_request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """A chat request as a native one; `stream` is `false` where the client does not say.

        Raises:
            InvalidRequest: The text names the field, mostly by its path in the client's own request.
            Unsupported: `n` > 1.
        """
        return read_chat_request(body)

    def error_body(self, error: Error, request_id: str) -> bytes:
        """`{"error": {message, type, param, code}}`; the upstream's own words where `error.details` holds them."""
        return encode_json({"error": _error_object(error)})


FORMAT = OpenAIFormat()
