"""How the events of one answer become its result. Knows nothing of their source.

`Collector` refuses an event that a result cannot hold; `ReadCollector` serves a program that reads the events as well,
and refuses the result alone. Both accept any mapping as an event: programs make some themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, Final

from gai_fast.core.result import Result, ToolCallResult
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.events import KEYS, NO_EVENT, Event, JSONText
from gai_fast.model.limits import SHARED


class _Turn:
    """A turn of a run: where it begins among what is collected.

    Args:
        step: Its number; None if the event has none.
        provider: The provider that answers it; None if it is the stream's.
        parts: The number of parts before it. The other numbers are those of `Collector`'s lists.
    """

    __slots__ = ("calls", "citations", "logprobs", "parts", "provider", "step", "texts")

    def __init__(
        self,
        step: int | None,
        provider: str | None,
        parts: int,
        texts: dict[str, int],
        calls: int,
        citations: int,
        logprobs: int,
    ) -> None:
        self.step = step
        self.provider = provider
        self.parts = parts
        self.texts = texts
        self.calls = calls
        self.citations = citations
        self.logprobs = logprobs


class Collector:
    """Collects the events of one stream; a sink for a relay.

    Args:
        plain: Whether `tool_call.input` is a parsed value, as in the library, instead of JSON text.
        others: Types of events to keep that have no place in a `Result`.
        choice: The number of the choice that is collected.
        beside: The collector of another choice of the same answer, which counts the size of both. None: its own.
    """

    def __init__(
        self, *, plain: bool = True, others: Collection[str] = (), choice: int = 0, beside: Collector | None = None
    ) -> None:
        self._plain = plain
        self._others = others
        self._choice = choice
        self._beside = beside
        self._start: Mapping[str, Any] = NO_EVENT
        self._clear()

    def _clear(self) -> None:
        self._texts: dict[str, list[str]] = {"text.delta": [], "reasoning.delta": [], "refusal.delta": []}
        self._parts: list[dict[str, Any]] = []
        self._arguments: dict[str, list[str]] = {}
        self._call_signatures: dict[str, str] = {}
        self._calls: list[ToolCallResult] = []
        self._citations: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        self.refusal_logprobs: list[dict[str, Any]] = []
        """The probabilities of the tokens of a refusal."""
        self._usage: dict[str, Any] | None = None
        self._end: Mapping[str, Any] = NO_EVENT
        self._turns: list[_Turn] = []  # of a run; else none
        self._results: dict[str, Mapping[str, Any]] = {}  # of the gateway's calls, by their ids
        self._size = 0

    def event(self, event: Any) -> None:
        """Adds one event. Order matters; unknown types are ignored.

        Raises:
            Error: More than `limits.collected` characters are collected.
            ValueError: A member of the event is missing, or has another type than in docs/events.md.
        """
        try:
            self._take(event)
        except (AttributeError, KeyError, TypeError) as problem:
            raise _not_an_event(event, problem) from None

    def _take(self, event: Any) -> None:
        kind = event["type"]
        if (event.get("choice") or 0) != self._choice:
            return
        if kind in self._texts:
            text = _text(event, "text", may_lack_it="seq" in event)  # encoders leave out an empty text
            self._grow(len(text))
            self._texts[kind].append(text)
            if kind == "text.delta" and "logprobs" in event:
                self._grow(len(repr(event["logprobs"])))
                self._logprobs += event["logprobs"]
            elif kind == "refusal.delta" and "logprobs" in event:
                self._grow(len(repr(event["logprobs"])))
                self.refusal_logprobs += event["logprobs"]
            self._text_part("reasoning" if kind == "reasoning.delta" else "text", text)
        elif kind == "tool.call.delta":
            text = _text(event, "arguments", may_lack_it="seq" in event)
            self._grow(len(text))
            self._arguments.setdefault(event["call_id"], []).append(text)
        elif kind == "tool.call":
            self._grow(len(repr(event["tool_call"])))
            self._call(event)
        elif kind == "tool.result" and event.get("call_id") in self._results:
            self._grow(len(encode_json(event)))
            self._results[event["call_id"]] = event
            if kind in self._others:
                self._parts.append({"type": "event", "event": event})
        elif kind == "reasoning.signature":
            self._grow(len(event["signature"]))
            self._signature(event)
        elif kind == "citations":
            self._grow(len(repr(event["citations"])))
            self._citations += event["citations"]
        elif kind == "provider.block":
            self._grow(len(encode_json(event["block"])))
            provider, block = event["provider"], event["block"]
            self._parts.append({"type": "provider_block", "provider": provider, "block": block, "event": event})
        elif kind == "start":
            self._start = event
        elif kind == "usage":
            self._usage = event["usage"]
        elif kind in ("finish", "error"):
            if not isinstance(event.get("error", {}), Mapping):
                raise TypeError
            self._end = event
            self._usage = event.get("usage", self._usage)
        elif kind == "stream.reset":
            self._clear()
        elif kind == "stream.gap":
            text = _text(event, "text")
            if text != "".join(self._texts["text.delta"]):
                self._replace_text(text)
        elif kind == "step.start":
            self._begin_turn(event)
        elif kind == "step.reset":
            self._void_turn(event)
        elif kind in self._others and not event.get("image", {}).get("partial"):
            self._grow(len(encode_json(event)))  # first: raises if it cannot be written
            self._parts.append({"type": "event", "event": event})

    def _grow(self, size: int) -> None:
        """Counts an item to be kept, with the cost of keeping it. Raises `Error` if the total exceeds the limit."""
        if self._beside is not None:
            self._beside._grow(size)
            return
        self._size += size + SHARED.log_piece_cost
        if self._size > SHARED.collected:
            text = f"the answer is larger than {SHARED.collected} characters: read it as events"
            raise Error("provider_unavailable", text, reason="answer_too_large")

    def _text_part(self, kind: str, text: str) -> None:
        if not text:
            return  # providers refuse an empty part
        last = self._last()
        # A signature closes its block: further text is a new part.
        if last.get("type") == kind and "signature" not in last:
            last["pieces"].append(text)
        else:
            self._parts.append({"type": kind, "pieces": [text]})

    def _signature(self, event: Any) -> None:
        if "call_id" in event:
            self._call_signatures[event["call_id"]] = event["signature"]
            return
        last = self._last()
        if event.get("redacted"):
            self._parts.append({"type": "reasoning", "pieces": [], "signature": event["signature"], "redacted": True})
        elif last.get("type") == "reasoning" and "signature" not in last:
            last["signature"] = event["signature"]
        else:
            self._parts.append({"type": "reasoning", "pieces": [], "signature": event["signature"]})

    def _call(self, event: Any) -> None:
        call, call_id = event["tool_call"], event["call_id"]
        value = call["input"]
        kept = value.value if self._plain and isinstance(value, JSONText) else value
        if not "".join(self._arguments.get(call_id, ())).strip():
            self._arguments[call_id] = [encode_json(value).decode()]
        part = {"type": "tool_call", "call_id": call_id, "name": call.get("name", ""), "input": kept}
        if event.get("executed_by"):
            self._results.setdefault(call_id, NO_EVENT)
        else:
            self._calls.append(ToolCallResult(call_id, call.get("name", ""), kept, self.arguments_of(part)))
        if event.get("signature"):
            self._call_signatures[call_id] = event["signature"]
        self._parts.append(part)
        if event.get("executed_by") and "tool.call" in self._others:
            self._parts.append({"type": "event", "event": event})

    def arguments_of(self, part: Mapping[str, Any]) -> str:
        """Returns the text of a complete call's arguments as it came, or as JSON if none came.

        Args:
            part: The call, a part of a message.
        """
        return "".join(self._arguments[part["call_id"]])

    # -- runs --

    def _last(self) -> dict[str, Any]:
        """Returns the last part of the turn."""
        begin = self._turns[-1].parts if self._turns else 0
        return self._parts[-1] if len(self._parts) > begin else {}

    def _begin_turn(self, event: Any) -> None:
        self._grow(0)
        texts = {kind: len(pieces) for kind, pieces in self._texts.items()}
        calls, citations, logprobs = len(self._calls), len(self._citations), len(self._logprobs)
        place = len(self._parts), texts, calls, citations, logprobs
        self._turns.append(_Turn(event.get("step"), event.get("provider"), *place))
        if event["type"] in self._others:
            self._parts.append({"type": "event", "event": event})

    def _void_turn(self, event: Any) -> None:
        """Drops the content of the last turn. Its next `step.start` follows."""
        if not self._turns or self._turns[-1].step != event.get("step"):  # a gap has left out its beginning
            return
        turn = self._turns.pop()
        for kind, kept in turn.texts.items():
            del self._texts[kind][kept:]
        for part in self._parts[turn.parts :]:
            if part["type"] == "tool_call":
                self._results.pop(part["call_id"], None)
        del self._parts[turn.parts :]
        del self._calls[turn.calls :]
        del self._citations[turn.citations :]
        del self._logprobs[turn.logprobs :]

    def _replace_text(self, text: str) -> None:
        """Replaces the text so far. Keeps the text of earlier turns separate, for `_void_turn`."""
        pieces, turn = self._texts["text.delta"], self._turns[-1] if self._turns else None
        former = "" if turn is None else "".join(pieces[: turn.texts["text.delta"]])
        if turn is None or not text.startswith(former):
            begin = 0
            pieces[:] = [text]
            for each in self._turns:
                each.texts["text.delta"] = 1
        else:
            begin = turn.parts
            pieces[turn.texts["text.delta"] :] = [text[len(former) :]]
            text = text[len(former) :]
        kept = [part for part in self._parts[begin:] if part["type"] != "text"]
        if not begin:
            for each in self._turns:
                each.parts -= sum(part["type"] == "text" for part in self._parts[: each.parts])
        self._parts[begin:] = kept
        self._text_part("text", text)

    def _messages(self) -> list[dict[str, Any]]:
        """Returns the messages of all turns, each with the results of the gateway's calls in the calls' order."""
        found: list[dict[str, Any]] = []
        ends = [turn.parts for turn in self._turns[1:]] + [len(self._parts)]
        turns = zip(self._turns, ends, strict=True) if self._turns else [(None, ends[0])]
        begin = 0
        for turn, end in turns:
            content = self._parts_between(begin, end, (), blocks=True, provider=None if turn is None else turn.provider)
            found.append({"role": "assistant", "content": content})
            calls = [part["call_id"] for part in content if part["type"] == "tool_call"]
            found += [result_message(self._results[call]) for call in calls if self._results.get(call)]
            begin = end
        return found

    def result(self) -> Result:
        """Returns the result so far."""
        provider = self._provider
        messages = self._messages()
        error = self._end.get("error", {}) if self._end.get("type") == "error" else None
        return Result(
            text="".join(self._texts["text.delta"]),
            reasoning="".join(self._texts["reasoning.delta"]),
            refusal="".join(self._texts["refusal.delta"]),
            tool_calls=list(self._calls),
            citations=list(self._citations),
            finish_reason=self._end.get("finish_reason"),
            finish_reason_raw=self._end.get("finish_reason_raw"),
            reason=self._end.get("reason", ""),
            usage=self._usage,
            error=None if error is None else Error.from_payload(error, provider),
            message=[message for message in messages if message["role"] == "assistant"][-1],
            provider=provider,
            model=self._end.get("model") or self._start.get("model"),
            logprobs=list(self._logprobs),
            messages=messages,
        )

    @property
    def is_run(self) -> bool:
        """Whether the answer has turns."""
        return bool(self._turns)

    @property
    def _provider(self) -> str | None:
        return self._end.get("provider") or self._start.get("provider")

    def others(self) -> list[Event]:
        """Returns the kept events of `others`, in order."""
        return [part["event"] for part in self._parts if "event" in part and part["event"]["type"] in self._others]

    def parts(self, among: Collection[str] = (), *, blocks: bool = True) -> list[dict[str, Any]]:
        """Returns the parts of the message, in order; of a run those of all turns, without the gateway's calls.

        Args:
            among: Types of `others` to include, as `{"type": "event", "event": …}`. Other events do not split a text.
            blocks: Whether blocks that only the provider understands are included.
        """
        found = self._parts_between(0, len(self._parts), among, blocks=blocks)
        return [part for part in found if part["type"] != "tool_call" or part["call_id"] not in self._results]

    def _parts_between(
        self, begin: int, end: int, among: Collection[str], *, blocks: bool, provider: str | None = None
    ) -> list[dict[str, Any]]:
        """Returns some of the parts.

        Args:
            begin: The number of parts before them.
            end: That of the parts up to their last.
            among: As for `parts`.
            blocks: As for `parts`.
            provider: The provider that has said them; None for the stream's.
        """
        provider = provider or self._provider
        found: list[dict[str, Any]] = []
        for part in self._parts[begin:end]:
            if part["type"] == "event":
                if part["event"]["type"] in among:
                    found.append(part)
                continue
            if part["type"] == "provider_block" and not blocks:
                continue
            last = found[-1] if found else {}
            if "pieces" not in part:
                found.append(part)
            elif last.get("type") == part["type"] and "signature" not in last and "redacted" not in part:
                # `last` is a copy with its own list: no piece is copied twice, even if many events split a text.
                last["pieces"] += part["pieces"]
                if "signature" in part:
                    last["signature"] = part["signature"]
            else:
                found.append({**part, "pieces": part["pieces"].copy()})
        return [self._part(part, provider) for part in found]

    def _part(self, part: dict[str, Any], provider: str | None) -> dict[str, Any]:
        if part["type"] == "event":
            return part
        if part["type"] == "provider_block":
            return {key: part[key] for key in ("type", "provider", "block")}
        if part["type"] == "tool_call":
            signature = self._call_signatures.get(part["call_id"])
            return {**part, "signature": signature} if signature else part
        whole = {"type": part["type"], "text": "".join(part["pieces"])}
        if part["type"] == "reasoning":
            whole |= {key: part[key] for key in ("signature", "redacted") if key in part}
            if provider:
                whole["provider"] = provider
        return whole


class ReadCollector:
    """Collects the events of a stream that a program also reads: if the answer is too large, only `result` fails.

    Args:
        can_void: Whether a new owner of the stream may void events: text, reasoning and calls. They are kept until the
            end, 300 bytes a delta.
    """

    def __init__(self, *, can_void: bool = False) -> None:
        self._collector = Collector()
        self._refusal: Error | None = None
        self._can_void = can_void
        self._numbered: list[Any] = []  # the collected events that may still be void

    def event(self, event: Any) -> None:
        """Adds one event. Order matters; unknown types are ignored.

        Raises:
            ValueError: A member of the event is missing, or has another type than in docs/events.md.
        """
        if self._refusal is not None:
            if event["type"] not in ("start", "stream.reset", "finish", "error"):
                return
            if event["type"] == "stream.reset":
                self._refusal = None
        try:
            if self._can_void and event["type"] == "stream.gap" and event.get("reason") == _TAKEN_OVER:
                self._void(event.get("from", 0))
            self._collector.event(event)
        except Error as refusal:
            self._refusal = refusal
            self._collector = Collector()  # frees the collected events: there will be no result
        if self._refusal is not None or event["type"] == "stream.reset":
            self._numbered.clear()
        elif self._can_void and "seq" in event:
            self._numbered.append(event)

    def _void(self, first: int) -> None:
        """Forgets the events from a number on."""
        kept = [event for event in self._numbered if event["seq"] < first]
        if len(kept) < len(self._numbered):
            self._numbered = kept
            self._collector = Collector()
            for event in kept:
                self._collector.event(event)

    def result(self) -> Result:
        """Returns the result.

        Raises:
            Error: The stream failed, or its answer has more than `limits.collected` characters.
        """
        result = self._collector.result().raise_for_error()
        if self._refusal is not None:
            raise self._refusal
        return result


_TAKEN_OVER: Final = "taken_over"


def result_message(event: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the result of a call as a message for the next request.

    Args:
        event: Its `tool.result`.
    """
    value = event.get("tool_result", "")  # events have no empty members
    content = event.get("parts") or (value if isinstance(value, str) else encode_json(value).decode())
    message = {"role": "tool", "call_id": event["call_id"], "content": content}
    return {**message, "is_error": True} if event.get("is_error") else message


def _not_an_event(event: Any, problem: Exception) -> ValueError:
    """Returns the error for an event of which a member is missing or has another type."""
    if not isinstance(event, Mapping):
        return ValueError(f"not an event: a mapping with a `type` is needed, not {type(event).__name__}")
    if "type" not in event:
        return ValueError("not an event: its `type` is missing")
    what = f"not an event: a member of this {event['type']!r} is missing"
    if not isinstance(problem, KeyError):
        return ValueError(f"{what} or wrong")
    missing = str(problem.args[0])
    near = get_close_matches(missing, [key for key in event if isinstance(key, str) and key not in KEYS], 1)
    return ValueError(f"{what}: `{missing}`{f'; did you mean it by `{near[0]}`?' if near else ''}")


def _text(event: Mapping[str, Any], key: str, *, may_lack_it: bool = True) -> str:
    text = event.get(key, "") if may_lack_it else event[key]
    if not isinstance(text, str):
        raise TypeError
    return text


def collect_one(collector: Collector, event: Any, number: int) -> None:
    """Adds an event; the error names the event's number, from 1."""
    try:
        collector.event(event)
    except ValueError as problem:
        raise ValueError(f"{problem} - at event {number}") from None
