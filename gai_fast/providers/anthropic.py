"""Anthropic Messages: `https://api.anthropic.com/v1/messages`.

Source: anthropic-python 2.10 and Anthropic's API reference (version 2026-10-21). `messages/answers.py` reads the
responses.

* `max_tokens` is required and includes thinking: a request without one gets the model's highest. Adjacent messages of
  one role are one turn. Signed reasoning is sent back unchanged.
* How thinking is controlled differs by model: by effort, a budget, or both (`requests/facts.py`).
* A system message after others has its place in the conversation if the model accepts it there: after a turn of the
  user, before one of the assistant.
* A schema of the answer must be closed: objects with properties are. JSON without a schema is not supported, nor is a
  schema that refers to itself; of a tool it is not strict.
* `provider_options.anthropic.betas` becomes the header `anthropic-beta`, as in the SDK.
* Version 2026-10-21 refuses sampling parameters: a request with a sampling parameter is sent with version 2023-06-01.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final

from msgspec import UNSET, Meta
from orjson import Fragment, loads

from gai_fast.core.json.chunks import label
from gai_fast.core.requests.reading import turns
from gai_fast.core.requests.shapes import RequestShape, messages_shape
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.limits import SHARED
from gai_fast.model.request import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    ProviderBlockPart,
    Reasoning,
    ReasoningPart,
    Request,
    ResponseFormat,
    SystemMessage,
    TextPart,
    Tool,
    ToolCallPart,
    ToolMessage,
    VideoPart,
)
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.failures import error_object, failure_of
from gai_fast.providers.limits import LIMITS
from gai_fast.providers.messages.answers import AnthropicAdapter
from gai_fast.providers.messages.rules import MessagesPairs, MessagesRules, NoEmptySystem
from gai_fast.providers.requests.api import API, NO_HEADERS
from gai_fast.providers.requests.clouds import PROJECT, InCloud
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.facts import Facts
from gai_fast.providers.requests.own_tools import OwnTool, declared
from gai_fast.providers.requests.parts import (
    add_turn,
    anthropic_cache_member,
    argument_object,
    closed_schema,
    file_text,
    image_data,
    required_schema,
    without_limits,
)
from gai_fast.providers.requests.paths import in_path
from gai_fast.providers.requests.rules import CallIds
from gai_fast.providers.requests.strict_schemas import is_recursive
from gai_fast.providers.requests.target import Target, UpstreamRequest
from gai_fast.providers.requests.tool_names import ToolNames
from gai_fast.runtime.breathing import breathe

_UNSET: Final = UNSET  # a constant: a name look-up costs 150 instructions
_VERSION: Final = "2026-10-21"
_SAMPLING_VERSION: Final = "2023-06-01"
_MOST_TEMPERATURE: Final = 1.0
_SAMPLING: Final[tuple[str, ...]] = ("temperature", "top_p", "top_k")

_BETA: Final = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{SHARED.identifier}}}")
BETAS: Final = Annotated[
    list[Annotated[str, Meta(pattern=rf"^{_BETA.pattern}\Z")]],
    Meta(max_length=LIMITS.betas),
]
"""Names of beta features. They must be tokens (RFC 9110), because they are joined in a header."""
_PARALLEL_MEMBER: Final = "disable_parallel_tool_use"
_PARALLEL: Final = f"tool_choice.{_PARALLEL_MEMBER}"
_TOOL_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_FORCED: Final = ("any", "tool")
_THINKS: Final = ("adaptive", "enabled")
_BUDGETS: Final = {"minimal": 1024, "low": 4096, "medium": 8192, "high": 16_384, "xhigh": 32_768, "max": 64_000}
"""Thinking tokens for each effort, for models that take budgets alone."""
_SEARCH_OPTIONS: Final = {name: name for name in ("allowed_domains", "blocked_domains", "max_uses", "user_location")}
_NEW_TOOLS: Final = {
    "web_search": OwnTool({"type": "web_search_20260318", "name": "web_search"}, _SEARCH_OPTIONS),
    "code_execution": OwnTool({"type": "code_execution_20260521", "name": "code_execution"}),
}
_TOOLS: Final = {
    "web_search": OwnTool({"type": "web_search_20250305", "name": "web_search"}, _SEARCH_OPTIONS),
    "code_execution": OwnTool({"type": "code_execution_20250825", "name": "code_execution"}),
}
_BEDROCK: Final = "anthropic."
"""The mark of Bedrock's ids, which Anthropic's lack."""
_PAUSING: Final = ("server_tool_use", "mcp_tool_use", "_tool_result")
"""The ends of the types of blocks after which an answer may be paused."""
_NO_CHOICE: Final = {"type": ""}


_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""The form of an API version."""


_IMAGES: Final = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
"""The media types of images that the API reads."""
_ANY_OBJECT: Final = frozenset(("type", "additionalProperties", "$schema", "title", "description"))
"""The members of a schema that any object follows."""
"""The prefix of most schemas of arguments."""


class Anthropic(API):
    """`base_url` is the host alone, as in Anthropic's SDK, which appends `/v1`."""

    provider = "anthropic"
    dialect = "anthropic"
    base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    path = "/v1/messages"
    models_path = "/v1/models"
    count_path = "/v1/messages/count_tokens"
    count_members = frozenset(
        "anthropic_version cache_control compaction context_management mcp_servers messages model output_config speed "
        "system thinking tool_choice tools".split()
    )
    lacks = frozenset({"seed"})
    options: ClassVar = {"betas": BETAS}
    rules: ClassVar = MessagesRules(
        "anthropic",
        "anthropic 2.13.0, 2026-11-25",
        call_ids=CallIds("[a-zA-Z0-9_-]+"),
        mends=[MessagesPairs(), NoEmptySystem(), NoEmptyMessages(keeps_last=True)],
    )
    chooses_own_tools = True
    tool_names = ToolNames("[a-zA-Z0-9_-]+", 128)
    unions = "flat"
    says_all = True
    efforts = ("low", "medium", "high", "xhigh", "max")
    service_tiers = frozenset({"auto", "standard_only"})
    knobs: ClassVar = {
        "top_k": "top_k",
        "parallel_tool_calls": _PARALLEL,
        "service_tier": "service_tier",
        "user": "metadata.user_id",
    }
    least_top_p = 0.95
    clouds: ClassVar = {
        "aws": InCloud("https://bedrock-mantle.{region}.api.aws/anthropic"),
        "google": InCloud(f"https://{{vertex}}/v1/{PROJECT}", "anthropic:vertex"),
    }

    def own_tool(self, kind: str, target: Target) -> OwnTool | None:
        # The newest forms run in code that only models with adaptive thinking may call.
        ways = self.facts(target).thinking
        return (_NEW_TOOLS if ways is None or "adaptive" in ways else _TOOLS).get(kind)

    def add_own_tool(self, body: dict[str, Any], tool: Tool, form: OwnTool) -> None:
        body.setdefault("tools", []).append(declared(form, tool.options or {}) | anthropic_cache_member(tool.cache))

    def adapter(self, model: str | None = None) -> AnthropicAdapter:
        return AnthropicAdapter(self, model)

    def shape_of(self, body: Mapping[str, Any]) -> RequestShape:
        return messages_shape(body)

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        error = error_object(body)
        return None if error is None else failure_of(error, error.get("details"))

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        facts = self.facts(target)
        system, messages = self._messages(request, target, facts)
        body: dict[str, Any] = {
            "model": target.model,
            "max_tokens": request.max_tokens or _highest(facts, target.model),
            "messages": messages,
            "stream": True,
        }
        if system:
            body["system"] = system
        if request.tools:
            body["tools"] = [_declaration(tool, f"tools[{at}]", target) for at, tool in enumerate(request.tools)]
        choice, reasoning = request.tool_choice, request.reasoning
        if type(choice) is NamedTool:
            body["tool_choice"] = {"type": "tool", "name": choice.name}
        elif isinstance(choice, str):
            body["tool_choice"] = {"type": _TOOL_CHOICES[choice]}
        if facts.forced_tool is False and body.get("tool_choice", _NO_CHOICE)["type"] in _FORCED:
            self.leave_out("tool_choice", target, "this model cannot be made to call a tool")
            del body["tool_choice"]
        output: dict[str, Any] = {}
        if reasoning:
            thinking = self._thinking(reasoning, body["max_tokens"], output, target, facts)
            if "budget_tokens" in thinking and _acts_without_thinking(messages):
                thinking = self._thinking_after_calls(reasoning, target, facts)
            if thinking:
                body["thinking"] = thinking
                is_forced = body.get("tool_choice", _NO_CHOICE)["type"] in _FORCED
                if is_forced and facts.sampling_with_thinking is False and thinking["type"] in _THINKS:
                    # "Thinking isn't compatible with […] forced tool use": Anthropic's guide to extended thinking.
                    self.leave_out("tool_choice", target, "this model cannot be made to call a tool while it thinks")
                    del body["tool_choice"]
        if request.response_format:
            self._add_format(request.response_format, output, target, facts)
        if output:
            body["output_config"] = output
        temperature = request.temperature
        if temperature is not _UNSET and temperature > _MOST_TEMPERATURE:
            temperature = _MOST_TEMPERATURE
            target.changes.adjust("temperature", str(temperature))
        sampling = {"temperature": temperature, "top_p": request.top_p}
        body |= {key: value for key, value in sampling.items() if value is not _UNSET}
        if request.stop:
            stops = self._stops(request.stop, target)
            if stops:
                body["stop_sequences"] = stops
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
        if request.cache:
            body |= anthropic_cache_member(request.cache)
        if reasoning and reasoning.summary:
            self._add_display(body, reasoning.summary, target)
        self.add_knobs(body, request, target)
        if request.parallel_tool_calls is not _UNSET:
            _disable_parallel_calls(body)
        return body

    def build_passthrough(
        self,
        body: Mapping[str, Any],
        target: Target,
        headers: Mapping[str, str] = NO_HEADERS,
        shape: RequestShape | None = None,
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
        headers.append(("anthropic-version", _version_of(body)))
        if betas:
            headers.append(("anthropic-beta", ",".join(betas)))
        return UpstreamRequest(self.path, encode_json(body), headers)

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "x-api-key", api_key

    def _thinking(
        self, wanted: Reasoning, most: int, output: dict[str, Any], target: Target, facts: Facts
    ) -> dict[str, Any]:
        """Returns the `thinking` member, empty if there is none, and adds the effort to the `output_config`.

        Args:
            wanted: The request's wish.
            most: `max_tokens`, which a budget must stay below.
            output: The `output_config`.
            target: Model and policy.
            facts: What is known of the model.
        """
        budget: int | None = wanted.max_tokens or None
        effort: str | None = wanted.effort or None
        path = "reasoning.effort" if wanted.max_tokens is _UNSET else "reasoning.max_tokens"
        if wanted.max_tokens == 0 or (effort == "none" and budget is None):
            return self._no_thinking(path, target, facts)
        if effort is None and budget is None:
            return {}
        ways = facts.thinking
        if facts.never_thinks:
            self.leave_out(path, target, "this model does not think")
            return {}
        if effort == "none":
            effort = None  # the budget counts
        if budget is not None and ways is not None and "budget" not in ways:
            # Models without budgets have efforts only.
            effort = effort or next((name for name, tokens in _BUDGETS.items() if tokens >= budget), "max")
            target.changes.adjust(path, "adaptive")
            budget = None
        if effort is not None and (facts.efforts or facts.efforts is None):
            output["effort"] = self.effort(effort, target)
        if budget is None and (ways is None or "adaptive" in ways):
            return {"type": "adaptive"}
        tokens = self._budget(effort, budget, most, target, facts)
        return {"type": "enabled", "budget_tokens": tokens} if tokens else {}

    def _thinking_after_calls(self, wanted: Reasoning, target: Target, facts: Facts) -> dict[str, Any]:
        """Returns the `thinking` member in place of a budget, which the API refuses after calls without thinking.

        "When `thinking` is enabled, a final `assistant` message must start with a thinking block"; a client may have
        lost it, or another model has made the calls. Adaptive thinking may begin anywhere.
        """
        path = "reasoning.effort" if wanted.max_tokens is _UNSET else "reasoning.max_tokens"
        if "adaptive" in (facts.thinking or ()):
            target.changes.adjust(path, "adaptive")
            return {"type": "adaptive"}
        if wanted.max_tokens is _UNSET:
            target.changes.adjust(path, "none")
        else:
            self.leave_out(path, target, "the calls before have no thinking of this model")
        return {}

    def _stops(self, stops: list[str], target: Target) -> list[str]:
        """Returns the stop sequences that the API accepts: each has a character that is not whitespace."""
        for at, each in enumerate(stops):
            if not each.strip():
                self.leave_out(f"stop[{at}]", target, "a stop sequence of whitespace alone")
        return [each for each in stops if each.strip()]

    def _add_display(self, body: dict[str, Any], summary: str, target: Target) -> None:
        """Adds to a body's `thinking` whether thoughts are shown."""
        thinking = body.get("thinking", {})
        if thinking.get("type") in _THINKS:
            thinking["display"] = "omitted" if summary == "none" else "summarized"
        elif summary not in ("none", "auto"):
            self.leave_out("reasoning.summary", target)

    def _no_thinking(self, path: str, target: Target, facts: Facts) -> dict[str, Any]:
        ways = facts.thinking
        if ways is None or "disabled" in ways:
            return {"type": "disabled"}
        if "between_tools" in ways:
            return {"type": "between_tools"}
        self.leave_out(path, target, "this model always thinks")
        return {}

    def _budget(self, effort: str | None, budget: int | None, most: int, target: Target, facts: Facts) -> int:
        """Returns the budget of a request: what it asks for, or what its effort stands for; 0 if none fits.

        Args:
            effort: Its effort, which counts if it has no budget.
            budget: Its budget.
            most: `max_tokens`, which the budget must stay below.
            target: Model and policy.
            facts: What is known of the model.
        """
        least = facts.least_budget or 1
        if budget is None:
            # Half of the answer's tokens at most: the budget is not what the client has asked for.
            tokens = min(_BUDGETS[effort or "medium"], most // 2)
            if tokens >= least:
                return tokens
            target.changes.adjust("reasoning.effort", "none")
            return 0
        tokens = min(max(budget, least), most - 1)
        if tokens < least:
            self.leave_out("reasoning.max_tokens", target, f"a budget below a max_tokens of {most}")
            return 0
        if tokens != budget:
            target.changes.adjust("reasoning.max_tokens", str(tokens))
        return tokens

    def _add_format(self, wanted: ResponseFormat, output: dict[str, Any], target: Target, facts: Facts) -> None:
        """Adds the form of the answer to the `output_config`: a schema, whose objects the API wants closed."""
        if wanted.type == "text":
            return
        if wanted.type == "json":
            # "For 'object' type, 'additionalProperties' must be explicitly set to false": no schema means any object.
            self.leave_out("response_format", target, "JSON without a schema; send one as `json_schema`")
            return
        schema: Any = required_schema(wanted)
        if facts.schema is False:
            self.leave_out("response_format", target, "this model follows no schema")
            return
        given: dict[str, Any] = parse_exact(bytes(wanted.schema or b"{}").decode())
        if _takes_any_object(given):
            self.leave_out("response_format", target, "JSON without a schema; send one with `properties`")
            return
        if is_recursive(given):
            self.leave_out("response_format", target, "a schema that refers to itself")
            return
        fitted = _strict_schema(bytes(wanted.schema or b"null"), "response_format.schema", target)
        if fitted is not None:
            schema = fitted
        output["format"] = {"type": "json_schema", "schema": schema}

    def _messages(
        self, request: Request, target: Target, facts: Facts
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Returns the system's blocks and the turns.

        Adjacent messages of one role are one turn: parallel calls' results must be together, and before other content.
        """
        system: list[dict[str, Any]] = []
        sent: list[dict[str, Any]] = []
        results: dict[int, list[dict[str, Any]]] = {}  # by the turn that they begin
        given = turns(request)
        end = 0  # of the system messages in a row
        for at, (path, message) in enumerate(given):
            breathe()
            blocks = self._blocks(message, path, target)
            if not blocks and type(message) is not ToolMessage:
                target.changes.drop_message(path)
            # Of another class, `isinstance` asks the metaclass: 800 instructions.
            if type(message) is SystemMessage:
                if not sent:
                    system += blocks
                    continue
                if at >= end:
                    end = _row_end(given, at)
                role = self._system_role(sent, given[end][1] if end < len(given) else None, facts)
                if role == "user" and blocks:
                    target.changes.adjust(f"{path}.role", role)
                add_turn(sent, role, "content", blocks)
                continue
            if type(message) is ToolMessage:
                result = {"type": "tool_result", "tool_use_id": message.call_id, "content": blocks}
                if not sent or sent[-1]["role"] != "user":
                    sent.append({"role": "user", "content": []})
                own = results.setdefault(len(sent) - 1, [])
                own.append(result | {"is_error": True} if message.is_error else result)
                continue
            role = "assistant" if type(message) is AssistantMessage else "user"
            add_turn(sent, role, "content", blocks)
        for turn, own in results.items():
            sent[turn]["content"][:0] = own
        if not sent and system:  # a request needs a turn
            target.changes.adjust(f"{given[0][0]}.role", "user")
            return [], [{"role": "user", "content": system}]
        if facts.prefill is False and sent and sent[-1]["role"] == "assistant" and not _is_paused(sent[-1]):
            self.leave_out(given[-1][0], target, "this model continues no assistant message")
            sent.pop()
        if sent and sent[-1]["role"] == "assistant":
            last = sent[-1]["content"][-1]
            if last["type"] == "text" and last["text"] != last["text"].rstrip():
                # The API refuses a text to continue that ends in whitespace.
                last["text"] = last["text"].rstrip()
                target.changes.adjust(f"{given[-1][0]}.content", "trimmed")
        return system, sent

    def _system_role(self, sent: list[dict[str, Any]], following: Message | None, facts: Facts) -> str:
        """Returns the role of a system message after others: `system` if the model and its place allow it.

        Args:
            sent: The turns before it.
            following: The first message after it that is of another kind; None if there is none.
            facts: What is known of the model.
        """
        fits = following is None or isinstance(following, AssistantMessage)
        return "system" if facts.system_in_middle and fits and sent[-1]["role"] in ("user", "system") else "user"

    def is_visible(self, text: str) -> bool:
        return bool(text) and not text.isspace()

    def _blocks(self, message: Message, path: str, target: Target) -> list[dict[str, Any]]:
        if isinstance(message.content, str):
            return [{"type": "text", "text": message.content}] if self.is_visible(message.content) else []
        blocks: list[dict[str, Any]] = []
        parts: Iterable[Any] = message.content
        for at, part in enumerate(parts):
            here = f"{path}.content[{at}]"
            if isinstance(part, TextPart):
                blocks += (
                    [{"type": "text", "text": part.text} | anthropic_cache_member(part.cache)]
                    if self.is_visible(part.text)
                    else []
                )
            elif isinstance(part, ReasoningPart):
                blocks += self._earlier_reasoning(part)
            elif isinstance(part, ToolCallPart):
                blocks.append(self._earlier_call(part, here, target))
            elif isinstance(part, ProviderBlockPart):
                blocks += self.own_blocks(here, part, target)
            else:
                block = {} if isinstance(message, AssistantMessage) else _medium(part, self.provider)
                if block:
                    blocks.append(block | anthropic_cache_member(getattr(part, "cache", False)))
                else:
                    is_known = isinstance(part, (FilePart, ImagePart))
                    only_its_type = is_known and not isinstance(message, AssistantMessage)
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
        arguments = argument_object(part, path, target.changes)
        return {"type": "tool_use", "id": part.call_id, "name": part.name, "input": arguments}


class AnthropicOnVertex(Anthropic):
    """Claude on Vertex AI. `base_url` ends with the project and the location; the path names model and method.

    The body has no `model`, and has `anthropic_version` in place of the header.
    """

    base_url = ""
    base_url_form = f"https://HOST/v1/{PROJECT}"
    key_variable = ""
    models_path = ""
    count_path = "/publishers/anthropic/models/count-tokens:rawPredict"
    clouds: ClassVar = {"google": InCloud(f"https://{{vertex}}/v1/{PROJECT}")}

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        name = in_path(target.model, "a model", "@")
        betas = body.pop("betas", None)
        body.pop("model", None)
        body.setdefault("anthropic_version", _version_of(body))
        headers = self.headers(target)
        if betas:
            headers.append(("anthropic-beta", ",".join(betas)))
        method = "streamRawPredict" if body.get("stream") else "rawPredict"
        path = f"/publishers/anthropic/models/{name}:{method}"
        return UpstreamRequest(path, encode_json(body), headers)

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "authorization", f"Bearer {api_key}"

    def build_passthrough(
        self,
        body: Mapping[str, Any],
        target: Target,
        headers: Mapping[str, str] = NO_HEADERS,
        shape: RequestShape | None = None,
    ) -> UpstreamRequest:
        version = headers.get("anthropic-version")
        given = {**body, "anthropic_version": version} if version else body
        return super().build_passthrough(given, target, headers, shape)

    def build_count(
        self,
        body: Mapping[str, Any],
        target: Target,
        headers: Mapping[str, str] = NO_HEADERS,
        shape: RequestShape | None = None,
    ) -> UpstreamRequest:
        request = super().build_count(body, target, headers, shape)
        request.body = encode_json({**loads(request.body), "model": target.model})  # the path names no model here
        return request


def _disable_parallel_calls(body: dict[str, Any]) -> None:
    """Turns `parallel_tool_calls` in a body's `tool_choice` into its negation. The default is not sent."""
    choice = body.get("tool_choice", {})
    if choice.get(_PARALLEL_MEMBER) is False and choice.get("type") != "none":
        body["tool_choice"] = {"type": "auto", **choice, _PARALLEL_MEMBER: True}
    elif choice.pop(_PARALLEL_MEMBER, None) is not None and not choice:
        del body["tool_choice"]


def _declaration(tool: Tool, path: str, target: Target) -> dict[str, Any]:
    """Returns the declaration of a tool. The API wants that strict schemas are simple, and do not refer to themselves.

    Args:
        tool: The tool.
        path: Its path in the request.
        target: As for `body`.
    """
    raw = bytes(tool.parameters)
    strict = tool.strict
    schema: Any = Fragment(raw)
    if strict is True and is_recursive(parse_exact(raw.decode())):
        strict = False
        target.changes.adjust(f"{path}.strict", "false")
    elif strict is True:
        fitted = _strict_schema(raw, f"{path}.parameters", target)
        schema = schema if fitted is None else fitted
    declared: dict[str, Any] = {"name": tool.name}
    if tool.description:
        declared["description"] = tool.description
    declared["input_schema"] = schema
    if strict is not _UNSET:
        declared["strict"] = strict
    return declared | anthropic_cache_member(tool.cache)


def _takes_any_object(schema: dict[str, Any]) -> bool:
    """Returns whether a schema names no properties, so that nothing is left of it once it is closed."""
    is_open = schema.get("type", "object") == "object" and schema.get("additionalProperties") is not False
    return is_open and _ANY_OBJECT.issuperset(schema)


def _strict_schema(raw: bytes, path: str, target: Target) -> Any:
    """Returns a schema that the API follows strictly, closed and without limits; None if it is sent as it is.

    Args:
        raw: The schema's JSON.
        path: Its path in the request, for the report of a change.
        target: As for `body`.
    """
    given = parse_exact(raw.decode())
    free = without_limits(given)
    fitted = closed_schema(free)
    if fitted == given:
        return None
    try:
        written = Fragment(encode_json(fitted))
    except ValueError:  # a number that JSON does not have: the provider refuses it
        return None
    target.changes.adjust(path, "closed" if free == given else "simplified")
    return written


def _medium(part: ImagePart | AudioPart | FilePart | VideoPart, provider: str) -> dict[str, Any]:
    """Returns the block for an image or a file, empty if the API does not support the part.

    Args:
        part: The part.
        provider: The provider whose stored files the API has.
    """
    if isinstance(part, ImagePart):
        data = image_data(part)
        if data is None:
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        if data[0] not in _IMAGES:
            return {}
        return {"type": "image", "source": {"type": "base64", "media_type": data[0], "data": data[1]}}
    if not isinstance(part, FilePart):
        return {}
    title = {"title": part.filename} if part.filename else {}
    if part.url and part.media_type in ("", "application/pdf"):
        return {"type": "document", "source": {"type": "url", "url": part.url}, **title}
    if part.file_id and part.provider == provider:
        return {"type": "document", "source": {"type": "file", "file_id": part.file_id}, **title}
    if not part.data:
        return {}
    if part.media_type == "application/pdf":
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
        return {"type": "document", "source": source, **title}
    if part.media_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": file_text(part)}
        return {"type": "document", "source": source, **title}
    return {}


def _highest(facts: Facts, model: str) -> int:
    """Returns the `max_tokens` for a request without one."""
    highest = facts.max_output or LIMITS.default_max_tokens
    return min(highest, LIMITS.bedrock_max_tokens) if _BEDROCK in model else highest


def _acts_without_thinking(messages: list[dict[str, Any]]) -> bool:
    """Returns whether messages end with results of calls, and none of the answers to the last question has thinking."""
    for turn in messages[::-1]:
        blocks: list[dict[str, Any]] = turn["content"]
        kinds = [label(block.get("type")) for block in blocks]
        if turn["role"] == "user" and "tool_result" not in kinds:
            return turn is not messages[-1]
        if turn["role"] == "assistant" and (turn is messages[-1] or not _THOUGHTS.isdisjoint(kinds)):
            return False
    return True


def _is_paused(turn: dict[str, Any]) -> bool:
    """Returns whether the assistant continues a turn by itself: Anthropic's tools run in it."""
    return any(label(block.get("type")).endswith(_PAUSING) for block in turn["content"])


def _row_end(given: list[tuple[str, Message]], at: int) -> int:
    """Returns the index after a row of system messages that begins at an index."""
    while at < len(given) and isinstance(given[at][1], SystemMessage):
        at += 1
    return at


def _version_of(body: Mapping[str, Any]) -> str:
    """Returns the version of the API for a body that names none."""
    return _SAMPLING_VERSION if any(key in body for key in _SAMPLING) else _VERSION


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


_THOUGHTS: Final = frozenset(("thinking", "redacted_thinking"))
"""The types of blocks that begin an answer with thinking."""

APIS: Final[dict[str, API]] = {"": Anthropic(), "vertex": AnthropicOnVertex()}
