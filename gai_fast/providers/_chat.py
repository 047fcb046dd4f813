"""The chat dialect: `POST …/chat/completions` as OpenAI made it and most others speak it.

Source: PROVIDERS §0, §1, §10. A stream is chunks of `choices[].delta`, then `[DONE]`; usage may sit on any chunk, an
error may come at any time. Owns the dialect's requests and its grammar, with hooks where providers depart from it; what
one of them does differently stands in its own file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from msgspec import UNSET
from orjson import Fragment

from gai_fast._impl import compact_json, encode_json
from gai_fast.errors import Malformed, Said
from gai_fast.events import Event
from gai_fast.limits import LIMITS
from gai_fast.providers._base import (
    API,
    Adapter,
    Target,
    ToolCall,
    ToolCalls,
    UpstreamRequest,
    citation,
    count,
    counted_usage,
    image_url,
    members,
    parse_chunk,
    text_of,
    too_many,
)
from gai_fast.request import (
    AssistantMessage,
    ImagePart,
    NamedTool,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    SystemMessage,
    TextPart,
    Tool,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)

# ---- requests --------------------------------------------------------------------------------------------------------


class ChatAPI(API):
    """The dialect's common ground; a provider sets what is its own."""

    dialect = "openai"
    path: ClassVar[str] = "/chat/completions"
    max_tokens_field: ClassVar[str] = "max_tokens"
    seed_field: ClassVar[str] = "seed"
    stream_options: ClassVar[Mapping[str, bool]] = {"include_usage": True}
    """Empty: the provider tells usage unasked, or refuses the field."""
    finish_words: ClassVar[Mapping[str, str]] = {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
        "function_call": "tool_calls",
    }
    failure_words: ClassVar[frozenset[str]] = frozenset({"error"})
    """Words in place of a finish reason that mean that the answer failed."""

    def adapter(self, model: str | None = None) -> ChatAdapter:
        return ChatAdapter(self, model)

    def build_request(self, request: Request, target: Target) -> UpstreamRequest:
        body: dict[str, Any] = {"model": target.model, "messages": self.messages(request)}
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if isinstance(request.tool_choice, NamedTool):
            body["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice.name}}
        elif request.tool_choice:
            body["tool_choice"] = request.tool_choice
        if request.response_format:
            body["response_format"] = self.response_format(request.response_format)
        if request.reasoning:
            body |= self.reasoning(request.reasoning)
        return self.post(body | self.sampling(request) | request.provider_options.get(self.provider, {}), target)

    def sampling(self, request: Request) -> dict[str, Any]:
        """How the answer is drawn and told: the fields that chat and legacy completions share."""
        fields: dict[str, Any] = {
            "stream": True,
            "stream_options": self.stream_options or UNSET,
            "temperature": request.temperature,
            "top_p": request.top_p,
            self.max_tokens_field: request.max_tokens,
            self.seed_field: request.seed,
            "stop": request.stop or UNSET,
        }
        return {name: value for name, value in fields.items() if value is not UNSET}

    def build_passthrough(self, body: Mapping[str, Any], target: Target) -> UpstreamRequest:
        return self.post({**body, "model": target.model}, target)

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        """The body on its way."""
        return UpstreamRequest(self.path, encode_json(body), self.headers(target))

    def headers(self, target: Target) -> list[tuple[str, str]]:
        """The headers of a request."""
        return [("content-type", "application/json"), ("accept", "text/event-stream"), *self.key_header(target)]

    def key_header(self, target: Target) -> list[tuple[str, str]]:
        """The header that carries the credential, where there is one."""
        return [("authorization", f"Bearer {target.api_key}")] if target.api_key else []

    def messages(self, request: Request) -> list[dict[str, Any]]:
        """The conversation in the dialect's terms."""
        return [self._message(message) for message in request.conversation]

    def _message(self, message: SystemMessage | UserMessage | AssistantMessage | ToolMessage) -> dict[str, Any]:
        if isinstance(message, SystemMessage):
            return {"role": "system", "content": self._text(message.content, "system")}
        if isinstance(message, ToolMessage):
            content = self._text(message.content, "tool")
            return {"role": "tool", "tool_call_id": message.call_id, "content": content}
        if isinstance(message, AssistantMessage):
            return self.assistant(message)
        if isinstance(message.content, str):
            return {"role": "user", "content": message.content}
        return {"role": "user", "content": [self._user_part(part) for part in message.content]}

    def _text(self, content: str | Iterable[Any], role: str) -> str:
        """Content that must be text, in one piece."""
        if isinstance(content, str):
            return content
        return "".join(self._text_part(part, role) for part in content)

    def _text_part(self, part: Any, role: str) -> str:
        if isinstance(part, TextPart):
            return part.text
        raise self.unsupported(f"messages: {type(part).__struct_config__.tag} parts in {role} messages")

    def _user_part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, ImagePart):
            return {"type": "image_url", "image_url": {"url": image_url(part)}}
        return {"type": "text", "text": self._text_part(part, "user")}

    def assistant(self, message: AssistantMessage) -> dict[str, Any]:
        """An earlier answer, with its calls and, where the provider takes it back, its reasoning."""
        if isinstance(message.content, str):
            return {"role": "assistant", "content": message.content}
        reasoning = [part for part in message.content if isinstance(part, ReasoningPart)]
        calls = [part for part in message.content if isinstance(part, ToolCallPart)]
        others = [part for part in message.content if not isinstance(part, (ReasoningPart, ToolCallPart))]
        text = self._text(others, "assistant")
        whole: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
        own = [part for part in reasoning if not part.provider or part.provider == self.provider]
        if own:
            whole |= self.earlier_reasoning(own, has_calls=bool(calls))
        if calls:
            whole["tool_calls"] = [self.earlier_call(call) for call in calls]
        return whole

    def earlier_reasoning(self, parts: list[ReasoningPart], *, has_calls: bool) -> dict[str, Any]:
        """What an assistant message says of this provider's own reasoning; nothing where it does not take it back.

        Args:
            parts: The reasoning, in order.
            has_calls: Whether the same message calls tools.
        """
        return {}

    def earlier_call(self, call: ToolCallPart) -> dict[str, Any]:
        """A call the assistant made; its arguments are JSON text in a string."""
        arguments = bytes(call.input).decode()
        return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}

    def response_format(self, wanted: ResponseFormat) -> dict[str, Any]:
        """The dialect's `response_format`."""
        if wanted.type == "text":
            return {"type": "text"}
        if wanted.type == "json":
            return {"type": "json_object"}
        schema: dict[str, Any] = {"name": wanted.name or "answer"}
        if wanted.strict is not UNSET:
            schema["strict"] = wanted.strict
        if wanted.schema:
            schema["schema"] = Fragment(bytes(wanted.schema))
        return {"type": "json_schema", "json_schema": schema}

    def reasoning(self, wanted: Reasoning) -> dict[str, Any]:
        """The fields that say how much to think."""
        if wanted.max_tokens is not UNSET:
            raise self.unsupported("reasoning.max_tokens")
        return {"reasoning_effort": wanted.effort} if wanted.effort else {}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = Fragment(bytes(tool.parameters))
    if tool.strict is not UNSET:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


# ---- answers ---------------------------------------------------------------------------------------------------------

_END: Final = "[DONE]"
_FUNCTION_CALL: Final = -1
"""The slot of the deprecated `function_call`, beside the indices of `tool_calls`."""
_STREAMED_AUDIO: Final = "pcm16"
"""The only audio format that OpenAI streams on this API."""


@dataclass(frozen=True, slots=True)
class CallFragment:
    """A piece of a tool call as one chunk has it; empty where it says nothing."""

    index: int | None
    identifier: str
    name: str
    arguments: str
    signature: str


@dataclass(slots=True)
class Choice:
    """One choice of an answer."""

    number: int
    calls: ToolCalls = field(default_factory=ToolCalls)
    slots: dict[int, ToolCall] = field(default_factory=dict)
    """The call that a `tool_calls[].index` means at the moment."""
    named: dict[str, ToolCall] = field(default_factory=dict)
    """The call that a provider's id means."""
    last: ToolCall | None = None
    characters: int = 0
    """Code points of text so far."""
    spoke: bool = False
    reason: str = ""
    """The provider's word for why it finished."""


class ChatAdapter(Adapter):
    """Reads the dialect's chunks; providers override the hooks that follow `finish`."""

    api: ChatAPI
    text_members = frozenset({"content", "reasoning_content", "reasoning", "refusal", "arguments"})
    ignored_members = frozenset({"obfuscation", "p", "created", "system_fingerprint"})
    kept_members = frozenset({"usage"})

    def __init__(self, api: ChatAPI, model: str | None = None) -> None:
        super().__init__(api, model)
        self.choices: dict[int, Choice] = {}
        self._cited: set[str] = set()

    def receive(self, name: str, data: str) -> list[Event]:
        # The official clients test for a prefix (PROVIDERS §0.2).
        if data.startswith(_END):
            self.ended = True
            return []
        if not data.strip():
            return []
        if name == "error":
            raise self.told(data)
        return self._read(parse_chunk(data), "delta", data)

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        events = self._read(answer, "message", text)
        if not self.choices:
            raise Malformed("an answer without choices")
        self.ended = True
        return events

    def _read(self, chunk: Any, part: str, text: str) -> list[Event]:
        """The events of one chunk.

        Args:
            chunk: The parsed chunk.
            part: What a choice calls its content: `delta`, or `message` in a whole answer.
            text: The chunk's JSON text.
        """
        usage = self.usage_in(chunk) if isinstance(chunk, dict) else None
        counted = self.count_usage(usage) if usage else None
        self.usage = counted or self.usage
        said = self.failure(chunk)
        if said is not None:
            raise self.error(said)
        if not isinstance(chunk, dict):
            raise Malformed(f"a chunk is a JSON {type(chunk).__name__}, not an object")
        if part == "message" or '"tool_calls"' in text:
            _put_arguments_as_text(chunk, part, text)
        identifier, model = text_of(chunk.get("id")), text_of(chunk.get("model"))
        self.copyable = not usage or bool(counted)  # only the last usage is kept, so each must count
        # Everything is read before anything is done, so that a chunk that cannot be read leaves no call half begun.
        read: list[tuple[Choice, Event | CallFragment]] = []
        for raw in chunk.get("choices") or ():
            choice = self._choice(raw.get("index"))
            read += ((choice, step) for step in self._read_choice(choice, raw, part))
        extras = self.extras(chunk)
        events: list[Event] = []
        for choice, step in read:
            events += self._done(choice, step)
        events += extras
        if self.started and self.named:
            return events
        # A chunk that says nothing at all (Azure's first) is no start: its model is not known yet.
        return self.start(identifier, model) + events if identifier or model or events else []

    def _done(self, choice: Choice, step: Event | CallFragment) -> list[Event]:
        events = self._call_fragment(choice, step) if isinstance(step, CallFragment) else [step]
        if choice.number:
            for event in events:
                event["choice"] = choice.number
        return events

    def _choice(self, index: Any) -> Choice:
        choice = self.choices.get(0 if index is None else index)
        if choice is None:
            number = 0 if index is None else count(index)
            if number is None:
                raise Malformed("the index of a choice is no number")
            if len(self.choices) >= LIMITS.choices:
                raise too_many("choices", LIMITS.choices)
            choice = self.choices[number] = Choice(number)
        return choice

    def _read_choice(self, choice: Choice, raw: dict[str, Any], part: str) -> Iterator[Event | CallFragment]:
        message = self.message_in(raw, part)
        if message is None and not choice.spoke and raw.get("message"):
            # Some proxies put the whole answer into one chunk; a second one would say it again.
            message, part, self.copyable = raw["message"], "message", False
        if message:
            for step in self.read_message(choice, message, part):
                choice.spoke = True
                yield step
        if raw.get("finish_reason"):
            # The last reason counts, also where it is an earlier one again.
            choice.reason, self.copyable = str(raw["finish_reason"]), False

    def read_message(self, choice: Choice, message: dict[str, Any], part: str) -> Iterator[Event | CallFragment]:
        """The events and the fragments of calls of one delta, or of a whole message.

        Args:
            choice: Where it belongs.
            message: The raw object.
            part: `delta` or `message`.
        """
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        if isinstance(reasoning, str) and reasoning:
            yield {"type": "reasoning.delta", "text": reasoning}
        details = message.get("reasoning_details")
        if details:
            yield from _reasoning_details(details, with_text=not reasoning)
        content = message.get("content")
        if isinstance(content, list):
            for piece in content:
                yield from self.read_part(choice, {"type": "text", "text": piece} if isinstance(piece, str) else piece)
        elif content:
            yield from self.text(choice, content)
        if message.get("refusal"):
            yield {"type": "refusal.delta", "text": text_of(message["refusal"])}
        if message.get("audio"):
            yield from self._audio(choice, message["audio"], "" if part == "message" else _STREAMED_AUDIO)
        for position, call in enumerate(message.get("tool_calls") or ()):
            index = count(call.get("index"))
            if index is None and part == "message":
                index = position
            yield self._fragment(call, index)
        if message.get("function_call"):
            yield self._fragment({"function": message["function_call"]}, _FUNCTION_CALL)
        if message.get("annotations"):
            yield from self.citations([_annotation(annotation) for annotation in message["annotations"]])

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
        self._cited.update(new)
        return self.citations(new.values())

    # -- tool calls --

    def _fragment(self, raw: dict[str, Any], index: int | None) -> CallFragment:
        function = raw.get("function") or raw.get("custom") or {}
        return CallFragment(
            index,
            self.call_id_in(raw),
            text_of(function.get("name")),
            text_of(function.get("arguments", function.get("input"))),
            text_of(((raw.get("extra_content") or {}).get("google") or {}).get("thought_signature")),
        )

    def _call_fragment(self, choice: Choice, fragment: CallFragment) -> list[Event]:
        """The events of a fragment, for the call that PROVIDERS §0.8 says it belongs to."""
        call = self._call_of(choice, fragment)
        events: list[Event] = []
        if call is None:
            call, events = choice.calls.open(fragment.identifier, fragment.name)
            if fragment.identifier:
                choice.named[fragment.identifier] = call
        choice.last = call
        if fragment.index is not None:
            choice.slots[fragment.index] = call
        events += choice.calls.add(call, fragment.arguments, fragment.name)
        # A name or an id may begin another call next time: only bare fragments are all alike.
        self.copyable = self.copyable and not fragment.name and not fragment.identifier
        if fragment.signature:
            events.append({"type": "reasoning.signature", "call_id": call.call_id, "signature": fragment.signature})
        return events

    def _call_of(self, choice: Choice, fragment: CallFragment) -> ToolCall | None:
        """The call in progress that a fragment continues, or `None` where it begins one."""
        index, identifier = fragment.index, fragment.identifier
        call = choice.last if index is None else choice.slots.get(index)
        if identifier:
            return choice.named.get(identifier) if index is None or call is not None else None
        # Servers that number every call 0 and give no ids: what is complete JSON already takes no further name.
        begins = call is not None and fragment.name and fragment.arguments and call.arguments.endswith("}")
        return None if begins and call is not None and compact_json(call.arguments) else call

    def kept(self, name: str, text: str) -> None:
        self.usage = self.count_usage(parse_chunk(text)) or self.usage

    def copied(self, event: Event, characters: int, text: str) -> None:
        choice = self.choices[event.get("choice", 0)]
        if event["type"] == "text.delta":
            choice.characters += characters
        elif event["type"] == "tool.call.delta":
            choice.last = choice.calls.told[event["index"]]
            choice.last.pieces.append(text)

    # -- the end --

    def finish(self) -> list[Event]:
        first = self.choices.get(0) or Choice(0)
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
        if choice.number:
            for event in events:
                event["choice"] = choice.number
        return events

    def _outcome(self, choice: Choice) -> str:
        reason = self.api.finish_words.get(choice.reason, "other")
        return "tool_calls" if choice.calls and (reason == "stop" or not choice.reason) else reason

    # -- what providers do differently --

    def failure(self, chunk: Any) -> Said | None:
        """What a chunk says of a failure, or `None`: asked before anything of it counts as content."""
        if isinstance(chunk, dict) and "choices" in chunk and not chunk.get("error"):
            return None
        return self.api.said(chunk)

    def message_in(self, choice: dict[str, Any], part: str) -> dict[str, Any] | None:
        """The content of a raw choice."""
        message: dict[str, Any] | None = choice.get(part)
        return message

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

    def call_id_in(self, call: dict[str, Any]) -> str:
        """The id of a raw call, empty where it has none."""
        return text_of(call.get("id"))

    def usage_in(self, chunk: dict[str, Any]) -> Any:
        """The provider's usage object, where the chunk has one."""
        return chunk.get("usage")

    def count_usage(self, raw: dict[str, Any]) -> dict[str, int]:
        """Usage in the terms of CONTRACT §5.

        Several servers name the same count differently; the first that is there and not zero counts.
        """
        prompt = raw.get("prompt_tokens_details") or {}
        completion = raw.get("completion_tokens_details") or {}
        cached = (prompt.get("cached_tokens"), raw.get("num_cached_tokens"), raw.get("prompt_cache_hit_tokens"))
        return counted_usage(
            _first(raw.get("prompt_tokens"), raw.get("input_tokens")),
            _first(raw.get("completion_tokens"), raw.get("output_tokens")),
            cached=next(filter(None, map(count, cached)), None),
            written=count(prompt.get("cache_write_tokens")),
            reasoning=count(completion.get("reasoning_tokens")) or count(raw.get("reasoning_tokens")),
            total=count(raw.get("total_tokens")),
        )

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        """Events of what stands beside the choices."""
        return []


def _first(*values: Any) -> int | None:
    return next((number for number in map(count, values) if number is not None), None)


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


def _put_arguments_as_text(chunk: dict[str, Any], part: str, text: str) -> None:
    """Replaces arguments that came as JSON values by their JSON text: some servers send objects (PROVIDERS §0.9)."""
    functions = [
        call["function"]
        for choice in chunk.get("choices") or ()
        for call in (choice.get(part) or {}).get("tool_calls") or ()
        if isinstance(call.get("function"), dict) and "arguments" in call["function"]
    ]
    if all(isinstance(function["arguments"], (str, type(None))) for function in functions):
        return
    path = ("choices", part, "tool_calls", "function", "arguments")
    found = members(text, *path) if text else (encode_json(function["arguments"]).decode() for function in functions)
    for function, arguments in zip(functions, found, strict=True):
        if not isinstance(function["arguments"], (str, type(None))):
            function["arguments"] = arguments
