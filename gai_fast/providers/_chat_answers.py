"""Answers of the chat dialect: chunks of `choices[].delta`, then `[DONE]`.

Usage may stand on any chunk, an error may come at any time. Owns the grammar, with hooks where providers depart from
it; what one of them does differently stands in its own file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from mypy_extensions import mypyc_attr

from gai_fast._impl import Shape
from gai_fast.errors import Malformed, Said
from gai_fast.events import Event
from gai_fast.limits import LIMITS
from gai_fast.providers._base import API, Adapter
from gai_fast.providers._chat_calls import CallFragment, ChatCalls, put_arguments_as_text
from gai_fast.providers._chunks import count, inside, parse_chunk, text_of
from gai_fast.providers._events import citation, counted_usage
from gai_fast.providers._room import Room, too_many

_END: Final = "[DONE]"
_FUNCTION_CALL: Final = -1
"""The index of the deprecated `function_call`, beside those of `tool_calls`."""
_STREAMED_AUDIO: Final = "pcm16"
"""The only audio format that OpenAI streams on this API."""


class Choice:  # no dataclass: mypyc leaves its `__init__` to the interpreter, which takes three times as long
    """One choice of an answer."""

    __slots__ = ("calls", "characters", "number", "reason", "spoke")

    def __init__(self, number: int, room: Room) -> None:
        self.number = number
        self.calls = ChatCalls(room)
        self.characters = 0
        """Code points of text so far."""
        self.spoke = False
        self.reason = ""
        """The provider's word for why it finished."""


def _mark(events: list[Event], choice: Choice) -> None:
    """Says whose they are; the first choice's say nothing."""
    if choice.number:
        for event in events:
            event["choice"] = choice.number


_CALL: Final = {"index": "count", "id": "text", "type": "any", "function": {"name": "text", "arguments": "text"}}
_WITHOUT_CALLS: Final = 7
"""What is read of a chunk whose shape has no calls."""


def chunk_shape(content: dict[str, Any]) -> Shape:
    """The shape of a chunk with a text and a fragment of a call at most.

    Args:
        content: The members of a choice that hold a text and, where there are such, calls.
    """
    choice = {"index": "count", **content, "finish_reason": "text", "logprobs": "any"}
    ignored = dict.fromkeys(("object", "created", "service_tier", "system_fingerprint", "obfuscation", "p"), "any")
    return Shape({"id": "text", **ignored, "model": "text", "choices": [choice], "usage": "object"})


@mypyc_attr(allow_interpreted_subclasses=True)
class ChatAdapter(Adapter):
    """Reads the dialect's chunks; providers override the hooks that follow `finish`."""

    text_members = frozenset({"content", "reasoning_content", "reasoning", "refusal", "arguments"})
    ignored_members = frozenset({"obfuscation", "p", "created", "system_fingerprint", "logprobs"})
    label_members = frozenset({"id"})  # what it says counts in `start` only
    kept_members = frozenset({"usage"})
    plain: ClassVar[Shape] = chunk_shape({"delta": {"role": "any", "content": "text", "tool_calls": [_CALL]}})
    """What most chunks consist of: read without being parsed, they mean the same at every provider."""

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self.choices: dict[int, Choice] = {}
        self._cited: set[str] = set()

    def receive(self, name: str, data: str) -> list[Event]:
        self.is_plain = False
        if data[:1] != "{":
            # The official clients test for a prefix (PROVIDERS §0.2).
            if data.startswith(_END):
                self.ended = True
                return []
            if not data.strip():
                return []
        if name == "error":
            raise self.told(data)
        events = self._read_plain(data)
        return self._read(parse_chunk(data), "delta", data) if events is None else events

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        events = self._read(answer, "message", text)
        if not self.choices:
            raise Malformed("an answer without choices")
        self.ended = True
        return events

    def _read_plain(self, text: str) -> list[Event] | None:
        """As `_read`, of a chunk that says nothing but what `plain` names; `None`: it says more, or is no chunk."""
        said = self.plain.read(text)
        if said is None:
            return None
        # One by one: a tuple that is unpacked is looked through by an iterator, 400 instructions each time.
        identifier, model, choices, index, content = said[0], said[1], said[2], said[3], said[4]
        reason, usage = said[-2], said[-1]
        calls = said[5] if len(said) > _WITHOUT_CALLS else None
        if choices is None:
            return None
        counted = self.count_usage(usage) if usage else None
        if counted:
            self.usage = counted
        self.copyable = True
        self.is_plain = not calls and not index
        self.chunk = text
        events: list[Event] = []
        if choices:
            choice = self.choices.get(index or 0) or self._open(index)
            if content:
                choice.characters += len(content)
                events = [{"type": "text.delta", "text": content}]
            if reason:
                choice.reason, self.copyable = reason[: LIMITS.kept_word], False
            if content or calls:
                choice.spoke = True
            if calls:
                fragment = CallFragment(said[6], self.call_id(said[7] or ""), said[8] or "", said[9] or "", "")
                events += self._call_fragment(choice, fragment)
            _mark(events, choice)
        if events and self.copyable:
            self.copyable = (not usage or bool(counted)) and text.count('"usage"') == (usage is not None)
        return self._begun(events, identifier or "", model or "")

    def _read(self, chunk: Any, part: str, text: str) -> list[Event]:
        """The events of one chunk.

        Args:
            chunk: The parsed chunk.
            part: What a choice calls its content: `delta`, or `message` in a whole answer.
            text: The chunk's JSON text.
        """
        usage = self.usage_in(chunk) if isinstance(chunk, dict) else None
        counted = self.count_usage(usage) if usage else None
        if counted:
            self.usage = counted  # a chunk that tells of a failure may have it as well
        chunk = self.checked(chunk)
        if part == "message" or '"tool_calls"' in text:
            put_arguments_as_text(chunk, part, text)
        identifier, model = chunk.get("id"), chunk.get("model")
        if not (isinstance(identifier, str) and isinstance(model, str)):
            identifier, model = text_of(identifier), text_of(model)
        self.copyable = True
        self.chunk = text
        # Everything is read before anything is done, so that a chunk that cannot be read leaves no call half begun.
        read: list[tuple[Choice, Iterable[Event | CallFragment]]] = []
        raw: dict[str, Any]
        for raw in chunk.get("choices") or ():
            index = raw.get("index")
            choice = self.choices.get(0 if index is None else index) or self._open(index)
            read.append((choice, self._read_choice(choice, raw, part)))
        extras = self.extras(chunk)
        events: list[Event] = []
        for choice, steps in read:
            events += self._done(choice, steps)
        events += extras
        if events and self.copyable:
            # Of usage that is copied only the last is counted, wherever it stands: each must count, and stand in one
            # place.
            self.copyable = (not usage or bool(counted)) and text.count('"usage"') == ("usage" in chunk)
        return self._begun(events, identifier, model)

    def _begun(self, events: list[Event], identifier: str, model: str) -> list[Event]:
        """The events of a chunk, and before the first ones the start."""
        if self.started and self.named:
            return events
        # A chunk that says nothing at all (Azure's first) is no start: its model is not known yet.
        return self.start(identifier, model) + events if identifier or model or events else []

    def _done(self, choice: Choice, steps: Iterable[Event | CallFragment]) -> list[Event]:
        events: list[Event] = []
        for step in steps:
            if isinstance(step, CallFragment):
                events += self._call_fragment(choice, step)
            else:
                events.append(step)
        _mark(events, choice)
        return events

    def _open(self, index: Any) -> Choice:
        """A choice that is not known yet, at least not by this way to write its index."""
        number = 0 if index is None else count(index)
        if number is None:
            raise Malformed("the index of a choice is no number")
        if number in self.choices:
            return self.choices[number]
        if len(self.choices) >= LIMITS.choices:
            raise too_many("choices", LIMITS.choices)
        choice = self.choices[number] = Choice(number, self.room)
        return choice

    def _read_choice(self, choice: Choice, raw: dict[str, Any], part: str) -> list[Event | CallFragment]:
        message = self.message_in(raw, part)
        if message is None and not choice.spoke and raw.get("message"):
            # Some proxies put the whole answer into one chunk; a second one would say it again.
            message, part, self.copyable = raw["message"], "message", False
        steps = list(self.read_message(choice, message, part)) if message else []
        if steps:
            choice.spoke = True
        if raw.get("finish_reason"):
            # The last reason counts, also where it is an earlier one again.
            choice.reason, self.copyable = str(raw["finish_reason"])[: LIMITS.kept_word], False
        return steps

    def read_message(self, choice: Choice, message: dict[str, Any], part: str) -> Iterable[Event | CallFragment]:
        """The events and the fragments of calls of one delta, or of a whole message.

        Args:
            choice: Where it belongs.
            message: The raw object.
            part: `delta` or `message`.
        """
        content = message.get("content")
        if len(message) == 1:
            # Nearly every delta is one of these.
            if isinstance(content, str):
                choice.characters += len(content)
                return [{"type": "text.delta", "text": content}] if content else []
            if "tool_calls" in message:
                return self._fragments(message["tool_calls"], part)
        steps: list[Event | CallFragment] = []
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        if isinstance(reasoning, str) and reasoning:
            steps.append({"type": "reasoning.delta", "text": reasoning})
        details = message.get("reasoning_details")
        if details:
            steps += _reasoning_details(details, with_text=not reasoning)
        if isinstance(content, list):
            for piece in content:
                steps += self.read_part(choice, {"type": "text", "text": piece} if isinstance(piece, str) else piece)
        elif content:
            steps += self.text(choice, content)
        if message.get("refusal"):
            steps.append({"type": "refusal.delta", "text": text_of(message["refusal"])})
        if message.get("audio"):
            steps += self._audio(choice, message["audio"], "" if part == "message" else _STREAMED_AUDIO)
        steps += self._fragments(message.get("tool_calls"), part)
        if message.get("function_call"):
            steps.append(self._fragment({"function": message["function_call"]}, _FUNCTION_CALL))
        if message.get("annotations"):
            steps += self.citations([_annotation(annotation) for annotation in message["annotations"]])
        return steps

    def text(self, choice: Choice, text: Any) -> list[Event]:
        """Visible text."""
        text = text_of(text)
        if not text:
            return []
        choice.characters += len(text)
        return [{"type": "text.delta", "text": text}]

    def _audio(self, choice: Choice, audio: dict[str, Any], audio_format: str) -> list[Event]:
        """Audio and what it says; the last chunk of a stream holds neither, only when the audio expires."""
        events = self.text(choice, audio.get("transcript"))
        if audio.get("data"):
            said = {"chunk": text_of(audio["data"]), "format": audio_format}
            events.append({"type": "audio.delta", "audio": {key: value for key, value in said.items() if value}})
        return events

    def citations(self, cited: Iterable[dict[str, Any]]) -> list[Event]:
        """One event for what has something to say."""
        found = [one for one in cited if one.get("uri")]
        return [{"type": "citations", "citations": found}] if found else []

    def citations_once(self, cited: Iterable[dict[str, Any]]) -> list[Event]:
        """`citations` for lists that are repeated on every chunk: each source is told once."""
        new = {one["uri"]: one for one in cited if one.get("uri") and one["uri"] not in self._cited}
        if new:
            self.room.take(sum(map(len, new)), len(new))
            self._cited.update(new)
        return self.citations(new.values())

    # -- tool calls --

    def _fragments(self, calls: Any, part: str) -> list[Event | CallFragment]:
        fragments: list[Event | CallFragment] = []
        call: dict[str, Any]
        for position, call in enumerate(calls or ()):
            index = count(call.get("index"))
            if index is None and part == "message":
                index = position
            fragments.append(self._fragment(call, index))
        return fragments

    def _fragment(self, raw: dict[str, Any], index: int | None) -> CallFragment:
        function: dict[str, Any] = raw.get("function") or raw.get("custom") or {}
        extra: dict[str, Any] = raw.get("extra_content") or {}
        google: dict[str, Any] = extra.get("google") or {}
        return CallFragment(
            index,
            self.call_id(text_of(raw.get("id"))),
            text_of(function.get("name")),
            text_of(function["arguments"] if "arguments" in function else function.get("input")),
            text_of(google.get("thought_signature")),
        )

    def _call_fragment(self, choice: Choice, fragment: CallFragment) -> list[Event]:
        """The events of a fragment, for the call that it belongs to."""
        calls = choice.calls
        call = calls.find(fragment)
        self.copyable = self.copyable and calls.is_steady(call, fragment)
        events: list[Event] = []
        if call is None:
            call, events = calls.open(fragment.identifier, fragment.name, self.seed(choice.number))
        return events + calls.take(call, fragment)

    def kept(self, name: str, text: str) -> None:
        self.usage = self.count_usage(parse_chunk(text)) or self.usage

    def expected(self) -> Event | None:
        return {"type": "text.delta", "text": ""} if self.started and self.named and 0 in self.choices else None

    def copied(self, event: Event, characters: int, text: str) -> None:
        choice = self.choices[event.get("choice", 0)]
        if event["type"] == "text.delta":
            choice.characters += characters
            choice.spoke = True
        elif event["type"] == "tool.call.delta":
            choice.calls.copied(event["index"], text)

    # -- the end --

    def finish(self) -> list[Event]:
        first = self.choices.get(0) or Choice(0, self.room)
        if not first.reason and not self.ended:
            raise self.truncated()
        if first.reason in self.api.failure_words:
            raise self.error(Said(words=(first.reason,)))
        events = self.start(None, None)
        for choice in self.choices.values():
            events += self._close(choice, cut_off=self._outcome(choice) not in ("stop", "tool_calls"))
        return [*events, self.end(self._outcome(first), first.reason)]

    def abort(self) -> list[Event]:
        return [event for choice in self.choices.values() for event in self._close(choice, cut_off=True)]

    def _close(self, choice: Choice, *, cut_off: bool) -> list[Event]:
        events = choice.calls.close_all(cut_off=cut_off)
        _mark(events, choice)
        return events

    def _outcome(self, choice: Choice) -> str:
        return choice.calls.outcome(self.api.finish_words, choice.reason)

    # -- what providers do differently --

    def failure(self, chunk: Any, name: str = "") -> Said | None:
        if isinstance(chunk, dict) and "choices" in chunk and not chunk.get("error"):
            return None
        return self.api.said(chunk)

    def message_in(self, choice: dict[str, Any], part: str) -> Any:
        """The content of a raw choice; what is empty says nothing, whatever it is (PHP writes `{}` as `[]`)."""
        return choice.get(part)

    def read_part(self, choice: Choice, part: dict[str, Any]) -> list[Event]:
        """One part of content that is a list."""
        kind = part.get("type")
        if kind == "text":
            return self.text(choice, part.get("text"))
        if kind == "refusal" and part.get("refusal"):
            return [{"type": "refusal.delta", "text": text_of(part["refusal"])}]
        if kind == "thinking":
            return _thinking(part)
        return []

    def call_id(self, said: str) -> str:
        """The id of a call, empty where it has none."""
        return said

    def usage_in(self, chunk: dict[str, Any]) -> Any:
        """The provider's usage object, where the chunk has one."""
        return chunk.get("usage")

    def count_usage(self, raw: dict[str, Any]) -> dict[str, int]:
        """Usage in the terms of CONTRACT §5.

        Several servers name the same count differently; the first that is there and not zero counts.
        """
        into, out = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens"))
        return counted_usage(
            count(raw.get("input_tokens")) if into is None else into,
            count(raw.get("output_tokens")) if out is None else out,
            cached=inside(raw, "prompt_tokens_details", "cached_tokens")
            or count(raw.get("num_cached_tokens"))
            or count(raw.get("prompt_cache_hit_tokens")),
            written=inside(raw, "prompt_tokens_details", "cache_write_tokens"),
            reasoning=inside(raw, "completion_tokens_details", "reasoning_tokens")
            or count(raw.get("reasoning_tokens")),
            total=count(raw.get("total_tokens")),
        )

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        """Events of what stands beside the choices."""
        return []


def _annotation(annotation: dict[str, Any]) -> dict[str, Any]:
    """A citation; the source stands under the name of its type, or beside it."""
    source = annotation.get(annotation.get("type", "")) or annotation
    uri = source.get("url") or source.get("file_id") or source.get("document_id")
    title = source.get("title") or source.get("filename")
    return citation(uri, title, source.get("start_index"), source.get("end_index"))


def _reasoning_details(details: list[dict[str, Any]], *, with_text: bool) -> list[Event]:
    """Reasoning in OpenRouter's shape, which others and our own OpenAI format use too.

    Args:
        details: The list.
        with_text: The text stands nowhere else in the same message.
    """
    events: list[Event] = []
    for detail in details:
        text = detail.get("text") or detail.get("summary")
        if text and with_text:
            events.append({"type": "reasoning.delta", "text": text_of(text)})
        signature = detail.get("signature") or detail.get("data")
        if signature:
            block = count(detail.get("index"))
            event: Event = {"type": "reasoning.signature"}
            if block is not None:
                event["block"] = block
            event["signature"] = text_of(signature)
            events.append(event)
    return events


def _thinking(part: dict[str, Any]) -> list[Event]:
    """Reasoning as a part of content: text, or a list of texts, and its signature."""
    thoughts = part.get("thinking")
    if isinstance(thoughts, list):
        thoughts = "".join(text_of(thought.get("text")) for thought in thoughts)
    events: list[Event] = []
    if thoughts:
        events.append({"type": "reasoning.delta", "text": text_of(thoughts)})
    if part.get("signature"):
        events.append({"type": "reasoning.signature", "signature": text_of(part["signature"])})
    return events
