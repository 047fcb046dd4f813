"""The Responses dialect: `POST …/responses` as OpenAI defines it and other providers implement it.

Source: openai-python 3.51 and OpenAI's API reference. Writes native requests in the dialect. Owns the hooks for
providers that depart from it; each departure is in its provider's file. `responses/answers.py` reads the responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar, Final

from msgspec import UNSET
from mypy_extensions import mypyc_attr
from orjson import Fragment

from gai_fast.core.requests.reading import turns
from gai_fast.core.requests.shapes import RequestShape, responses_shape
from gai_fast.kernels import parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.request import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    ProviderBlockPart,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCallPart,
    ToolMessage,
)
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.failures import error_object, failure_of
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.own_tools import RESPONSES_CODE, RESPONSES_SEARCH, OwnTool
from gai_fast.providers.requests.parts import (
    argument_text,
    file_name,
    file_url,
    image_url,
    openai_cache,
    openai_cache_member,
    required_schema,
)
from gai_fast.providers.requests.routes import ANYWHERE
from gai_fast.providers.requests.target import Target
from gai_fast.providers.requests.tool_names import OPENAI_NAMES, ToolNames
from gai_fast.providers.responses.answers import ResponsesAdapter
from gai_fast.runtime.breathing import breathe


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponsesAPI(API):
    """Builds requests of the dialect. A provider overrides the methods and fields in which it differs."""

    dialect = "responses"
    routes = ANYWHERE
    lacks = frozenset({"stop", "seed"})
    path = "/responses"
    models_path = "/models"
    tool_names: ClassVar[ToolNames | None] = OPENAI_NAMES
    stateless: ClassVar[bool] = True
    """Whether the API has `store` and `include`. If so, requests ask it to store nothing and to send encrypted
    reasoning."""
    knobs: ClassVar[Mapping[str, str]] = {
        "logprobs": "logprobs",  # a value of `include`
        "top_logprobs": "top_logprobs",
        "parallel_tool_calls": "parallel_tool_calls",
        "verbosity": "text.verbosity",
        "service_tier": "service_tier",
        "user": "user",
        "safety_identifier": "safety_identifier",
    }
    own_tools: ClassVar[Mapping[str, OwnTool]] = {"web_search": RESPONSES_SEARCH, "code_execution": RESPONSES_CODE}
    chooses_own_tools: ClassVar[bool] = True
    encrypts_reasoning: ClassVar[bool] = True
    has_custom_tools: ClassVar[bool] = True
    strict_is_closed: ClassVar[bool] = True
    summary: ClassVar[str] = "auto"
    """The summary that is requested with reasoning; empty if the provider refuses the field."""

    def _fitted(self, body: Mapping[str, Any], target: Target, shape: RequestShape | None) -> dict[str, Any]:
        sent = super()._fitted(body, target, shape)
        return self._with_reasoning(sent, target) if target.is_kept and self.stateless else sent

    def _with_reasoning(self, body: dict[str, Any], target: Target) -> dict[str, Any]:
        """Returns a body that asks for encrypted reasoning if the model thinks: the next turn must send it back."""
        facts = self.facts(target)
        thinks = body.get("reasoning") or (facts.thinking is not None and not facts.never_thinks)
        given = body.get("include") or []
        if not thinks or _INCLUDE in target.refused or not isinstance(given, list) or _ENCRYPTED in given:
            return body
        return {**body, _INCLUDE: [*given, _ENCRYPTED]}

    def refuses_signatures(self, error: Error) -> bool:
        # "Encrypted content is not supported with this model" is about what is asked for.
        return (error.details or {}).get("param") != _INCLUDE and super().refuses_signatures(error)

    def _dispensable(self, request: Request | Mapping[str, Any], sent: Mapping[str, Any], target: Target) -> list[str]:
        names = super()._dispensable(request, sent, target)
        has_more = not isinstance(request, Request) and sent.get(_INCLUDE) != request.get(_INCLUDE)
        return [*names, _INCLUDE] if has_more and _INCLUDE not in names else names

    def adapter(self, model: str | None = None) -> ResponsesAdapter:
        return ResponsesAdapter(self, model)

    def shape_of(self, body: Mapping[str, Any]) -> RequestShape:
        return responses_shape(body)

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        error = error_object(body)
        if error is not None and error.get("type") == "error":
            # The `type` of a flat error is always `error`.
            error = {key: error[key] for key in error if key != "type"}
        return None if error is None else failure_of(error)

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        choice, reasoning = request.tool_choice, request.reasoning
        body: dict[str, Any] = {"model": target.model, "input": self.input(request, target), "stream": True}
        if self.stream_options:
            body["stream_options"] = self.stream_options
        if self.stateless:
            body["store"] = False
            if reasoning or any(item.get("type") == "reasoning" for item in body["input"]):
                body[_INCLUDE] = [_ENCRYPTED]
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if type(choice) is NamedTool:
            body["tool_choice"] = self._chosen(choice.name, request.tools, target)
        elif choice:
            body["tool_choice"] = choice
        if request.response_format:
            body["text"] = {"format": _format(request.response_format)}
        if reasoning:
            body["reasoning"] = self.reasoning(reasoning, target)
        if request.metadata:
            body["metadata"] = request.metadata
        limits = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_output_tokens": request.max_tokens,
        }
        body |= {name: value for name, value in limits.items() if value is not UNSET}
        if self.marks_cache:
            body |= openai_cache(request.cache)
        elif self.caches_by_key and request.cache and request.cache.key:
            body["prompt_cache_key"] = request.cache.key
        self.add_knobs(body, request, target)
        if body.pop("logprobs", False) or body.get("top_logprobs"):
            body.setdefault("include", []).append("message.output_text.logprobs")
        return body

    def reasoning(self, wanted: Reasoning, target: Target) -> dict[str, Any]:
        """Returns the `reasoning` member: effort and summary."""
        if wanted.max_tokens is not UNSET:
            self.leave_out("reasoning.max_tokens", target)
        if wanted.summary not in (UNSET, "none", "auto") and not self.summary:
            self.leave_out("reasoning.summary", target)
        summary = wanted.summary or self.summary
        reasoning = {
            "effort": self.effort(wanted.effort, target) if wanted.effort else "",
            "summary": summary if self.summary and summary != "none" else "",
        }
        return {key: value for key, value in reasoning.items() if value}

    def input(self, request: Request, target: Target) -> list[dict[str, Any]]:
        """Returns the conversation as items."""
        items: list[dict[str, Any]] = []
        calls: dict[str, str] = {}
        kinds: dict[str, str] = {}
        for tool in request.tools:
            if isinstance(tool.name, str):
                kinds[tool.name] = tool.type
        given = turns(request)
        for path, message in given:
            breathe()
            # Of another class, `isinstance` asks the metaclass: 800 instructions.
            if type(message) is AssistantMessage:
                answer = self._answer(message, path, target, kinds)
                if not answer:
                    target.changes.drop_message(path)
                calls.update({item["call_id"]: item["type"] for item in answer if item.get("type") in _CALLS})
                items += answer
            elif type(message) is ToolMessage:
                self.hide_failure(path, message, target)
                # A result's kind must match its call's kind.
                kind = calls.get(message.call_id, "function_call")
                output = self._content(message, path, target, ("input_text", "input_image", "input_file"))
                items.append({"type": f"{kind}_output", "call_id": message.call_id, "output": output})
            else:
                role = message.__struct_config__.tag
                blocks = self._blocks(message, path, target)
                items += blocks
                known = ("input_text", "input_image", "input_file") if role == "user" else ("input_text",)
                content = self._content(message, path, target, known)
                # Without an empty last message of the user the model would continue the answer before it.
                is_asked = bool(items) or isinstance(message.content, str)
                if content or (role == "user" and message is given[-1][1] and is_asked):
                    items.append({"role": role, "content": content})
                elif not blocks:
                    target.changes.drop_message(path)
        return items

    def _content(
        self, message: Message, path: str, target: Target, known: tuple[str, ...]
    ) -> str | list[dict[str, Any]]:
        """Returns content as one text, or as parts if it has several texts or other parts, or the request has marks."""
        if isinstance(message.content, str):
            return [{"type": "input_text", "text": message.content}] if target.marks_texts else message.content
        parts: list[dict[str, Any]] = []
        for at, part in enumerate(message.content):
            if isinstance(part, ProviderBlockPart):
                continue  # an item of its own
            sent = _sent(part)
            sees = "input_image" in known
            if sees and isinstance(part, ImagePart) and self.is_blind(f"{path}.content[{at}]", target):
                continue
            if isinstance(part, FilePart) and part.file_id and part.provider != self.provider:
                self.leave_out_part(f"{path}.content[{at}]", part, message, target, only_its_type=True)
            elif sent.get("type") in known:
                if self.marks_cache:
                    sent |= openai_cache_member(getattr(part, "cache", False))
                parts.append(sent)
            else:
                self.leave_out_part(f"{path}.content[{at}]", part, message, target)
        if (
            len(parts) == 1
            and not target.marks_texts
            and parts[0]["type"] == "input_text"
            and len(parts[0]) == _PLAIN_TEXT
        ):
            text: str = parts[0]["text"]
            return text
        return parts or ""

    def _chosen(self, name: str, tools: list[Tool], target: Target) -> dict[str, Any]:
        """Returns the choice of a tool by its name.

        A search has no choice by its type in OpenAI's types, so a tool that the provider runs is the only allowed one.
        """
        for tool in tools:
            if tool.name == name:
                return {"type": tool.type, "name": name}
        own = self.own_tool(name, target)
        if own is None:
            return {"type": "function", "name": name}
        return {"type": "allowed_tools", "mode": "required", "tools": [{"type": own.form["type"]}]}

    def _blocks(self, message: Message, path: str, target: Target) -> list[dict[str, Any]]:
        """Returns the provider's own items in a message."""
        items: list[dict[str, Any]] = []
        for at, part in enumerate(() if isinstance(message.content, str) else message.content):
            if isinstance(part, ProviderBlockPart):
                items += self.own_blocks(f"{path}.content[{at}]", part, target)
        return items

    def _answer(
        self, message: AssistantMessage, path: str, target: Target, kinds: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Returns an assistant message as items: its text, reasoning and calls, in order.

        Args:
            message: The message.
            path: Its path in the native request.
            target: Model and policy.
            kinds: The type of each of the request's tools, by its name.
        """
        if isinstance(message.content, str):
            return [{"role": "assistant", "content": message.content}]
        items: list[dict[str, Any]] = []
        said: list[dict[str, Any]] = []  # items with their texts; joined at the end: appending to a string copies it
        for at, part in enumerate(message.content):
            if isinstance(part, TextPart):
                if part.text:
                    if not (said and items[-1] is said[-1]):
                        said.append({"role": "assistant", "content": []})
                        items.append(said[-1])
                    said[-1]["content"].append(part.text)
            elif isinstance(part, ToolCallPart):
                items.append(_call(part, kinds.get(part.name)))
            elif isinstance(part, ReasoningPart):
                # The API does not accept another provider's reasoning, or reasoning without a signature. "Reasoning
                # input items can only be provided to a reasoning or computer use model."
                is_own = part.signature and part.provider in (UNSET, self.provider)
                if is_own and not self.facts(target).never_thinks:
                    items.append(_reasoning(part))
            elif isinstance(part, ProviderBlockPart):
                items += self.own_blocks(f"{path}.content[{at}]", part, target)
            else:
                self.leave_out_part(f"{path}.content[{at}]", part, message, target)
        for item in said:
            item["content"] = "".join(item["content"])
        return items


_INCLUDE: Final = "include"
_ENCRYPTED: Final = "reasoning.encrypted_content"
_CALLS: Final = ("function_call", "custom_tool_call")
"""The items that call a client's tool."""
_PLAIN_TEXT: Final = 2
"""The number of members of a text."""


def _sent(part: Any) -> dict[str, Any]:
    """Returns a part in the dialect, empty if the dialect has no such part."""
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, ImagePart):
        return {"type": "input_image", "image_url": image_url(part), "detail": "auto"}
    if isinstance(part, FilePart) and part.file_id:
        return {"type": "input_file", "file_id": part.file_id}
    if isinstance(part, FilePart) and part.url:
        return {"type": "input_file", "file_url": part.url}
    if isinstance(part, FilePart):
        return {"type": "input_file", "filename": file_name(part), "file_data": file_url(part)}
    return {}


def _reasoning(part: ReasoningPart) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    signature = str(part.signature)
    # The type needs an id, under which the API stores nothing: derived from the signature, it stays the same.
    identifier = "rs_" + sha256(signature.encode()).hexdigest()[:32]
    return {"type": "reasoning", "id": identifier, "summary": summary, "encrypted_content": signature}


def _call(part: ToolCallPart, kind: str | None) -> dict[str, Any]:
    """Returns an earlier call as an item.

    Args:
        part: The call.
        kind: The type of its tool. None if the request does not have the tool: arguments that are a text, and no JSON
            object, then make it a call of a custom tool. A model may also write such arguments for a function.
    """
    arguments, called = argument_text(part), {"call_id": part.call_id, "name": part.name}
    is_text = arguments.startswith('"')
    given: Any = parse_exact(arguments) if is_text else arguments
    if kind == "custom" or (kind is None and is_text):
        return {"type": "custom_tool_call", **called, "input": given}
    return {"type": "function_call", **called, "arguments": given}


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.type == "custom":
        custom: dict[str, Any] = {"type": "custom", "name": tool.name}
        if tool.description:
            custom["description"] = tool.description
        return custom | ({"format": tool.format} if tool.format else {})
    declared: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description:
        declared["description"] = tool.description
    # This API's default is strict, which refuses most schemas.
    strict = tool.strict if tool.strict is not UNSET else False
    return declared | {"parameters": Fragment(bytes(tool.parameters)), "strict": strict}


def _format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type == "text":
        return {"type": "text"}
    if wanted.type == "json":
        return {"type": "json_object"}
    schema = required_schema(wanted)
    schema_format: dict[str, Any] = {"type": "json_schema", "name": wanted.name or "answer"}
    if wanted.strict is not UNSET:
        schema_format["strict"] = wanted.strict
    return schema_format | {"schema": schema}
