"""Ollama's own API: `http://127.0.0.1:11434/api/chat`, and `/api/generate` as `ollama:generate`.

Source: Ollama's source and API reference. A stream is NDJSON: objects with `message` (chat) or `response` (generate)
and `done: false`, then an object with `done: true`, the reason and the usage. What is unusual:

* Tool calls arrive whole, with a JSON object as arguments. Older servers send no id.
* A failure within a stream is a last line `{"error": "text"}`.
* If the server must load the model first, it may send nothing for minutes.
* Image models answer `/api/generate` with `image`, a PNG; their other objects only report progress.
* `OLLAMA_HOST` is the address of the server, or the address on which the server listens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from msgspec import UNSET

from gai_fast.core.json.chunks import count, inner_text, label, members, parse_chunk, text_of, token_scores
from gai_fast.core.requests.reading import turns
from gai_fast.core.requests.shapes import RequestShape
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event
from gai_fast.model.request import (
    AssistantMessage,
    ImagePart,
    Message,
    NamedTool,
    ProviderBlockPart,
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
from gai_fast.providers.answers.adapter import ProviderAdapter
from gai_fast.providers.answers.events import UNREADABLE, argument_piece, counted_usage, reasoning
from gai_fast.providers.answers.limits import LIMITS
from gai_fast.providers.answers.tool_calls import ToolCalls, function_of, listed_calls
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.parts import (
    argument_object,
    function_tool,
    image_data,
    in_call_order,
    joined,
    required_schema,
)
from gai_fast.providers.requests.routes import OLLAMA_ROUTES
from gai_fast.providers.requests.rules import RequestRules
from gai_fast.providers.requests.target import Target
from gai_fast.runtime.breathing import breathe

_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]+))?")
_ADDRESS: Final = "http://127.0.0.1:11434"
_LOOPBACK: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""The address to connect to if the host is missing or an address of all interfaces."""


# ---- requests --------------------------------------------------------------------------------------------------------


class _Ollama(API):
    """The base class of both APIs."""

    provider = "ollama"
    routes = OLLAMA_ROUTES
    framing = "ndjson"
    base_url = _ADDRESS
    local_servers: ClassVar = {"ollama": _ADDRESS}
    host_variable = "OLLAMA_HOST"
    models_path = "/api/tags"
    efforts = ("low", "medium", "high")
    knobs: ClassVar = {
        "top_k": "options.top_k",
        "min_p": "options.min_p",
        "frequency_penalty": "options.frequency_penalty",
        "presence_penalty": "options.presence_penalty",
        "repetition_penalty": "options.repeat_penalty",
        "logprobs": "logprobs",
        "top_logprobs": "top_logprobs",
    }
    lacks = frozenset({"metadata"})
    rules: ClassVar = RequestRules(
        "ollama", "ollama 0.6.0, 2026-11-25", mends=[NoEmptyMessages(thoughts=("thinking",))]
    )

    def shape_of(self, body: Mapping[str, Any]) -> RequestShape:
        shape = RequestShape()
        for message in body.get("messages", ()):
            if not message["content"]:  # a text, as `content` has written it
                shape.may_be_silent = True
        return shape

    def adapter(self, model: str | None = None) -> OllamaAdapter:
        return OllamaAdapter(self, model)

    def address(self, value: str) -> str:
        """Returns the base URL for a value of `OLLAMA_HOST`, which may lack scheme, host and port, as in Ollama.

        Without a scheme, the default port is Ollama's own.
        """
        scheme, separator, rest = value.strip("\"' ").rpartition("://")
        host, slash, path = rest.partition("/")
        found = _HOST.fullmatch(f"[{host}]" if host.count(":") > 1 and host[0] != "[" else host)
        if found is None:
            return value
        port = found[2] or ("" if separator else "11434")
        return f"{scheme or 'http'}://{_LOOPBACK.get(found[1], found[1])}{port and f':{port}'}{slash}{path}"

    def completed(self, fields: dict[str, Any], request: Request, target: Target) -> dict[str, Any]:
        """Returns a body with the fields of both APIs added."""
        options: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "num_predict": request.max_tokens,
            "seed": request.seed,
            "stop": request.stop or UNSET,
        }
        options = {name: value for name, value in options.items() if value is not UNSET}
        body = {"model": target.model, **fields, "stream": True} | ({"options": options} if options else {})
        self.add_knobs(body, request, target)
        if request.response_format and request.response_format.type != "text":
            body["format"] = _format(request.response_format)
        if request.reasoning:
            if request.reasoning.max_tokens is not UNSET:
                self.leave_out("reasoning.max_tokens", target)
            if request.reasoning.summary and request.reasoning.summary != "auto":
                self.leave_out("reasoning.summary", target)
            if request.reasoning.effort:
                is_off = request.reasoning.effort == "none"
                body["think"] = False if is_off else self.effort(request.reasoning.effort, target)
        return body

    def content(self, where: str, message: Message, target: Target) -> dict[str, Any]:
        """Returns a message's text as one string, and its images."""
        if isinstance(message.content, str):
            return {"content": message.content}
        parts: Iterable[Any] = message.content
        texts: list[str] = []
        images: list[str] = []
        for at, part in enumerate(parts):
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif isinstance(part, ImagePart):
                if self.is_blind(f"{where}.content[{at}]", target):
                    continue
                data = image_data(part)
                if data is None:
                    self.leave_out(f"{where}.content[{at}]", target, "an image that would have to be fetched")
                else:
                    images.append(data[1])
            elif isinstance(part, ProviderBlockPart):
                self.leave_out_part(f"{where}.content[{at}]", part, message, target)
            elif not isinstance(part, (ReasoningPart, ToolCallPart)):
                self.leave_out(f"{where}.content[{at}]", target, f"{part.__struct_config__.tag} parts")
        text = "".join(texts) if isinstance(message, AssistantMessage) else joined(texts)
        return {"content": text} | ({"images": images} if images else {})


def _lost_all(message: Message) -> bool:
    """Returns whether an empty message of the user holds nothing that was asked: no text, not even an empty one."""
    if type(message) is not UserMessage or isinstance(message.content, str):
        return False
    return not any(isinstance(part, TextPart) for part in message.content)


_ROLE_AND_CONTENT: Final = 2
"""The number of members of a message that is only text."""


def _format(wanted: ResponseFormat) -> Any:
    if wanted.type == "json":
        return "json"
    return required_schema(wanted)


class Chat(_Ollama):
    """`/api/chat`. The effort is sent as `think`. Some servers accept only true and false and refuse the effort;
    `provider_options.ollama.think` overrides it."""

    path = "/api/chat"

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        names: dict[str, str] = {}
        messages: list[dict[str, Any]] = []
        for where, message in in_call_order(turns(request)):
            breathe()
            written = self._message(where, message, names, target)
            if len(written) > _ROLE_AND_CONTENT or written["content"] or not _lost_all(message):
                messages.append(written)
            else:
                target.changes.drop_message(where)
        fields: dict[str, Any] = {"messages": messages}
        if isinstance(request.tool_choice, NamedTool) or request.tool_choice == "required":
            self.leave_out("tool_choice", target)
        # Calls can be forbidden only by sending no tools.
        if request.tools and request.tool_choice != "none":
            fields["tools"] = [self._tool(at, tool, target) for at, tool in enumerate(request.tools)]
        return self.completed(fields, request, target)

    def _message(self, where: str, message: Message, names: dict[str, str], target: Target) -> dict[str, Any]:
        """Returns one message. `names` holds the tool of each call so far, because a result must name its tool.

        Neither calls nor results have ids: the API assigns results by the tool's name and their order.
        """
        whole = {"role": message.__struct_config__.tag} | self.content(where, message, target)
        if isinstance(message, ToolMessage):
            self.hide_failure(where, message, target)
            name = names.get(message.call_id)
            return whole | ({"tool_name": name} if name else {})
        if not isinstance(message, AssistantMessage) or isinstance(message.content, str):
            return whole
        thoughts, calls = "", []
        for at, part in enumerate(message.content):
            if isinstance(part, ReasoningPart) and part.provider in (UNSET, self.provider):
                thoughts += part.text
            elif isinstance(part, ToolCallPart):
                names[part.call_id] = part.name
                calls.append(self._call(f"{where}.content[{at}]", part, target))
        return whole | ({"thinking": thoughts} if thoughts else {}) | ({"tool_calls": calls} if calls else {})

    def _call(self, where: str, call: ToolCallPart, target: Target) -> dict[str, Any]:
        return {"function": {"name": call.name, "arguments": argument_object(call, where, target.changes)}}

    def _tool(self, at: int, tool: Tool, target: Target) -> dict[str, Any]:
        if tool.strict is True:
            self.leave_out(f"tools[{at}].strict", target)
        return function_tool(tool, has_strict=False)


class Generate(_Ollama):
    """`/api/generate`: one prompt, no tools."""

    path = "/api/generate"
    needs_user = True
    lacks = frozenset({"metadata", "tools", "tool_choice"})

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        *others, (where, last) = turns(request)
        if not isinstance(last, UserMessage):
            raise self.unsupported(where)
        system: list[str] = []
        for other, message in others:
            if isinstance(message, SystemMessage):
                system.append(self.content(other, message, target)["content"])
            else:
                self.leave_out(other, target, "more than one message")
        fields = self.content(where, last, target)
        fields["prompt"] = fields.pop("content")
        if system:
            fields["system"] = joined(system)
        return self.completed(fields, request, target)


# ---- responses -------------------------------------------------------------------------------------------------------


class OllamaAdapter(ProviderAdapter):
    """Reads the responses of both APIs."""

    text_members = frozenset({"content", "thinking", "response"})
    ignored_members = frozenset({"created_at"})
    content_members = frozenset({"message", "response", "thinking"})

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self._calls = ToolCalls(self.room)
        self._reason = ""

    def receive(self, name: str, data: str) -> list[Event]:
        return self._read(parse_chunk(data), data)

    def receive_text(self, index: int | None, text: str) -> Event | None:
        return {"type": "text.delta", "text": text} if self.started and self.named else None

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        return self._read(answer, text or encode_json(answer).decode())

    def _read(self, parsed: Any, text: str) -> list[Event]:
        chunk = self.checked(parsed)
        self.chunk = text
        message = chunk.get("message")
        path = ("tool_calls",) if message is None else ("message", "tool_calls")
        if message is None:
            message = {**chunk, "content": chunk.get("response") or chunk.get("content")}
        model = label(chunk.get("model"))
        thoughts = message.get("thinking") or message.get("reasoning") or message.get("reasoning_content")
        events = reasoning(thoughts)
        piece = self._text(message.get("content") or message.get("text") or chunk.get("response"))
        if piece:
            events.append({"type": "text.delta", "text": piece} | _scores(chunk))
        drawn, reason = label(chunk.get("image")), label(chunk.get("done_reason"))
        events += self._tool_calls(message.get("tool_calls") or message.get("tool_call"), text, path)
        if drawn:
            events.append({"type": "image", "image": {"data": drawn, "media_type": "image/png"}})
        is_done = chunk.get("done") in (True, "true") or bool(reason)
        self.copyable = not is_done
        if is_done:
            self.ended = True
            self._reason = reason[: LIMITS.kept_word]
            self.usage = counted_usage(count(chunk.get("prompt_eval_count")), count(chunk.get("eval_count")))
        return self.start(None, model) + events if model or events else []

    def _text(self, content: Any) -> str:
        """Returns the text of a content: a text, or a list of parts."""
        parts = content if isinstance(content, list) else [content]
        return "".join(text_of(inner_text(part)) for part in parts)

    def _tool_calls(self, raw: Any, text: str, path: tuple[str, ...]) -> list[Event]:
        """Reads calls. Their arguments are taken verbatim from the chunk's text at `path`."""
        if not raw:
            return []
        listed = listed_calls(raw)
        given = [function for function in map(function_of, listed) if "arguments" in function]
        found = list(members(text, *path, "function", "arguments")) if given else []
        if len(found) == len(given):
            for function, arguments in zip(given, found, strict=True):
                if not isinstance(function["arguments"], (str, type(None))):
                    function["arguments"] = arguments
        calls = [each for each in listed if function_of(each)]
        # Calls of another shape are left out.
        is_read = len(calls) == (len(raw) if isinstance(raw, list) else len(listed)) > 0
        events: list[Event] = [] if is_read else [{**UNREADABLE}]
        for call in calls:
            function = function_of(call)
            name, arguments = label(function.get("name")), argument_piece(function.get("arguments"))
            opened, begun = self._calls.open(label(call.get("id")), name, self.seed())
            events += begun + self._calls.add(opened, arguments) + self._calls.close(opened)
        return events

    def finish(self) -> list[Event]:
        if not self.ended:
            raise self.truncated()
        self.check_word(self._reason)
        reason = self._calls.outcome(self.api.finish_words, self._reason)
        return [*self.start(None, None), self.end(reason, self._reason)]


def _scores(chunk: dict[str, Any]) -> Any:
    """Returns the probabilities of a chunk's tokens, which are next to its text."""
    scores = token_scores(chunk.get("logprobs"))
    return {"logprobs": scores} if scores else {}


APIS: Final[dict[str, API]] = {"": Chat(), "generate": Generate()}
