"""One answer for each thing that an answer can hold, as events: material of `tools.client_table`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from gai_fast.model.events import FINISH_REASONS, Event, JSONText
from tools.request_specimens import CALL_ID, CITY

Events: TypeAlias = Sequence[Event]
Holds: TypeAlias = Callable[[Event], bool]

SIGNATURE: Final = "c2lnbmVkNDcxMQ=="
THOUGHT: Final = "Thought 4711"

_USAGE: Final = {"input_tokens": 1001, "output_tokens": 1002, "total_tokens": 2003}
_TEXT: Final[Event] = {"type": "text.delta", "text": "Well."}
_IN_CALL: Final = {"call_id": CALL_ID, "index": 0}

CALL: Final[list[Any]] = [
    {"type": "tool.call.start", **_IN_CALL, "tool_call": {"name": "weather"}},
    {"type": "tool.call.delta", **_IN_CALL, "arguments": '{"city":'},
    {"type": "tool.call.delta", **_IN_CALL, "arguments": f'"{CITY}"}}'},
    {
        "type": "tool.call",
        "call_id": CALL_ID,
        "tool_call": {"name": "weather", "input": JSONText(f'{{"city":"{CITY}"}}', {"city": CITY})},
    },
]
"""The events of one call."""


class Answer(NamedTuple):
    """One thing in an answer.

    Args:
        kinds: The types of the events that hold it.
        plain: The events of an answer without it.
        holding: Those of an answer that differs in nothing else.
        marks: Values that a client gets, if it gets the thing unchanged. None: any difference will do.
        is_in: Whether an event of any answer holds it.
    """

    kinds: tuple[str, ...]
    plain: Events
    holding: Events
    marks: tuple[Any, ...]
    is_in: Holds


def answer(
    provider: str,
    content: Iterable[Event] = (),
    *,
    start: Mapping[str, Any] | None = None,
    end: Mapping[str, Any] | None = None,
) -> list[Event]:
    """Returns a whole stream.

    Args:
        provider: The provider that answers.
        content: The events between its first text and its end.
        start: Other members of the `start`.
        end: Other members of the `finish`, or an `error`; `None` takes one away.
    """
    begin: Any = {"type": "start", "provider": provider, "model": "model-1", **(start or {})}
    last: Any = {"type": "finish", "provider": provider, "model": "model-1", "usage": _USAGE, "finish_reason": "stop"}
    last = {key: value for key, value in {**last, **(end or {})}.items() if value is not None}
    done: Event = {"type": "done", "finished": last["type"] == "finish"}
    return [begin, _TEXT, *content, last, done]


def answers(provider: str) -> dict[str, Answer]:
    """Returns the things that an answer of this provider may hold, by their names, in the page's order."""
    specimens = _Specimens(provider)
    _add_texts(specimens)
    _add_calls(specimens)
    _add_citations(specimens)
    _add_media(specimens)
    _add_asides(specimens)
    _add_usage(specimens)
    _add_ends(specimens)
    return specimens.every


class _Specimens:
    """Collects the specimens of one provider."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.every: dict[str, Answer] = {}

    def add(self, name: str, marks: tuple[Any, ...], is_in: Holds, *events: Any, before: Sequence[Any] = ()) -> None:
        """Adds a thing between the first text and the end; `before` stands there in both answers."""
        kinds = tuple(dict.fromkeys(event["type"] for event in events))
        both = answer(self.provider, before), answer(self.provider, [*before, *events])
        self.every[name] = Answer(kinds, *both, marks, is_in)

    def add_instead(self, name: str, marks: tuple[Any, ...], is_in: Holds, plain: Any, holding: Any) -> None:
        """Adds a thing whose events stand in the place of others."""
        kinds = tuple(dict.fromkeys(event["type"] for event in holding if event not in plain))
        both = answer(self.provider, plain), answer(self.provider, holding)
        self.every[name] = Answer(kinds, *both, marks, is_in)

    def add_at_end(
        self, name: str, marks: tuple[Any, ...], is_in: Holds, plain: Any, holding: Any, before: Sequence[Any] = ()
    ) -> None:
        """Adds a thing in the last event, after other events."""
        one, other = (answer(self.provider, before, end=end) for end in (plain, holding))
        self.every[name] = Answer((other[-2]["type"],), one, other, marks, is_in)


def _typed(kind: str, key: str = "", *, call: bool | None = None) -> Holds:
    """Returns whether an event is of this type and has this key; `call`: whether it belongs to one."""

    def is_in(event: Event) -> bool:
        return event["type"] == kind and (not key or key in event) and (call is None or ("call_id" in event) is call)

    return is_in


def _add_texts(to: _Specimens) -> None:
    thought = {"type": "reasoning.delta", "text": THOUGHT}
    signed = {"type": "reasoning.signature", "signature": SIGNATURE}
    named = answer(to.provider, start={"model": "model-4711"}, end={"model": "model-4711"})
    is_named = _typed("start", "model")
    to.every["model"] = Answer(("start",), answer(to.provider), named, ("model-4711",), is_named)
    to.add("text", ("Said 4711",), _typed("text.delta"), {"type": "text.delta", "text": "Said 4711"})
    to.add("reasoning", (THOUGHT,), _typed("reasoning.delta"), thought)
    is_signed = _typed("reasoning.signature", call=False)
    to.add("reasoning signature", (SIGNATURE,), is_signed, signed, before=[thought])
    is_redacted = _typed("reasoning.signature", "redacted")
    to.add("redacted reasoning", (SIGNATURE,), is_redacted, {**signed, "redacted": True})
    to.add("refusal", ("No 4711",), _typed("refusal.delta"), {"type": "refusal.delta", "text": "No 4711"})


def _add_calls(to: _Specimens) -> None:
    to.add("tool call", (CALL_ID, "weather", CITY), _typed("tool.call"), *CALL)
    signature = {"type": "reasoning.signature", "signature": SIGNATURE, "call_id": CALL_ID}
    signed = [*CALL[:-1], signature, {**CALL[-1], "signature": SIGNATURE}]
    is_signed = _typed("reasoning.signature", call=True)
    to.add_instead("call signature", (SIGNATURE,), is_signed, CALL, signed)
    result = {"type": "tool.result", "call_id": CALL_ID, "tool_result": "Result 4711"}
    to.add("tool result", ("Result 4711",), _typed("tool.result"), result, before=CALL)
    _add_run(to)
    ran = {"id": "s1", "name": "web_search", "input": {"q": "Query 4711"}, "output": ["Found 4711"]}
    events = [{"type": "server_tool", "server_tool": {**ran, "status": status}} for status in ("started", "completed")]
    to.add("server tool", ("Query 4711", "Found 4711"), _typed("server_tool"), *events)
    block = {"type": "compaction", "id": "cmp_4711", "encrypted_content": "Block 4711"}
    own = {"type": "provider.block", "provider": to.provider, "block": block, "index": 1}
    to.add("provider block", ("Block 4711",), _typed("provider.block"), own)


def _add_run(to: _Specimens) -> None:
    """Adds what only a run has: turns, and calls that the gateway makes."""
    own = {"executed_by": "gateway", "server": "server-4711"}
    made = [{**event, **own} if event["type"] in ("tool.call.start", "tool.call") else event for event in CALL]
    to.add("gateway's call", (CALL_ID, "weather", CITY), _typed("tool.call", "executed_by"), *made)
    failed = {"type": "tool.result", "call_id": CALL_ID, "tool_result": "Failed 4711", "is_error": True}
    to.add("gateway's result", ("Failed 4711",), _typed("tool.result", "is_error"), failed, before=made)
    progress = {"type": "tool.progress", "call_id": CALL_ID, "text": "Progress 4711"}
    to.add("progress", ("Progress 4711",), _typed("tool.progress"), progress, before=made)
    asked = {"id": "approval-4711", "tool": "server-4711.weather", "input": {"city": CITY}, "digest": "digest-4711"}
    required = {"type": "approval.required", "call_id": CALL_ID, "approval": asked}
    to.add("approval", ("approval-4711",), _typed("approval.required"), required, before=made)
    decided = {"id": "approval-4711", "decision": "deny", "reason": "Reason 4711"}
    decision = {"type": "approval.decided", "call_id": CALL_ID, "approval": decided}
    to.add("decision", ("Reason 4711",), _typed("approval.decided"), decision, before=made)
    begin: Any = {"type": "step.start", "step": 4711}
    to.add_instead("turn", (), _typed("step.start"), [_TEXT], [begin, _TEXT])
    void = [begin, {"type": "text.delta", "text": "Void 4711"}]
    to.add("void turn", (), _typed("step.reset"), {"type": "step.reset", "step": 4711}, before=void)


def _add_citations(to: _Specimens) -> None:
    source = {"uri": "https://a.example/4711", "title": "Title 4711"}
    cited = {"type": "citations", "citations": [source]}
    placed = {"type": "citations", "citations": [{**source, "start": 4711, "end": 4712}]}
    to.add("citation", tuple(source.values()), _typed("citations"), cited)
    to.add_instead("citation offsets", (4711, 4712), _is_placed, [cited], [placed])


def _is_placed(event: Event) -> bool:
    return any("start" in citation for citation in event.get("citations", ()))


def _add_media(to: _Specimens) -> None:
    data = "aW1hZ2U0NzEx"
    image = {"type": "image", "image": {"data": data, "media_type": "image/png"}}
    part = {"type": "image", "image": {"data": data, "media_type": "image/png", "partial": True}}
    to.add("image", (data,), lambda event: "image" in event and "partial" not in event["image"], image)
    to.add("partial image", (data,), lambda event: "partial" in event.get("image", {}), part)
    audio = {"type": "audio.delta", "audio": {"chunk": data, "format": "wav"}}
    to.add("audio", (data,), _typed("audio.delta"), audio)


def _add_asides(to: _Specimens) -> None:
    safety = {"type": "safety", "safety": {"category": "category-4711", "action": "flagged"}}
    to.add("safety", ("category-4711",), _typed("safety"), safety)
    flagged = {"category": "words", "action": "flag", "guard": "guard-4711", "on": "output"}
    to.add("safety of a guard", ("guard-4711",), _typed("safety"), {"type": "safety", "safety": flagged})
    to.add("JSON snapshot", ("JSON 4711",), _typed("json.snapshot"), {"type": "json.snapshot", "json": ["JSON 4711"]})
    warning = {"type": "warning", "reason": "malformed_chunk"}
    to.add("warning", ("malformed_chunk",), _typed("warning"), warning)
    unjudged = {"type": "warning", "reason": "guard_failed", "guard": "guard-4711"}
    to.add("warning of a guard", ("guard-4711",), _typed("warning"), unjudged)
    step = {"type": "step.end", "step": 4711}
    to.add_instead("step end", (), _typed("step.end"), [_TEXT], [step, _TEXT])
    other = {"type": "text.delta", "text": "Other 4711", "choice": 1}
    to.add("further choice", ("Other 4711",), lambda event: bool(event.get("choice")), other)
    reset = {"type": "stream.reset", "reason": "failed"}
    to.add("reset", (), _typed("stream.reset"), reset, *answer(to.provider)[:2])
    gap = {"type": "stream.gap", "seq": 3, "from": 3, "to": 3, "text": "Gap 4711"}
    to.add("gap", ("Gap 4711",), _typed("stream.gap"), gap)


def _counts(key: str) -> Holds:
    return lambda event: key in event.get("usage", {})


def _add_usage(to: _Specimens) -> None:
    marks = (_USAGE["input_tokens"], _USAGE["output_tokens"])
    to.add_at_end("usage: counts", marks, _counts("input_tokens"), {"usage": None}, {})
    details = {
        "cached input": "cached_input_tokens",
        "cache writes": "cache_write_input_tokens",
        "reasoning": "reasoning_tokens",
    }
    for name, key in details.items():
        to.add_at_end(f"usage: {name}", (47,), _counts(key), {}, {"usage": {**_USAGE, key: 47}})
    estimated = {"usage": {**_USAGE, "source": "estimated"}}
    to.add_at_end("usage: source", ("estimated",), _counts("source"), {}, estimated)
    snapshot: Event = {"type": "usage", "usage": _USAGE}
    plain, counted = (answer(to.provider, content, end={"usage": None}) for content in ((), (snapshot,)))
    to.every["usage: early"] = Answer(("usage",), plain, counted, marks, _typed("usage"))
    failed = {"type": "error", "error": _FAILURE, "finish_reason": None, "usage": None}
    to.add_at_end("usage of a failure", marks, _typed("error", "usage"), failed, {**failed, "usage": _USAGE})


_FAILURE: Final = {"code": "network", "message": "Cut 4711", "temporary": True, "reason": "truncated"}


def _ends(reason: str) -> Holds:
    return lambda event: event.get("finish_reason") == reason


def _add_ends(to: _Specimens) -> None:
    for reason in sorted(FINISH_REASONS):
        plain = {"finish_reason": "length" if reason == "stop" else "stop"}
        calls = CALL if reason == "tool_calls" else ()
        to.add_at_end(f"finish reason: `{reason}`", (reason,), _ends(reason), plain, {"finish_reason": reason}, calls)
    word = {"finish_reason_raw": "word-4711"}
    to.add_at_end("raw finish reason", ("word-4711",), _typed("finish", "finish_reason_raw"), {}, word)
    steps = {"steps": [{"step": 1, "provider": "provider-4711", "tool_calls": 1}]}
    to.add_at_end("steps", ("provider-4711",), _typed("finish", "steps"), {}, steps)
    continued = {"continued": "verified"}
    to.add_at_end("continued", ("verified",), _typed("finish", "continued"), {}, continued)
    failed = {"type": "error", "error": _FAILURE, "finish_reason": None, "usage": None}
    to.add_at_end("error", ("Cut 4711", "network"), _typed("error"), {}, failed)
