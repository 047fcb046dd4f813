"""A function of the user's: its answer is events of `gai.events.v1`, one JSON object a line.

Source: docs/events.md. A request is a native one; its `messages` begin with `system` and end with `query`. What is
unusual:

* Events are written by hand: members of the envelope may be missing, and so may `start` and `finish`. An answer that
  ends with `done` alone has the reason `tool_calls` if it has calls, else `stop`.
* A call may come as `tool.call` alone.
* `error` ends the answer with its own code.
* `stream.reset` and `step.reset` cannot be passed on: what is before them has been sent.
* The events of a run of another gateway are left out: its calls are neither this one's nor the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Required, TypedDict

import msgspec

from gai_fast.core.collector import Collector
from gai_fast.core.json.chunks import count, label, member, parse_chunk
from gai_fast.core.requests.reading import conversation
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import DELTAS, FINISH_REASONS, KEYS, TYPES, Event, in_order, is_empty
from gai_fast.model.request import Request
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.answers.events import argument_piece, counted_usage
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.tool_calls import ToolCall, ToolCalls
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.parts import is_given
from gai_fast.providers.requests.target import Target

_OF_THE_GATEWAY: Final = frozenset(
    ("query", "system", "messages", "model", "provider_options", "extra", "json_snapshots", "stream", "resumable")
) | {"request_id", "idempotency_key", "gateway_tools", "max_steps", "approvals"}
"""Fields of a native request that are not sent as they are."""


class Python(API):
    """The one API."""

    provider = "python"
    framing = "ndjson"
    calls_function = True
    has_custom_tools = True
    description = "a function of your own"

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        given = {name: getattr(request, name) for name in request.__struct_fields__ if name not in _OF_THE_GATEWAY}
        fields = {"messages": conversation(request), **{name: given[name] for name in given if is_given(given[name])}}
        body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fields))
        return {"model": target.model, **body}

    def adapter(self, model: str | None = None) -> EventsAdapter:
        return EventsAdapter(self, model)


_MEMBERS: Final = frozenset(KEYS) - {"schema", "ts", "seq", "trace_id", "request_id", "stream_id", "from_seq"}
"""Members of events that are passed on; those of the envelope are the gateway's own."""
_NOT_PASSED_ON: Final = frozenset(
    ("json.snapshot", "stream.gap", "step.start", "tool.progress", "approval.required", "approval.decided")
)
"""Events that the gateway itself makes."""
_RESETS: Final = frozenset(("stream.reset", "step.reset"))
_NUMBERS: Final = ("choice", "index", "step")
_SOURCES: Final = ("counted", "estimated", "partial")
"""The sources of usage that the provider did not count."""


class EventsAdapter(ProviderAdapter):
    """Reads events."""

    text_members = frozenset({"text"})
    ignored_members = frozenset({"seq"})

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self._calls: dict[int, ToolCalls] = {}  # by choice
        self._open: dict[tuple[int, str], ToolCall] = {}  # by choice and the source's own id
        self._run_calls: set[str] = set()  # the ids of calls that another gateway makes
        self._source = ""
        self._reason = ""
        self._raw = ""

    def start(self, identifier: str | None, model: str | None) -> list[Event]:
        return [self._named(event) for event in super().start(identifier, model)]

    def end(self, finish_reason: str, raw: str | None) -> Event:
        return self._named(super().end(finish_reason, raw))

    def _named(self, event: Event) -> Event:
        """Returns an event with the provider that the source has named, if any: formats read signatures by it."""
        return {**event, "provider": self._source} if self._source else event

    def receive(self, name: str, data: str) -> list[Event]:
        return self._read(parse_chunk(data), data)

    def receive_text(self, index: int | None, text: str) -> Event | None:
        return {"type": "text.delta", "text": text} if self.started else None

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        return self._read(answer, text)

    def _read(self, parsed: Any, text: str) -> list[Event]:
        kind = parsed.get("type") if isinstance(parsed, dict) else None
        if kind == "text.delta" and len(parsed) == 2 and self.started:  # most events
            text_only = parsed.get("text")
            if type(text_only) is str and text_only:
                self.copyable = True
                return [{"type": "text.delta", "text": text_only}]
        if kind not in TYPES:
            raise Malformed("it is no event of gai.events.v1")
        self.chunk = text
        self.copyable = kind in DELTAS
        if kind == "start":
            self._source = label(parsed.get("provider"))[: LIMITS.kept_word]
            return self.start(None, label(parsed.get("model")))
        if kind == "error":
            raise _error_of(parsed)
        if kind in _RESETS:
            raise self.spliced()
        if kind == "done":
            self.ended = parsed.get("finished") is not False
            return []
        if kind in _NOT_PASSED_ON:
            return []
        event: Event = {key: value for key, value in parsed.items() if key in _MEMBERS}  # type: ignore[assignment]  # keys of events
        _check(event)
        if self._is_of_run(kind, event):
            return []
        if kind == "finish":
            return self._finished(event)
        if kind in _CALLS:
            events = self._call(kind, event)
        elif kind in DELTAS and not event[DELTAS[kind]]:  # type: ignore[literal-required]  # the key depends on the type
            events = []
        else:
            events = [event]
        if kind == "usage":
            counted = self._count(event["usage"])
            event["usage"], events = counted, [event] if counted else []
        return [*self.start(None, None), *events] if events else []

    def _is_of_run(self, kind: str, event: Event) -> bool:
        """Returns whether an event is part of a call that another gateway makes."""
        if kind not in _CALLS and kind != "tool.result":
            return False
        call_id = label(event.get("call_id"))
        if "executed_by" in event and call_id not in self._run_calls:
            self.room.take(len(call_id))
            self._run_calls.add(call_id)
        return call_id in self._run_calls

    def _finished(self, event: Event) -> list[Event]:
        reason = event.get("finish_reason")
        self.is_complete = True
        self._reason = str(reason) if reason in FINISH_REASONS else "other"
        self._raw = label(event.get("finish_reason_raw"))[: LIMITS.kept_word]
        self._count(event.get("usage") or {})
        return self.start(None, label(event.get("model")))

    def _count(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Reads the usage of an event. Returns its counts, empty if none can be read."""
        input_tokens, output_tokens = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
        is_whole = input_tokens is not None and output_tokens is not None
        counted: dict[str, Any] = counted_usage(
            input_tokens,
            output_tokens,
            cached=count(usage.get("cached_input_tokens")),
            written=count(usage.get("cache_write_input_tokens")),
            written_1h=count(usage.get("cache_write_1h_input_tokens")),
            reasoning=count(usage.get("reasoning_tokens")),
            total=None if is_whole else count(usage.get("total_tokens")),
        )
        self.searches = count(usage.get("web_search_requests")) or self.searches
        if counted:
            if usage.get("source") in _SOURCES:
                counted["source"] = usage["source"]
            self.usage = counted
        return counted

    def _call(self, kind: str, event: Event) -> list[Event]:
        """Reads a part of a call. Parts of one call have one `call_id`."""
        choice, given = event.get("choice", 0), label(event.get("call_id"))
        calls = self._calls.setdefault(choice, ToolCalls(self.room))
        call = self._open.get((choice, given))
        events: list[Event] = []
        if call is None:
            call, events = calls.open(given, label(member(event, "tool_call").get("name")), self.seed(choice))
            call.keeps_pieces = True
            if kind != "tool.call":
                self._open[choice, given] = call
        if kind == "tool.call.delta":
            events += calls.add(call, event["arguments"])
        elif kind == "tool.call":
            if not call.pieces:
                events += calls.add(call, argument_piece(event["tool_call"].get("input")))
            events += calls.close(call)
            self._open.pop((choice, given), None)
        return _of_choice(events, choice)

    def finish(self) -> list[Event]:
        if not self.started or not (self.ended or self._reason):
            raise self.truncated()
        rest = self._closed_calls(cut_off=False)
        has_calls = bool(self._calls.get(0))
        reason = self._reason or ("tool_calls" if has_calls else "stop")
        return [*rest, self.end(reason, self._raw or None)]

    def abort(self) -> list[Event]:
        return self._closed_calls(cut_off=True)

    def _closed_calls(self, *, cut_off: bool) -> list[Event]:
        return [
            event
            for choice, calls in self._calls.items()
            for event in _of_choice(calls.close_all(cut_off=cut_off), choice)
        ]

    def word(self) -> str:
        return self._reason


_Offset = Annotated[int, msgspec.Meta(ge=0)]


class _Citation(TypedDict, total=False):
    """One of `citations`. Here, as below: members that are not named are passed on."""

    uri: str
    title: str
    start: _Offset
    end: _Offset
    cited_text: str


class _Safety(TypedDict, total=False):
    """`safety`."""

    category: str
    action: str
    score: float


class _Image(TypedDict, total=False):
    """`image`."""

    data: Required[str]
    media_type: str
    partial: bool


class _Audio(TypedDict, total=False):
    """`audio`."""

    chunk: Required[str]
    format: str


class _ServerTool(TypedDict, total=False):
    """`server_tool`."""

    id: str
    name: Required[str]
    status: Required[Literal["started", "completed", "failed"]]


class _Probability(TypedDict, total=False):
    """One of `logprobs`."""

    token: Required[str]
    logprob: Required[float]
    bytes: list[int]
    top_logprobs: list[dict[str, Any]]


class _NamedCall(TypedDict, total=False):
    """`tool_call`."""

    name: str


_SHAPES: Final[Mapping[str, Any]] = {
    "citations": list[_Citation],
    "safety": _Safety,
    "image": _Image,
    "audio": _Audio,
    "server_tool": _ServerTool,
    "logprobs": list[_Probability],
    "tool_call": _NamedCall,
    "block": dict[str, Any] | int,
    "usage": dict[str, Any],
    "provider_metadata": dict[str, Any],
    "signature": str,
    "redacted": bool,
    "reason": str,
    "continued": str,
}
"""The types of members, as docs/events.md has them."""
_REQUIRED: Final = {
    "citations": "citations",
    "safety": "safety",
    "image": "image",
    "audio.delta": "audio",
    "server_tool": "server_tool",
    "provider.block": "block",
    "reasoning.signature": "signature",
    "usage": "usage",
}
"""The member without which an event of a type says nothing."""
_CALLS: Final = frozenset(("tool.call", "tool.call.start", "tool.call.delta"))


def _of_choice(events: list[Event], choice: int) -> list[Event]:
    return [{**event, "choice": choice} for event in events] if choice else events


def _check(event: Event) -> None:
    """Checks the members of an event.

    Raises:
        Malformed: A member is missing, or has another type than in docs/events.md.
    """
    kind = event["type"]
    members: dict[str, Any] = event  # type: ignore[assignment]  # looked at by name
    for name in _NUMBERS:
        number = members.get(name, 0)
        if type(number) is not int or number < 0:
            raise Malformed(f"`{name}` of a {kind!r} is no number from 0")
    if kind in DELTAS:
        if not isinstance(members.get(DELTAS[kind], ""), str):
            raise Malformed(f"`{DELTAS[kind]}` of a {kind!r} is no text")
        members.setdefault(DELTAS[kind], "")
    if is_empty(members.get(_REQUIRED.get(kind, "type"))):
        raise Malformed(f"a {kind!r} without its `{_REQUIRED[kind]}`")
    for name in [name for name in members if name in _SHAPES]:
        try:
            members[name] = _without_nulls(members[name])
            msgspec.convert(members[name], _SHAPES[name])
        except msgspec.ValidationError as problem:
            raise Malformed(f"`{name}` of a {kind!r} is not as docs/events.md has it: {problem}") from None
    if kind == "text.delta" or kind == "reasoning.delta":
        return
    if kind == "provider.block" and not (label(members.get("provider")) and isinstance(members["block"], dict)):
        raise Malformed("a 'provider.block' without its `provider`, or whose `block` is no object")
    if kind in _CALLS and not label(members.get("call_id")):
        raise Malformed(f"a {kind!r} without its `call_id`")
    try:
        Collector(others=TYPES).event(in_order(members))
    except ValueError as problem:
        raise Malformed(str(problem)) from None


def _without_nulls(value: Any) -> Any:
    """Returns a member without the members of it that are null: these are absent."""
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if each is not None}
    return value


def _error_of(event: dict[str, Any]) -> Error:
    error = Error.from_payload(member(event, "error"), "python")
    error.phase = None  # the stream's own decides
    return error


APIS: Final[dict[str, API]] = {"": Python()}
