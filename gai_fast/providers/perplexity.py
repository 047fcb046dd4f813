"""Perplexity: the chat dialect at `https://api.perplexity.ai/chat/completions`.

Source: Perplexity's API reference. Besides the dialect:

* Every chunk has cumulative usage. Its `cost` is an object, in dollars; `total_cost` is the sum.
* Every chunk repeats `citations` (URLs) and `search_results` (URLs with titles). Each source becomes one citation.
* The last chunk's `object` is `chat.completion.done`. There is no chunk with only a role.
* After the system messages, user and assistant take turns, and the user is last.
* Tools, seed, stop sequences and JSON without a schema are not supported. A file is sent as bare base64 in `file_url`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from gai_fast.core.json.chunks import count, label, objects
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event
from gai_fast.model.money import Amount, amount_of
from gai_fast.model.request import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCallPart,
    ToolMessage,
)
from gai_fast.providers.answers.events import citation
from gai_fast.providers.chat.answers import ChatAdapter
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.mends import AlternateTurns
from gai_fast.providers.chat.rules import WITHOUT_EFFECT, ChatRules, Role
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.own_tools import OwnTool, declared
from gai_fast.providers.requests.parts import file_name
from gai_fast.providers.requests.routes import PERPLEXITY_ROUTES
from gai_fast.providers.requests.rules import LACKS, MemberRule
from gai_fast.providers.requests.target import Target
from gai_fast.providers.responses.answers import ResponsesAdapter
from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import OF_OPENAI, responses_rules


def _file(part: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a file's data as bare base64; a file that is stored elsewhere has no place."""
    file = part.get("file")
    if not isinstance(file, dict):
        return part
    data = file.get("file_data")
    if not isinstance(data, str) or not data:
        return None
    name = {"file_name": file["filename"]} if file.get("filename") else {}
    return {"type": "file_url", "file_url": {"url": data.partition(";base64,")[2] or data}, **name}


class Perplexity(ChatAPI):
    """`https://api.perplexity.ai/chat/completions`, which answers with sources from the web."""

    provider = "perplexity"
    routes = PERPLEXITY_ROUTES
    base_url = "https://api.perplexity.ai"
    key_variable = "PERPLEXITY_API_KEY"
    models_path = ""
    stream_options: ClassVar = {}
    lacks = frozenset({"tools", "tool_choice", "seed", "stop", "metadata"})
    user_parts = frozenset({TextPart, ImagePart, FilePart})
    rules: ClassVar = ChatRules(
        "perplexity",
        "https://docs.perplexity.ai/api-reference/chat-completions-post, 2026-11-25",
        members={
            "max_completion_tokens": MemberRule("max_tokens", is_newer=True),
            "reasoning_effort": MemberRule(words={"minimal": "low", "xhigh": "high", "max": "high"}),
            **dict.fromkeys(
                (
                    *WITHOUT_EFFECT,
                    *("functions", "logit_bias", "logprobs", "modalities", "n", "parallel_tool_calls", "seed"),
                    *("service_tier", "stop", "tool_choice", "tools", "top_logprobs", "verbosity"),
                    *("min_p", "repetition_penalty"),
                ),
                LACKS,
            ),
        },
        mends=[NoEmptyMessages(), AlternateTurns("perplexity")],
        roles={"developer": Role("system"), "user": Role("user", parts={"file": _file})},
        lacks=frozenset(("tool", "tool_calls")),
        has_functions=False,
    )
    efforts = ("low", "medium", "high")
    own_tools: ClassVar = {
        "web_search": OwnTool(
            {"web_search_options": {}},
            {
                "allowed_domains": "search_domain_filter",
                "context_size": "web_search_options.search_context_size",
                "user_location": "web_search_options.user_location",
            },
        )
    }

    def add_own_tool(self, body: dict[str, Any], tool: Tool, form: OwnTool) -> None:
        body |= declared(form, tool.options or {})  # every model searches

    def adapter(self, model: str | None = None) -> PerplexityAdapter:
        return PerplexityAdapter(self, model)

    def message(self, message: Message, path: str, target: Target) -> dict[str, Any] | None:
        if isinstance(message, ToolMessage):
            self.leave_out(path, target, "results of tools")
            return None
        return super().message(message, path, target)

    def assistant(self, message: AssistantMessage, path: str, target: Target) -> dict[str, Any] | None:
        for at, part in enumerate(() if isinstance(message.content, str) else message.content):
            if isinstance(part, ToolCallPart):
                self.leave_out(f"{path}.content[{at}]", target, "calls of tools")
        whole = super().assistant(message, path, target) or {}
        whole.pop("tool_calls", None)
        return whole if whole["content"] else None

    def part(self, part: Any) -> dict[str, Any]:
        if isinstance(part, FilePart) and not part.file_id:
            return {"type": "file_url", "file_url": {"url": part.url or part.data}, "file_name": file_name(part)}
        return super().part(part)

    def response_format(self, wanted: ResponseFormat, target: Target) -> dict[str, Any]:
        if wanted.type == "json":
            self.leave_out("response_format", target, "json without a schema")
            return {}
        return super().response_format(wanted, target)


class PerplexityAdapter(ChatAdapter):
    """Reads the sources, the images and the related questions next to the choices."""

    def __init__(self, api: API, model: str | None = None) -> None:
        super().__init__(api, model)
        self._beside: dict[str, list[Any]] = {}
        """The members of a chunk next to the answer, by name; each chunk may repeat them."""

    def finish(self) -> list[Event]:
        events = super().finish()
        if self._beside:
            events[-1]["provider_metadata"] = {**events[-1].get("provider_metadata", {}), **self._beside}
        return events

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        for name in ("images", "related_questions"):
            found = chunk.get(name)
            if found and isinstance(found, list) and found != self._beside.get(name):
                self.room.take(len(encode_json(found)))
                self._beside[name] = found
        titles = {label(found.get("url")): found.get("title") for found in objects(chunk.get("search_results"))}
        cited = chunk.get("citations")
        uris = [uri for uri in (cited if cited and isinstance(cited, list) else titles) if uri and isinstance(uri, str)]
        return self.citations(citation(uri, titles.get(uri)) for uri in uris)

    def count_usage(self, raw: dict[str, Any]) -> dict[str, int]:
        self.searches = count(raw.get("num_search_queries")) or self.searches
        return super().count_usage(raw)

    def cost_in(self, usage: Mapping[str, Any]) -> Amount | None:
        return _cost_in(usage)


def _cost_in(usage: Mapping[str, Any]) -> Amount | None:
    cost = usage.get("cost")
    return amount_of(cost.get("total_cost")) if isinstance(cost, dict) else None


class PerplexityResponses(ResponsesAPI):
    """The agent API, at the path that OpenAI's SDK uses: `/v1/responses`."""

    provider = "perplexity"
    routes = PERPLEXITY_ROUTES
    rules: ClassVar = responses_rules("perplexity", foreign=OF_OPENAI)
    base_url = Perplexity.base_url
    key_variable = Perplexity.key_variable
    path = "/v1/responses"
    models_path = ""

    def adapter(self, model: str | None = None) -> PerplexityResponsesAdapter:
        return PerplexityResponsesAdapter(self, model)


class PerplexityResponsesAdapter(ResponsesAdapter):
    """Reads the cost, which has the form of the chat API's cost."""

    def cost_in(self, usage: Mapping[str, Any]) -> Amount | None:
        return _cost_in(usage)


APIS: Final[dict[str, API]] = {"": Perplexity(), "responses": PerplexityResponses()}
