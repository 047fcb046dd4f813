"""The chat dialect: `POST …/chat/completions` as OpenAI defines it and most other providers implement it.

Source: OpenAI's API reference and SDK, and the references and SDKs of the other providers. Writes native requests in
the dialect. Owns the hooks for providers that depart from it; each departure is in its provider's file.
`chat/answers.py` reads the responses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from msgspec import UNSET, Struct
from mypy_extensions import mypyc_attr
from orjson import Fragment

from gai_fast.core.json.chunks import label, objects
from gai_fast.core.requests.reading import turns
from gai_fast.core.requests.shapes import RequestShape, chat_shape
from gai_fast.kernels import encode_json
from gai_fast.model.limits import SHARED
from gai_fast.model.request import (
    AssistantMessage,
    AudioPart,
    CacheMark,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    SystemMessage,
    TextPart,
    ToolCallPart,
    ToolMessage,
    UserMessage,
    VideoPart,
)
from gai_fast.providers.answers.tool_calls import function_of
from gai_fast.providers.chat.answers import ChatAdapter
from gai_fast.providers.chat.rules import ChatRules
from gai_fast.providers.chat.template import RequestTemplate, learned
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.parts import (
    KNOBS,
    earlier_function_call,
    file_name,
    file_url,
    function_tool,
    image_url,
    joined,
)
from gai_fast.providers.requests.routes import ANYWHERE
from gai_fast.providers.requests.rules import RequestRules
from gai_fast.providers.requests.target import Target, UpstreamRequest
from gai_fast.providers.requests.tool_names import OPENAI_NAMES, ToolNames
from gai_fast.runtime.breathing import breathe

_UNSET: Final = UNSET  # a constant: each lookup of another module's name costs 0.03 us


@mypyc_attr(allow_interpreted_subclasses=True)
class ChatAPI(API):
    """Builds requests of the dialect. A provider overrides the methods and fields in which it differs."""

    dialect = "openai"
    routes = ANYWHERE
    has_quirks = True
    path = "/chat/completions"
    models_path = "/models"
    tool_names: ClassVar[ToolNames | None] = OPENAI_NAMES
    stream_options: ClassVar[Mapping[str, bool]] = {"include_usage": True}
    """Empty if the provider always sends usage, or refuses the field."""
    user_parts: ClassVar[frozenset[type[Struct]]] = frozenset({TextPart, ImagePart, AudioPart, FilePart})
    """The kinds of parts that a user message may hold."""
    tool_parts: ClassVar[frozenset[type[Struct]]] = frozenset({TextPart})
    """The kinds of parts that a tool's result may hold."""
    text_parts: ClassVar[bool] = True
    """Whether a system message and a tool's result may consist of several texts."""
    rules: ClassVar[RequestRules] = ChatRules("", "")
    knobs: ClassVar[Mapping[str, str]] = {name: name for name in KNOBS}
    summaries: ClassVar[frozenset[str]] = frozenset({"auto"})
    """The values of `reasoning.summary` that need no member: how the provider shows thoughts by itself."""

    def __init__(self) -> None:
        self._templates: dict[str, RequestTemplate] = {}  # by model

    def build_request(self, request: Request, target: Target) -> UpstreamRequest:
        if target.settings is not None or target.refused:
            return super().build_request(request, target)
        template = self._templates.get(target.model)
        if template is None:
            template = learned(self, target)
            if len(self._templates) >= SHARED.known_values:
                self._templates.clear()
            self._templates[target.model] = template  # when complete: engines of several threads share a provider
        body = template.render(self, request, target)
        if body is None:
            return super().build_request(request, target)
        if target.cache_key is not None and self.caches_by_key:
            body = b'%b,"prompt_cache_key":%b}' % (body[:-1], encode_json(target.cache_key))
        api_key, headers = template.known
        if api_key != target.api_key:
            headers = tuple(self.headers(target))
            template.known = target.api_key, headers
        return UpstreamRequest(template.path, body, headers)

    def built(self, request: Request, target: Target) -> UpstreamRequest:
        """Builds a request from objects, as one that fits no template. Raises as `build_request`."""
        return super().build_request(request, target)

    def adapter(self, model: str | None = None) -> ChatAdapter:
        return ChatAdapter(self, model)

    def shape_of(self, body: Mapping[str, Any]) -> RequestShape:
        return chat_shape(body.get("messages"))

    def tools_in(self, body: Mapping[str, Any]) -> Sequence[str]:
        tools = body.get("tools")
        return [label(function_of(tool).get("name")) for tool in objects(tools)] if tools else ()

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body: dict[str, Any] = {"model": target.model, "messages": self.messages(request, target)}
        if request.tools:
            body["tools"] = [function_tool(tool) for tool in request.tools]
        if request.tool_choice:
            body["tool_choice"] = self.tool_choice(request.tool_choice)
            if self.has_custom_tools and isinstance(request.tool_choice, NamedTool):
                name = request.tool_choice.name
                if any(tool.type == "custom" and tool.name == name for tool in request.tools):
                    body["tool_choice"] = {"type": "custom", "custom": {"name": name}}
        if request.response_format:
            body |= self.response_format(request.response_format, target)
        if request.reasoning:
            body |= self.reasoning(request.reasoning, target)
        if request.metadata:
            body["metadata"] = request.metadata
        self.add_sampling(body, request, target)
        return body

    def add_sampling(self, fields: dict[str, Any], request: Request, target: Target) -> None:
        """Adds the fields for sampling and streaming, which chat and legacy completions have in common."""
        fields["stream"] = True
        if self.stream_options:
            fields["stream_options"] = self.stream_options
        if request.temperature is not _UNSET:
            fields["temperature"] = request.temperature
        if request.top_p is not _UNSET:
            fields["top_p"] = request.top_p
        if request.max_tokens is not _UNSET:
            fields["max_tokens"] = request.max_tokens
        if request.seed is not _UNSET:
            fields["seed"] = request.seed
        if request.stop:
            fields["stop"] = request.stop
        self.add_knobs(fields, request, target)
        if fields.get("top_logprobs"):
            fields["logprobs"] = True  # the dialect requires it

    def messages(self, request: Request, target: Target) -> list[dict[str, Any]]:
        """Returns the conversation in the dialect."""
        sent: list[dict[str, Any]] = []
        paths: list[str] = []
        shown: list[dict[str, Any]] = []
        for path, message in turns(request):
            breathe()
            is_result = type(message) is ToolMessage
            if shown and not is_result:
                # Behind the last result, since the dialect wants all results directly behind their calls.
                sent.append({"role": "user", "content": shown})
                paths.append(paths[-1])
                shown = []
            written = self.message(message, path, target)
            if written is None:
                target.changes.drop_message(path)
            else:
                sent.append(written)
                paths.append(path)
                if is_result:
                    shown += self._shown(message, path, target)
        if shown:
            sent.append({"role": "user", "content": shown})
            paths.append(paths[-1])
        target.changes.follow(paths)
        return sent

    def _shown(self, message: Message, path: str, target: Target) -> list[dict[str, Any]]:
        """Returns the parts of a tool's result that the dialect has only in messages of the user, and reports them."""
        shown: list[dict[str, Any]] = []
        parts: Iterable[Any] = () if isinstance(message.content, str) else message.content
        for at, part in enumerate(parts):
            if self._is_shown(part):
                where = f"{path}.content[{at}]"
                written = self._part(part, where, message, target, self.user_parts)
                if written is not None:
                    target.changes.adjust(where, "in a message of the user")
                    shown.append(written)
        return shown

    def _is_shown(self, part: Any) -> bool:
        """Returns whether a part of a tool's result has its place in a message of the user."""
        return type(part) in self.user_parts and type(part) not in self.tool_parts

    def message(self, message: Message, path: str, target: Target) -> dict[str, Any] | None:
        """Returns one message in the dialect, or None if it is left out.

        Args:
            message: The message.
            path: Its path in the native request.
            target: Model and credential.
        """
        if isinstance(message, UserMessage):  # most are, and each check costs 0.1 µs
            text = message.content
            if isinstance(text, str):
                return {"role": "user", "content": [_text_part(text)] if target.marks_texts else text}
            parts = self._parts(message, path, target, self.user_parts)
            if len(parts) == 1 and not target.marks_texts and parts[0]["type"] == "text":
                return {"role": "user", "content": parts[0]["text"]}
            return {"role": "user", "content": parts} if parts else None
        if isinstance(message, SystemMessage):
            return {"role": "system", "content": self.content(message, path, target, _TEXT)}
        if isinstance(message, ToolMessage):
            self.hide_failure(path, message, target)
            content = self.content(message, path, target, self.tool_parts)
            return {"role": "tool", "tool_call_id": message.call_id, "content": content}
        return self.assistant(message, path, target)

    def content(
        self, message: Message, path: str, target: Target, known: frozenset[type[Struct]]
    ) -> str | list[dict[str, Any]]:
        """Returns content as one text, or as parts if it has several texts or other parts.

        What was said before has the same bytes in each turn, however the client wraps it and wherever a mark stands:
        in a request with marks each text is a part, in all others a single text is none.

        Args:
            message: The message.
            path: Its path in the native request.
            target: Model and credential.
            known: The kinds of parts that the message may hold.
        """
        if isinstance(message.content, str):
            return [_text_part(message.content)] if target.marks_texts else message.content
        parts = self._parts(message, path, target, known)
        if target.marks_texts:
            return parts or ""
        if any(part["type"] != "text" or len(part) > _PLAIN_TEXT for part in parts):
            return parts
        texts = [part["text"] for part in parts]
        if isinstance(message, AssistantMessage):
            return "".join(texts)
        return parts if len(parts) > 1 and self.text_parts else joined(texts)

    def _parts(
        self, message: Message, path: str, target: Target, known: frozenset[type[Struct]]
    ) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        parts: Iterable[Any] = message.content
        is_result = type(message) is ToolMessage
        for at, part in enumerate(parts):
            if isinstance(part, (ReasoningPart, ToolCallPart)) or (is_result and self._is_shown(part)):
                continue
            written = self._part(part, f"{path}.content[{at}]", message, target, known)
            if written is not None:
                sent.append(written)
        return sent

    def _part(
        self, part: Any, path: str, message: Message, target: Target, known: frozenset[type[Struct]]
    ) -> dict[str, Any] | None:
        """Returns one part of a message in the dialect, or None if it is left out."""
        if isinstance(part, ImagePart) and ImagePart in known and self.is_blind(path, target):
            return None
        written = self.part(part) if type(part) in known else None
        if not written:
            self.leave_out_part(path, part, message, target, only_its_type=written is not None)
            return None
        if getattr(part, "cache", False):
            written |= self.cache_mark(part.cache)
        return written

    def part(self, part: Any) -> dict[str, Any]:
        """Returns one part in the dialect, empty if its media type is not supported."""
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.text}
        if isinstance(part, ImagePart):
            return {"type": "image_url", "image_url": {"url": image_url(part)}}
        if isinstance(part, AudioPart):
            form = self.audio_format(part.media_type)
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}} if form else {}
        if isinstance(part, VideoPart):
            return {"type": "video_url", "video_url": {"url": part.url or f"data:{part.media_type};base64,{part.data}"}}
        if not part.data:
            return {}
        return {"type": "file", "file": {"filename": file_name(part), "file_data": file_url(part)}}

    def cache_mark(self, mark: bool | CacheMark) -> dict[str, Any]:
        """Returns the member that marks a part as the end of a cached prefix; empty if the provider has no marks."""
        return {}

    def audio_format(self, media_type: str) -> str | None:
        """Returns the dialect's word for a media type, or None if it has none."""
        return _AUDIO_FORMATS.get(media_type)

    def assistant(self, message: AssistantMessage, path: str, target: Target) -> dict[str, Any] | None:
        """Returns an assistant message with its calls, and with its reasoning if the provider accepts it."""
        if isinstance(message.content, str):
            said = message.content
            return {"role": "assistant", "content": [_text_part(said)] if target.marks_texts and said else said}
        text = self.content(message, path, target, _TEXT)
        reasoning = [part for part in message.content if isinstance(part, ReasoningPart)]
        calls = [part for part in message.content if isinstance(part, ToolCallPart)]
        whole: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
        # Another provider's reasoning is left out: this provider would refuse its signatures.
        own = [part for part in reasoning if not part.provider or part.provider == self.provider]
        if own:
            whole |= self.earlier_reasoning(own, target, has_calls=bool(calls))
        if calls:
            whole["tool_calls"] = [
                self.earlier_call(part, f"{path}.content[{at}]", target)
                for at, part in enumerate(message.content)
                if isinstance(part, ToolCallPart)
            ]
        return whole

    def earlier_reasoning(self, parts: list[ReasoningPart], target: Target, *, has_calls: bool) -> dict[str, Any]:
        """Returns the members for this provider's own earlier reasoning, none if the provider does not accept it.

        Args:
            parts: The reasoning, in order.
            target: Model and credential.
            has_calls: Whether the message calls tools.
        """
        return {}

    def earlier_call(self, call: ToolCallPart, path: str, target: Target) -> dict[str, Any]:
        """Returns an earlier call in the dialect. Its arguments are JSON text in a string.

        Args:
            call: The call.
            path: Its path in the native request.
            target: Its `changes` note what is not sent as it is.
        """
        return earlier_function_call(call)

    def tool_choice(self, wanted: str | NamedTool) -> Any:
        """Returns the dialect's `tool_choice`."""
        return {"type": "function", "function": {"name": wanted.name}} if isinstance(wanted, NamedTool) else wanted

    def response_format(self, wanted: ResponseFormat, target: Target) -> dict[str, Any]:
        """Returns the fields for the format of the response."""
        if wanted.type == "text":
            return {"response_format": {"type": "text"}}
        if wanted.type == "json":
            return {"response_format": {"type": "json_object"}}
        schema: dict[str, Any] = {"name": wanted.name or "answer"}
        if wanted.strict is not UNSET:
            schema["strict"] = wanted.strict
        if wanted.schema:
            schema["schema"] = Fragment(bytes(wanted.schema))
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def reasoning(self, wanted: Reasoning, target: Target) -> dict[str, Any]:
        """Returns the fields for the amount of reasoning, and for its visibility."""
        if wanted.max_tokens is not UNSET:
            self.leave_out("reasoning.max_tokens", target)
        if wanted.summary and wanted.summary not in self.summaries:
            self.leave_out("reasoning.summary", target)
        word = self.effort(wanted.effort, target) if wanted.effort else None
        return {"reasoning_effort": word} if word else {}

    def turn_thinking_off(self, body: dict[str, Any], target: Target) -> None:
        """Sends the effort `none` with functions, for a model whose functions the API refuses otherwise.

        "Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use function
        tools, use /v1/responses or set reasoning_effort to 'none'": also for requests without an effort.

        Args:
            body: The request's body.
            target: The model and the policy; its `changes` note the effort.

        Raises:
            Unsupported: As `leave_out`: the request has an effort.
        """
        if "tools" not in body or self.facts(target).thinks_with_tools is not False:
            return
        asked = body.get("reasoning_effort")
        if asked is None:
            target.changes.adjust("reasoning.effort", "none")
        elif asked != "none":
            self.leave_out("reasoning.effort", target, f"this model thinks beside tools at `{self.provider}:responses`")
        body["reasoning_effort"] = "none"


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


_PLAIN_TEXT: Final = 2
"""The number of members of a text."""
_TEXT: Final[frozenset[type[Struct]]] = frozenset({TextPart})
_AUDIO_FORMATS: Final = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
}
