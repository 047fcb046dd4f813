"""Reads responses of the chat dialect: chunks of `choices[].delta`, then `[DONE]`.

Any chunk may hold usage, and any chunk may be an error. Owns the grammar and the hooks for providers that depart from
it; each departure is in its provider's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.json.chunks import (
    WRONG_SHAPE,
    count,
    inner_text,
    label,
    member,
    nested_count,
    objects,
    parse_chunk,
    text_of,
    token_scores,
)
from gai_fast.kernels import Shape
from gai_fast.model.errors import Malformed
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.answers.events import UNREADABLE, add_ends, citation, counted_usage
from gai_fast.providers.answers.finish_words import COMPLETE, FINISH_WORDS
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.lost_text import chat_content
from gai_fast.providers.answers.room import Room, too_many
from gai_fast.providers.answers.tool_calls import outcome
from gai_fast.providers.chat.calls import (
    FUNCTION_CALL,
    CallFragment,
    ChatCalls,
    put_arguments_as_text,
    read_fragment,
    read_fragments,
)
from gai_fast.providers.requests.api import API

_END: Final = "[DONE]"
_EXPECTED: Final[Event] = {"type": "text.delta", "text": ""}
_STREAMED_AUDIO: Final = "pcm16"
"""The only audio format that OpenAI streams in this dialect."""
_KEPT_WORD: Final[int] = LIMITS.kept_word
_PREFIX: Final = 64
"""Characters of a choice's reasoning that are kept, to recognize it if another member repeats it."""


class Choice:
    """One choice of a response."""

    def __init__(self, number: int, room: Room, tool_names: frozenset[str] = frozenset()) -> None:
        self.number = number
        self.is_only = False
        """Whether every index means this choice."""
        self._room = room
        self._tool_names = tool_names
        self._calls: ChatCalls | None = None  # created on demand: few choices have calls
        self.characters = 0
        """Code points of text so far."""
        self.has_content = False
        """Whether any chunk had content for this choice."""
        self.thought = ""
        """The beginning of the reasoning in the member that most servers use."""
        self.first: str | None = None
        """The first text of its `message`, if a server sends a stream as messages."""
        self.grows: bool | None = None
        """Whether each such message has all the text so far; None if that is unknown."""
        self.reason = ""
        """The provider's finish reason."""
        self.stop = ""
        """The stop sequence that ended it, if the server names it."""

    @property
    def calls(self) -> ChatCalls:
        """Its tool calls; created at first use."""
        if self._calls is None:
            self._calls = ChatCalls(self._room, self._tool_names)
        return self._calls

    @property
    def has_calls(self) -> bool:
        return self._calls is not None and bool(self._calls)

    def is_counted(self, raw: dict[str, Any]) -> bool:
        """Returns whether the index of another choice counts the chunks of this one, as no request asks for another.

        Args:
            raw: The other choice. A choice begins with its role or with its text, and with both only if all chunks do.
                None begins with its finish reason.
        """
        delta = member(raw, "delta")
        if delta.get("content"):
            return not self.characters or bool(delta.get("role"))
        return bool(raw.get("finish_reason")) and not (self.reason or delta.get("tool_calls"))

    def unread(self, message: dict[str, Any], *, is_last: bool) -> dict[str, Any]:
        """Returns the new part of the `message` of a chunk in a stream; empty if there is none.

        Some proxies send the whole response in one chunk: behind deltas, or behind another such chunk, it repeats them.
        Some servers have `message` in place of `delta`, with the next text, or with all the text so far.

        Args:
            message: The message.
            is_last: Whether the chunk has a finish reason.

        Raises:
            Error: The response exceeds the memory limit.
        """
        if self.has_content and self.first is None:
            return {}
        text = message.get("content")
        if self.has_content and isinstance(text, str) and text:
            begins_alike = text.startswith(self.first or "")
            if self.grows is None and not is_last:
                self.grows = begins_alike and len(text) > self.characters
            if begins_alike and (self.grows or (is_last and len(text) == self.characters)):
                return {**message, "content": text[self.characters :]}
        elif not is_last and isinstance(text, str) and text:
            self._room.take(len(text))
            self.first = text
        return message


def _mark(events: list[Event], choice: Choice) -> None:
    """Adds the number of the choice to its events. Events of the first choice have no number."""
    if choice.number:
        for event in events:
            event["choice"] = choice.number


_SCORED: Final = {"text.delta": "content", "refusal.delta": "refusal"}
"""The member of `logprobs` for each kind of text."""
_THOUGHTS: Final = frozenset(("thinking", "reasoning", "reasoning_text", "summary_text"))
"""The types of content parts with reasoning."""
_OTHER_THOUGHTS: Final[tuple[str, ...]] = ("thinking", "reasoning_text", "thought", "thoughts")
"""Members in which servers put reasoning, in addition to those that are always read."""
_CALL: Final = {"index": "count", "id": "text", "type": "any", "function": {"name": "text", "arguments": "text"}}
_WITHOUT_CALLS: Final = 7
"""The number of values that a shape without calls returns."""


def chunk_shape(content: dict[str, Any]) -> Shape:
    """Builds the shape of a chunk that holds at most one text and one fragment of a tool call.

    Args:
        content: The members of a choice that hold the text and the calls.
    """
    # Members are in the order that most servers use: a name in that order is found at once.
    # `logprobs` must be null: other chunks are parsed.
    choice = {"index": "count", **content, "finish_reason": "text"}
    head = dict.fromkeys(("object", "created"), "any")
    middle = dict.fromkeys(("service_tier", "system_fingerprint"), "any")
    tail = dict.fromkeys(("obfuscation", "p"), "any")
    return Shape({"id": "text", **head, "model": "text", **middle, "choices": [choice], "usage": "object", **tail})


@mypyc_attr(allow_interpreted_subclasses=True)
class ChatAdapter(ProviderAdapter):
    """Reads the dialect's chunks. Providers override the hooks in the last section of the class."""

    text_members = frozenset({"content", "reasoning_content", "reasoning", "refusal", "arguments"})
    ignored_members = frozenset({"obfuscation", "p", "created", "system_fingerprint"})
    label_members = frozenset({"id"})  # only the `start` event holds it
    kept_members = frozenset({"usage"})
    content_members = frozenset({"choices"})
    plain: ClassVar[Shape] = chunk_shape({"delta": {"role": "any", "content": "text", "tool_calls": [_CALL]}})
    """The shape of most chunks. A chunk of this shape is read without a JSON parser; no provider gives it another
    meaning."""
    other_places: ClassVar[Mapping[str, frozenset[str]]] = {
        "delta": frozenset(("text", "content", "message", "messages")),
        "message": frozenset(("text", "content", "delta", "messages")),
    }
    """Members of a choice in which servers put its content, instead of the one that the dialect has there."""

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self.choices: dict[int, Choice] = {}
        self._plain = self.plain  # a look-up in the class costs 130 instructions
        self._cited: dict[tuple[Any, ...], None] | None = None  # created on demand: few answers have citations

    def receive(self, name: str, data: str) -> list[Event]:
        self.is_plain = False
        if data[:1] != "{" and data.startswith(_END):  # the official clients test for the prefix, too
            self.ended = True
            return []
        if name == "error":
            raise self.error_event(data)
        events = self._read_plain(data)
        return self._read(parse_chunk(data), "delta", data) if events is None else events

    def receive_text(self, index: int | None, text: str) -> Event | None:
        choice = None if index is None else self.choices.get(index)
        if choice is None or not (self.started and self.named):
            return None
        choice.characters += len(text)
        choice.has_content = True
        event: Event = {"type": "text.delta", "text": text}
        if index:
            event["choice"] = index
        return event

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        events = self._read(answer, "message", text)
        if not self.choices:
            raise Malformed("an answer without choices")
        self.ended = True
        return events

    def _read_plain(self, text: str) -> list[Event] | None:
        """Reads a chunk of the shape `plain`. Returns None for any other chunk."""
        values = self._plain.read(text)
        if values is None:
            return None
        # Indexed one by one: mypyc unpacks a tuple with an iterator, which costs 400 instructions. Because of the
        # annotations, compiled code tests a value for emptiness without a call to the interpreter.
        identifier: str | None = values[0]
        model: str | None = values[1]
        choices: int | None = values[2]
        index: int | None = values[3]
        content: str | None = values[4]
        reason: str | None = values[-2]
        usage: dict[str, Any] | None = values[-1]
        calls: int | None = values[5] if len(values) > _WITHOUT_CALLS else None
        if choices is None or (index and index not in self.choices):
            return None  # its role matters, too
        counted = self.count_usage(usage) if usage else None
        if counted is not None:
            self._count(counted, usage)
        self.copyable = True
        self.is_plain = not calls and not index
        self.chunk = text
        events: list[Event] = []
        if choices:
            choice = self.choices.get(index or 0) or self._open(index, {})
            if content:
                choice.characters += len(content)
                events = [{"type": "text.delta", "text": content}]
            if reason:
                self._end_choice(choice, reason)
            if content or calls:
                choice.has_content = True
            if calls:
                fragment = CallFragment(values[6], self.call_id(values[7] or ""), values[8] or "", values[9] or "", "")
                events += self._call_fragment(choice, fragment)
            _mark(events, choice)
        if events and self.copyable:
            self.copyable = (not usage or bool(counted)) and text.count('"usage"') == (usage is not None)
        return self._begun(events, identifier or "", model or "")

    def _read(self, parsed: Any, part: str, text: str) -> list[Event]:
        """Reads a chunk of any shape.

        Args:
            parsed: The chunk as parsed JSON.
            part: The member of a choice that holds its content: `delta`, or `message` in a whole response.
            text: The chunk's JSON text.
        """
        usage = self.usage_in(parsed) if isinstance(parsed, dict) else None
        counted = self.count_usage(usage) if usage and isinstance(usage, dict) else None
        if counted is not None:
            self._count(counted, usage)  # before `checked`: a chunk that reports a failure may have usage, too
        chunk = self.checked(parsed)
        if part == "message" or '"tool_calls"' in text:
            put_arguments_as_text(chunk, part, text)
            if part == "delta":
                put_arguments_as_text(chunk, "message", text)  # some proxies send the whole response in one chunk
        identifier, model = chunk.get("id"), chunk.get("model")
        is_odd = False  # a member has another type: the adapter reads such chunks itself
        if not (isinstance(identifier, str) and isinstance(model, str)):
            is_odd = not (isinstance(identifier, str | None) and isinstance(model, str | None))
            identifier, model = label(identifier), label(model)
        self.copyable = not is_odd
        self.chunk = text
        # The whole chunk is read before any state changes, so that a malformed chunk begins no call.
        read: list[tuple[Choice, Iterable[Event | CallFragment]]] = []
        raw: dict[str, Any]
        given = [raw for raw in chunk.get("choices") or () if raw is not None]
        for raw in given:
            index = raw.get("index")
            choice = (self.choices.get(index) if type(index) is int else None) or self._open(index, raw, len(given))
            read.append((choice, self._read_choice(choice, raw, part)))
        extras = self._extras(chunk)
        events: list[Event] = []
        for choice, steps in read:
            events += self._done(choice, steps)
        events += extras
        if events and self.copyable:
            # The copier finds usage by its name and keeps the last one: a chunk's usage must be valid and occur once.
            self.copyable = (not usage or bool(counted)) and text.count('"usage"') == ("usage" in chunk)
        return self._begun(events, identifier, model)

    def _extras(self, chunk: dict[str, Any]) -> list[Event]:
        try:
            return self.extras(chunk)
        except WRONG_SHAPE:
            self.copyable = False
            return [{**UNREADABLE}]

    def _count(self, counted: dict[str, int], usage: Any) -> None:
        """Stores the usage, and the cost that the provider's own usage reports, be it without counts."""
        if not self.usage or any(counted.values()):  # some servers end with zeros
            self.usage, self.own_cost = counted or None, self.cost_in(usage)

    def _begun(self, events: list[Event], identifier: str, model: str) -> list[Event]:
        """Returns the events of a chunk; puts `start` before the first events of the response."""
        if self.started and self.named:
            return events
        # An empty chunk (Azure's first) yields no `start`: the model is not known yet.
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

    def _open(self, index: Any, raw: dict[str, Any], listed: int = 1) -> Choice:
        """Returns the choice for an index that `choices` does not have as a key: a new one, or an index as text.

        An index that is no count is as missing.

        Args:
            index: The index.
            raw: The choice that has it.
            listed: The number of choices in the chunk.
        """
        if index is not None and type(index) is not int:
            self.copyable = False  # the copier reads the choice of a number only
        number = count(index) or 0
        first = self.choices.get(0)
        if number and listed == self.wanted_choices == 1 and (first is None or first.is_only or first.is_counted(raw)):
            # Servers count from 1, or the tokens (text-generation-inference#1648), or the chunks (foundry-local#263).
            first = first or self.choices.setdefault(0, Choice(0, self.room, self.tool_names))
            first.is_only = True
            return first
        if number in self.choices:
            return self.choices[number]
        if len(self.choices) >= SHARED.choices:
            raise too_many("choices", SHARED.choices)
        choice = self.choices[number] = Choice(number, self.room, self.tool_names)
        return choice

    def _read_choice(self, choice: Choice, raw: dict[str, Any], part: str) -> list[Event | CallFragment]:
        message = self.message_in(raw, part)
        steps = self._steps(choice, message, part) if message else []
        if not steps:
            found = chat_content(raw, self.other_places[part], message)
            whole = raw.get("message") if part == "delta" else None
            if found is not None and whole and (found is whole or found.get("content") is whole):
                found = choice.unread(found, is_last=bool(raw.get("finish_reason")))
                part = "message" if choice.first is None else part
            if found:
                self.copyable = False
                steps = self._steps(choice, found, part)
        if steps:
            choice.has_content = True
            if raw.get("logprobs"):
                self._add_logprobs(steps, raw["logprobs"])
        reason = raw.get("finish_reason")
        if raw.get("error"):  # of OpenRouter, and of servers that pass its chunks on
            failure = self.api.read_failure({"error": raw["error"]})
            if failure is not None:
                raise self.error(failure)
        if reason:
            # The last reason holds, even if it repeats an earlier reason.
            self._end_choice(choice, label(reason))
            stop = raw.get("stop_reason", raw.get("matched_stop"))  # of vLLM and SGLang; a token's number is not text
            if isinstance(stop, str) and stop.lower() not in FINISH_WORDS:
                choice.stop = stop[: SHARED.stop_sequence]
        return steps

    def _steps(self, choice: Choice, message: dict[str, Any], part: str) -> list[Event | CallFragment]:
        """Works as `read_message`. Members of another shape are left out."""
        characters, cited = choice.characters, len(self._cited) if self._cited is not None else 0
        try:
            return list(self.read_message(choice, message, part))
        except WRONG_SHAPE:
            self.copyable = False
            return self._read_members(choice, message, part, characters, cited)

    def _add_logprobs(self, steps: list[Event | CallFragment], given: Any) -> None:
        """Adds the probabilities of a chunk's tokens to its text. Unreadable values are left out."""
        self.copyable = False  # each token has its own
        for step in steps:
            kind = step["type"] if isinstance(step, dict) else ""
            if kind in _SCORED:
                scores = token_scores(given.get(_SCORED[kind])) if isinstance(given, dict) else None
                if scores:
                    step["logprobs"] = scores  # type: ignore[index]  # an event: `kind` is not empty
                return

    def _end_choice(self, choice: Choice, reason: str) -> None:
        """Records a finish reason; empty if it cannot be read."""
        choice.reason, self.copyable = reason[:_KEPT_WORD] or choice.reason, False
        self.is_complete = len(self.choices) >= self.wanted_choices and all(
            each.reason for each in self.choices.values()
        )

    def _read_members(
        self, choice: Choice, message: dict[str, Any], part: str, characters: int, cited: int
    ) -> list[Event | CallFragment]:
        """Reads a message of which a member has another shape. That member is left out, with a warning.

        Args:
            choice: As for `read_message`.
            message: As for `read_message`.
            part: As for `read_message`.
            characters: The choice's characters before the message.
            cited: The number of citations before it.

        Raises:
            Malformed: The message is not an object, or its text is not a string.
        """
        if not isinstance(message, dict):
            raise Malformed("the content of a choice is no object")
        readable: dict[str, Any] = {}
        for name, value in message.items():
            self._unread(choice, characters, cited)
            try:
                list(self.read_message(choice, {name: value}, part))
                readable[name] = value
            except WRONG_SHAPE:
                if name == "content":
                    raise
        self._unread(choice, characters, cited)
        return [*self.read_message(choice, readable, part), {**UNREADABLE}]

    def _unread(self, choice: Choice, characters: int, cited: int) -> None:
        """Takes back what reading a message has noted; arguments as for `_read_members`."""
        choice.characters = characters
        while self._cited and len(self._cited) > cited:
            self._cited.popitem()

    def read_message(self, choice: Choice, message: dict[str, Any], part: str) -> Iterable[Event | CallFragment]:
        """Reads one delta, or a whole message, into events and fragments of calls.

        Args:
            choice: The choice that the message belongs to.
            message: The raw object.
            part: `delta` or `message`.
        """
        content = message.get("content")
        if len(message) == 1:
            # Most deltas have one member.
            if isinstance(content, str):
                choice.characters += len(content)
                return [{"type": "text.delta", "text": content}] if content else []
            if "tool_calls" in message:
                return self._fragments(message["tool_calls"], part)
        content = content or message.get("text")
        thoughts = _thoughts(choice, message)
        said: list[Event] = []
        if isinstance(content, list):
            for piece in content:
                said += self._read_piece(choice, piece)
            if choice.thought or thoughts:
                said = _unthought(said, thoughts, choice.thought)
        elif content and content != message.get("refusal"):
            said = self.text(choice, inner_text(content))
        steps: list[Event | CallFragment] = [*thoughts, *said]
        if message.get("refusal"):
            steps.append({"type": "refusal.delta", "text": text_of(message["refusal"])})
        if message.get("audio"):
            steps += self._audio(choice, message["audio"], said, "" if part == "message" else _STREAMED_AUDIO)
        steps += self._fragments(message.get("tool_calls") or message.get("tool_call"), part)
        if message.get("function_call"):
            steps.append(read_fragment({"function": message["function_call"]}, FUNCTION_CALL))
        if message.get("annotations"):
            cited = [_annotation(annotation) for annotation in objects(message["annotations"])]
            steps += self.citations(cited, choice.number)
        if "images" in message:
            steps += [image for image in _images(message["images"]) if image not in said]
        return steps

    def _read_piece(self, choice: Choice, piece: Any) -> list[Event]:
        """Reads one piece of a content list. If a part without text cannot be read, returns a warning."""
        if isinstance(piece, str):
            return self.text(choice, piece)
        try:
            return self.read_part(choice, piece)
        except WRONG_SHAPE:
            if isinstance(piece, dict) and piece.get("text"):
                raise
            self.copyable = False
            return [{**UNREADABLE}]

    def text(self, choice: Choice, text: Any) -> list[Event]:
        """Returns the delta for visible text, if the text is not empty."""
        text = text_of(text)
        if not text:
            return []
        choice.characters += len(text)
        return [{"type": "text.delta", "text": text}]

    def _audio(self, choice: Choice, audio: dict[str, Any], said: list[Event], audio_format: str) -> list[Event]:
        """Reads audio and its transcript. A stream's last chunk has neither, only the time when the audio expires."""
        self.keep_id(label(audio.get("id")))  # a later message may refer to it
        transcript = audio.get("transcript")
        events = [] if transcript == _joined(said, "text.delta") else self.text(choice, transcript)
        if audio.get("data"):
            members = {"chunk": text_of(audio["data"]), "format": audio_format}
            events.append({"type": "audio.delta", "audio": {key: value for key, value in members.items() if value}})
        return events

    def citations(self, cited: Iterable[dict[str, Any]], choice: int = 0) -> list[Event]:
        """Returns one event for the citations with an address that are new: servers repeat them, in every chunk or in
        another member. Without a span, a known address is not new.

        Args:
            cited: The citations.
            choice: The number of their choice.

        Raises:
            Error: The response exceeds the memory limit.
        """
        if self._cited is None:
            self._cited = {}
        found: list[dict[str, Any]] = []
        for one in cited:
            uri = one.get("uri")
            place = choice, uri, one.get("start"), one.get("end")
            if uri and place not in self._cited:
                self.room.take(len(uri), 4)
                self._cited[choice, uri, None, None] = self._cited[place] = None
                found.append(one)
        return [{"type": "citations", "citations": found}] if found else []

    # -- tool calls --

    def _fragments(self, calls: Any, part: str) -> list[Event | CallFragment]:
        fragments = read_fragments(calls, part)
        for fragment in fragments:
            fragment.identifier = self.call_id(fragment.identifier)
        return [*fragments]

    def _call_fragment(self, choice: Choice, fragment: CallFragment) -> list[Event]:
        """Adds a fragment to its call, or begins a call with it."""
        calls = choice.calls
        if calls.is_repeated(fragment):
            self.copyable = False
            return []
        call = calls.find(fragment)
        self.copyable = self.copyable and calls.is_steady(call, fragment)
        events: list[Event] = []
        if call is None:
            call, events = calls.begin(fragment, self.seed(choice.number))
        return events + calls.take(call, fragment)

    def kept(self, name: str, text: str) -> None:
        usage = parse_chunk(text)
        self._count(self.count_usage(usage), usage)

    def expected(self) -> Event | None:
        return _EXPECTED if self.started and self.named and 0 in self.choices else None

    def copied(self, event: Event, characters: int, text: str) -> None:
        choice = self.choices[event.get("choice", 0)]
        if event["type"] == "text.delta":
            choice.characters += characters
            choice.has_content = True
        elif event["type"] == "tool.call.delta":
            choice.calls.copied(event["index"], text)

    # -- the end --

    def finish(self) -> list[Event]:
        first = self.choices.get(0) or Choice(0, self.room)
        if not first.reason and not self.ended:
            raise self.truncated()
        self.check_word(first.reason)
        events = self.start(None, None)
        for choice in self.choices.values():
            if choice.has_calls:
                events += self._close(choice, cut_off=self._outcome(choice) not in COMPLETE)
        end = self.end(self._outcome(first), first.reason)
        if len(self.choices) > 1:
            add_ends(end, [(each.number, self._outcome(each), each.reason) for each in self.choices.values()])
        events.append(end)
        if first.stop:
            end["provider_metadata"] = {"stop_sequence": first.stop, **end.get("provider_metadata", {})}
        return events

    def word(self) -> str:
        first = self.choices.get(0)
        return "" if first is None else first.reason

    def abort(self) -> list[Event]:
        return [event for choice in self.choices.values() for event in self._close(choice, cut_off=True)]

    def _close(self, choice: Choice, *, cut_off: bool) -> list[Event]:
        events = choice.calls.close_all(cut_off=cut_off)
        _mark(events, choice)
        return events

    def _outcome(self, choice: Choice) -> str:
        return outcome(self.api.finish_words, choice.reason, has_calls=choice.has_calls)

    # -- hooks for providers --

    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        if isinstance(chunk, dict) and chunk.get("choices") and not (chunk.get("error") or "base_resp" in chunk):
            return None
        return self.api.read_failure(chunk)

    def message_in(self, choice: dict[str, Any], part: str) -> Any:
        """Returns the content of a raw choice. Empty content of any type is ignored: PHP writes `{}` as `[]`."""
        return choice.get(part)

    def read_part(self, choice: Choice, part: dict[str, Any]) -> list[Event]:
        """Reads one part of a content list. A part without a type has the type of its content."""
        kind = part.get("type")
        if not isinstance(kind, str):
            kind = next((name for name in ("text", "refusal", "thinking") if name in part), "")
        if kind == "refusal" and part.get("refusal"):
            return [{"type": "refusal.delta", "text": text_of(part["refusal"])}]
        if kind in _THOUGHTS:
            return _thinking(part)
        if part.get("name") and not part.get("text"):
            raise Malformed("a call among the parts of a content")
        text = part.get("text") or part.get("content") or part.get("value")
        events = self.text(choice, inner_text(text))  # of any other type, too: `text`, `output_text`
        return events + _image(part) if "image_url" in part else events

    def call_id(self, identifier: str) -> str:
        """Returns the id of a call, empty if the call has none."""
        return identifier

    def usage_in(self, chunk: dict[str, Any]) -> Any:
        """Returns the provider's usage object, or None if the chunk has none."""
        return chunk.get("usage")

    def count_usage(self, raw: dict[str, Any]) -> dict[str, int]:
        """Returns usage as `docs/events.md` defines it.

        Servers have several names for one count; the first that is present and not zero holds.
        """
        input_tokens, output_tokens = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens"))
        input_tokens = count(raw.get("input_tokens")) if input_tokens is None else input_tokens
        output_tokens = count(raw.get("output_tokens")) if output_tokens is None else output_tokens
        total = count(raw.get("total_tokens"))
        if len(raw) == _PLAIN_COUNTS and not (input_tokens is None or output_tokens is None or total is None):
            return counted_usage(input_tokens, output_tokens, total=total)  # nothing else: 1,500 instructions less
        details = member(raw, "prompt_tokens_details")
        cached, written = count(details.get("cached_tokens")), _written_in(details)
        if not _OTHER_COUNTS.isdisjoint(raw):
            cached, written = cached or _cached_in(raw), written or count(raw.get(_WRITTEN))
            input_tokens = _with_caches(raw, input_tokens, output_tokens, total)
        return counted_usage(
            input_tokens,
            output_tokens,
            cached=cached,
            written=written,
            reasoning=nested_count(raw, "completion_tokens_details", "reasoning_tokens")
            or nested_count(raw, "output_tokens_details", "reasoning_tokens")
            or count(raw.get("reasoning_tokens")),
            total=total,
        )

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        """Reads the members other than the choices."""
        return []


_PLAIN_COUNTS: Final = 3
"""The members of a usage without details: the input, the output and their sum."""
_READ: Final = "cache_read_input_tokens"
_WRITTEN: Final = "cache_creation_input_tokens"
_CACHED: Final[tuple[str, ...]] = ("num_cached_tokens", "prompt_cache_hit_tokens", "cached_tokens", _READ)
_OTHER_COUNTS: Final = frozenset((*_CACHED, _WRITTEN, "input_tokens_details"))
"""Members of usage that count tokens of caches, besides the dialect's: of vLLM, DeepSeek, Moonshot, Anthropic."""


def _written_in(details: dict[str, Any]) -> int | None:
    """Returns the tokens of details that were written to a cache, by the names of OpenAI, LiteLLM and New API."""
    for name in ("cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens"):
        written = count(details.get(name))
        if written:
            return written
    return None


def _cached_in(raw: dict[str, Any]) -> int | None:
    """Returns the tokens of a usage that were read from a cache, by the names of servers."""
    for name in _CACHED:
        cached = count(raw.get(name))
        if cached:
            return cached
    return nested_count(raw, "input_tokens_details", "cached_tokens")


def _with_caches(
    raw: dict[str, Any], input_tokens: int | None, output_tokens: int | None, total: int | None
) -> int | None:
    """Returns the input with the tokens of caches, which some proxies of Claude do not include, as Anthropic does."""
    beside = (count(raw.get(_READ)) or 0) + (count(raw.get(_WRITTEN)) or 0)
    if not beside or input_tokens is None:
        return input_tokens
    is_beside = beside > input_tokens if total is None else total == input_tokens + beside + (output_tokens or 0)
    return input_tokens + beside if is_beside else input_tokens


def _annotation(annotation: dict[str, Any]) -> dict[str, Any]:
    """Reads a citation. Its source is in the member that its `type` names, or in the annotation itself."""
    source = member(annotation, label(annotation.get("type"))) or annotation
    uri = source.get("url") or source.get("file_id") or source.get("document_id")
    title = source.get("title") or source.get("filename")
    return citation(uri, title, source.get("start_index"), source.get("end_index"))


def _images(images: Any) -> list[Event]:
    """Reads generated images next to the content, in OpenRouter's shape, which LiteLLM uses, too."""
    events: list[Event] = []
    for image in objects(images):
        events += _image(image)
    return events


def _image(part: dict[str, Any]) -> list[Event]:
    """Returns the event for an image with a `data:` URL. Images with other URLs are left out: adapters fetch nothing.

    Raises:
        Malformed: The URL is not text.
    """
    image = part.get("image_url")
    head, _, data = text_of(image.get("url") if isinstance(image, dict) else image).partition(";base64,")
    if not data or not head.startswith("data:"):
        return []
    return [{"type": "image", "image": {"data": data, "media_type": head.removeprefix("data:")}}]


def _joined(events: list[Event], kind: str) -> str:
    """Returns the text of the events of a type."""
    return "".join([event["text"] for event in events if event["type"] == kind])


def _unthought(said: list[Event], thoughts: list[Event], begun: str) -> list[Event]:
    """Returns the events of a content without reasoning that other members have told.

    Args:
        said: The events of the content's parts.
        thoughts: Those of the other members of the message.
        begun: The beginning of the choice's reasoning in those members. A part with a signature may repeat all of it.
    """
    text = _joined(said, "reasoning.delta")
    is_signed = any(event["type"] == "reasoning.signature" for event in said)
    is_repeated = text == _joined(thoughts, "reasoning.delta") or (is_signed and begun and text.startswith(begun))
    if not (text and is_repeated):
        return said
    signed = [event["signature"] for event in thoughts if event["type"] == "reasoning.signature"]
    return [event for event in said if event["type"] != "reasoning.delta" and event.get("signature") not in signed]


def _thoughts(choice: Choice, message: dict[str, Any]) -> list[Event]:
    """Reads the reasoning of a message, which may be in several members."""
    events: list[Event] = []
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    details = message.get("reasoning_details")
    blocks = message.get("thinking_blocks")
    if isinstance(reasoning, str) and reasoning:
        choice.thought = choice.thought or reasoning[:_PREFIX]
        if blocks and not details and _joined_thoughts(blocks) == reasoning:
            return _thinking_blocks(blocks, with_text=True)  # each signature after the text of its block
        events.append({"type": "reasoning.delta", "text": reasoning})
    if details:
        events += _reasoning_details(details, choice.thought, with_text=not reasoning)
    elif blocks and (choice.thought or not reasoning):
        events += _thinking_blocks(blocks, with_text=not choice.thought)
    elif not reasoning or not isinstance(reasoning, str):
        events += _other_thoughts(message, reasoning)
    return events


def _reasoning_details(details: list[dict[str, Any]], begun: str, *, with_text: bool) -> list[Event]:
    """Reads reasoning in OpenRouter's shape, which other servers and gai-fast's own OpenAI format use, too.

    Args:
        details: The list. The one with the signature may repeat the text of all before it.
        begun: The beginning of the reasoning in another member of this or an earlier message; empty if there is none.
        with_text: Whether to read the text; False if another member of the message has it.
    """
    events: list[Event] = []
    for detail in details:
        text = detail.get("text") or detail.get("summary")
        is_told = begun and detail.get("signature") and text and text_of(text).startswith(begun)
        if text and with_text and not is_told:
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


def _thinking_blocks(blocks: Any, *, with_text: bool) -> list[Event]:
    """Reads reasoning in LiteLLM's shape: Anthropic's blocks, which repeat the text of `reasoning_content`.

    Args:
        blocks: The blocks. The one with the signature may repeat the text of all before it.
        with_text: Whether to read the text; False if `reasoning_content` has it.
    """
    events: list[Event] = []
    for block in objects(blocks):
        if with_text or not block.get("thinking"):
            events += _thinking(block)
        elif block.get("signature"):
            events.append({"type": "reasoning.signature", "signature": text_of(block["signature"])})
        if block.get("type") == "redacted_thinking" and block.get("data"):
            events.append({"type": "reasoning.signature", "signature": text_of(block["data"]), "redacted": True})
    return events


def _joined_thoughts(blocks: Any) -> str:
    """Returns the text of the blocks of LiteLLM's shape."""
    return "".join([label(block.get("thinking")) for block in objects(blocks)])


def _other_thoughts(message: dict[str, Any], reasoning: Any) -> list[Event]:
    """Reads reasoning under other names and of other shapes: a text, an object with a text, or a list of them."""
    given = reasoning or next((message[name] for name in _OTHER_THOUGHTS if message.get(name)), None)
    if isinstance(given, str):
        return [{"type": "reasoning.delta", "text": given}]
    events: list[Event] = []
    for each in objects([given] if isinstance(given, dict) else given):
        thoughts = _thinking(each)
        text = each.get("content")
        events += thoughts or ([{"type": "reasoning.delta", "text": text}] if text and isinstance(text, str) else [])
    return events


def _thinking(part: dict[str, Any]) -> list[Event]:
    """Reads a content part with reasoning: a text or a list of texts, and a signature."""
    thoughts = part.get("thinking") or part.get("text")
    if isinstance(thoughts, list):
        thoughts = "".join(text_of(thought.get("text")) for thought in thoughts)
    events: list[Event] = []
    if thoughts:
        events.append({"type": "reasoning.delta", "text": text_of(thoughts)})
    if part.get("signature"):
        events.append({"type": "reasoning.signature", "signature": text_of(part["signature"])})
    return events
