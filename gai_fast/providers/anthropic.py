"""Anthropic Messages: `https://api.anthropic.com/v1/messages`.

Source: anthropic-python 2.10 and Anthropic's API reference (version 2026-10-21). `_anthropic_answers.py` reads the
responses.

* `max_tokens` is required. Adjacent messages of one role are one turn. Signed reasoning is sent back unchanged.
* `provider_options.anthropic.betas` becomes the header `anthropic-beta`, as in the SDK.
* Version 2026-10-21 refuses sampling parameters: a request with a sampling parameter is sent with version 2023-06-01.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final

from msgspec import UNSET, Meta
from orjson import Fragment

from gai_fast.core.reading import turns
from gai_fast.core.shapes import Shape
from gai_fast.kernels import encode_json
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.limits import SHARED
from gai_fast.model.request import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Reasoning,
    ReasoningPart,
    Request,
    SystemMessage,
    TextPart,
    ToolCallPart,
    ToolMessage,
)
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers._anthropic_answers import AnthropicAdapter
from gai_fast.providers._base import API, NO_HEADERS, Target, UpstreamRequest
from gai_fast.providers._failures import error_object, failure_of
from gai_fast.providers._requests import add_turn, argument_object, file_text, image_data, required_schema
from gai_fast.providers.limits import LIMITS

_VERSION: Final = "2026-10-21"
_SAMPLING_VERSION: Final = "2023-06-01"
_SAMPLING: Final = ("temperature", "top_p", "top_k")

_BETA: Final = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{SHARED.identifier}}}")
BETAS: Final = Annotated[
    list[Annotated[str, Meta(pattern=rf"^{_BETA.pattern}\Z")]],
    Meta(max_length=LIMITS.betas),
]
"""Names of beta features. They must be tokens (RFC 9110), because they are joined in a header."""
_TOOL_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}


_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""The form of an API version."""


class Anthropic(API):
    """`base_url` is the host alone, as in Anthropic's SDK, which appends `/v1`."""

    provider = "anthropic"
    dialect = "anthropic"
    base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    path = "/v1/messages"
    models_path = "/v1/models"
    count_path = "/v1/messages/count_tokens"
    lacks = frozenset({"seed"})
    options: ClassVar = {"betas": BETAS}

    def adapter(self, model: str | None = None) -> AnthropicAdapter:
        return AnthropicAdapter(self, model)

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        error = error_object(body)
        return None if error is None else failure_of(error, error.get("details"))

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": target.model,
            "max_tokens": request.max_tokens or LIMITS.default_max_tokens,
            "messages": self._messages(request, target),
            "stream": True,
        }
        system = [
            block
            for path, message in turns(request)
            if isinstance(message, SystemMessage)
            for block in self._blocks(message, path, target)
        ]
        if system:
            body["system"] = system
        if request.tools:
            body["tools"] = [
                {"name": tool.name}
                | ({"description": tool.description} if tool.description else {})
                | {"input_schema": Fragment(bytes(tool.parameters))}
                | ({} if tool.strict is UNSET else {"strict": tool.strict})
                for tool in request.tools
            ]
        if isinstance(request.tool_choice, NamedTool):
            body["tool_choice"] = {"type": "tool", "name": request.tool_choice.name}
        elif request.tool_choice:
            body["tool_choice"] = {"type": _TOOL_CHOICES[request.tool_choice]}
        output = self._output(request, target)
        if output:
            body["output_config"] = output
        if request.reasoning:
            body |= _thinking(request.reasoning, body["max_tokens"] if request.max_tokens is UNSET else 0)
        for key, value in (("temperature", request.temperature), ("top_p", request.top_p)):
            if value is not UNSET:
                body[key] = value
        if request.stop:
            body["stop_sequences"] = request.stop
        for key, value in request.metadata.items():
            if key == "user_id":
                if not isinstance(value, str):
                    raise InvalidRequest(
                        message="The request is not valid: Expected `str` - at `$.metadata.user_id`",
                        reason="validation",
                    )
                body["metadata"] = {key: value}
            else:
                self.leave_out(f"metadata.{key}", target)
        return body

    def build_passthrough(
        self,
        body: Mapping[str, Any],
        target: Target,
        headers: Mapping[str, str] = NO_HEADERS,
        shape: Shape | None = None,
    ) -> UpstreamRequest:
        version, betas = headers.get("anthropic-version"), headers.get("anthropic-beta")
        if version is not None and not _DATE.fullmatch(version):
            raise _bad_header("anthropic-version", "a date")
        request = super().build_passthrough(_with_betas(body, betas), target, headers, shape)
        if version is not None:
            request.headers = [
                (name, version if name == "anthropic-version" else value) for name, value in request.headers
            ]
        return request

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        betas = body.pop("betas", None)
        headers = self.headers(target)
        headers.append(("anthropic-version", _SAMPLING_VERSION if any(key in body for key in _SAMPLING) else _VERSION))
        if betas:
            headers.append(("anthropic-beta", ",".join(betas)))
        return UpstreamRequest(self.path, encode_json(body), headers)

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "x-api-key", api_key

    def _output(self, request: Request, target: Target) -> dict[str, Any]:
        """Returns the `output_config`: the effort, and the schema of the response."""
        output: dict[str, Any] = {}
        if request.reasoning and request.reasoning.effort:
            output["effort"] = "low" if request.reasoning.effort == "minimal" else request.reasoning.effort
        wanted = request.response_format
        if wanted and wanted.type == "json":
            self.leave_out("response_format", target, "json without a schema")
        if wanted and wanted.type == "json_schema":
            output["format"] = {"type": "json_schema", "schema": required_schema(wanted)}
        return output

    def _messages(self, request: Request, target: Target) -> list[dict[str, Any]]:
        """Returns the turns. Adjacent messages of one role are one turn: parallel calls' results must be together."""
        sent: list[dict[str, Any]] = []
        for path, message in turns(request):
            if isinstance(message, SystemMessage):
                continue
            role = "assistant" if isinstance(message, AssistantMessage) else "user"
            blocks = self._blocks(message, path, target)
            if isinstance(message, ToolMessage):
                result = {"type": "tool_result", "tool_use_id": message.call_id, "content": blocks}
                blocks = [result | {"is_error": True} if message.is_error else result]
            add_turn(sent, role, "content", blocks)
        return sent

    def _blocks(self, message: Message, path: str, target: Target) -> list[dict[str, Any]]:
        if isinstance(message.content, str):
            return [{"type": "text", "text": message.content}] if message.content else []
        blocks: list[dict[str, Any]] = []
        parts: Iterable[Any] = message.content
        for at, part in enumerate(parts):
            here = f"{path}.content[{at}]"
            if isinstance(part, TextPart):
                blocks += [{"type": "text", "text": part.text}] if part.text else []
            elif isinstance(part, ReasoningPart):
                blocks += self._earlier_reasoning(part)
            elif isinstance(part, ToolCallPart):
                blocks.append(self._earlier_call(part, here, target))
            else:
                block = {} if isinstance(message, AssistantMessage) else _medium(part)
                if block:
                    blocks.append(block)
                else:
                    only_its_type = isinstance(part, FilePart) and not isinstance(message, AssistantMessage)
                    self.leave_out_part(here, part, message, target, only_its_type=only_its_type)
        return blocks

    def _earlier_reasoning(self, part: ReasoningPart) -> list[dict[str, Any]]:
        """Returns Claude's own reasoning, unchanged. The API refuses reasoning without its own signature."""
        if not part.signature or (part.provider and part.provider != self.provider):
            return []
        if part.redacted:
            return [{"type": "redacted_thinking", "data": part.signature}]
        return [{"type": "thinking", "thinking": part.text, "signature": part.signature}]

    def _earlier_call(self, part: ToolCallPart, path: str, target: Target) -> dict[str, Any]:
        arguments = argument_object(part)
        if arguments is None:
            self.leave_out(f"{path}.input", target, "an input that is no object")
        return {"type": "tool_use", "id": part.call_id, "name": part.name, "input": arguments or {}}


def _medium(part: ImagePart | AudioPart | FilePart) -> dict[str, Any]:
    """Returns the block for an image or a file, empty if the API does not support the part."""
    if isinstance(part, ImagePart):
        data = image_data(part)
        if data is None:
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        return {"type": "image", "source": {"type": "base64", "media_type": data[0], "data": data[1]}}
    if not isinstance(part, FilePart):
        return {}
    title = {"title": part.filename} if part.filename else {}
    if part.media_type == "application/pdf":
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
        return {"type": "document", "source": source, **title}
    if part.media_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": file_text(part)}
        return {"type": "document", "source": source, **title}
    return {}


def _thinking(wanted: Reasoning, default_bound: int) -> dict[str, Any]:
    """Returns the `thinking` member, and `max_tokens` if its default applies.

    `max_tokens` includes the thinking budget, so the budget is added to the default.
    """
    if wanted.max_tokens is UNSET:
        return {"thinking": {"type": "adaptive"}} if wanted.effort else {}
    if not wanted.max_tokens:
        return {"thinking": {"type": "disabled"}}
    thinking = {"thinking": {"type": "enabled", "budget_tokens": wanted.max_tokens}}
    return thinking | ({"max_tokens": default_bound + wanted.max_tokens} if default_bound else {})


def _with_betas(body: Mapping[str, Any], header: str | None) -> Mapping[str, Any]:
    """Returns the body with the beta features from the client's header added to `betas`, which `post` reads."""
    if not header:
        return body
    members = map(str.strip, header.split(","))
    names = [name for name in members if name]  # RFC 9110, 5.6.1: a recipient ignores empty elements
    if len(names) > LIMITS.betas or not all(map(_BETA.fullmatch, names)):
        raise _bad_header("anthropic-beta", f"at most {LIMITS.betas} names of {SHARED.identifier} characters")
    given = body.get("betas")
    return {**body, "betas": [*(given if isinstance(given, list) else ()), *names]}


def _bad_header(name: str, expected: str) -> InvalidRequest:
    return InvalidRequest(message=f"The header `{name}` is not valid: expected {expected}", reason="header")


APIS: Final[dict[str, API]] = {"": Anthropic()}
