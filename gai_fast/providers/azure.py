"""Azure OpenAI: the chat dialect at `{endpoint}/openai/v1/chat/completions`, whose `model` is the deployment.

Source: Azure's API reference and SDK. Besides the dialect:

* The first chunk has no choices, no id and no model, only `prompt_filter_results`. Choices have
  `content_filter_results`. Filtered and detected content becomes `safety` events.
* The credential is sent in the header `api-key`.
* `api_version` in `provider_options` selects the API of that date, at
  `{endpoint}/openai/deployments/{deployment}/chat/completions?api-version=…`.
* The Responses API (`azure:responses`) is at `{endpoint}/openai/v1/responses`; an `api-version` is sent only if
  `provider_options` has one. Filter results are in `content_filters`.
* At most 128 tools, as OpenAI.
* A blocked prompt is a 400 with `innererror.code` ResponsibleAIPolicyViolation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from gai_fast.core.json.chunks import count, label, member, objects
from gai_fast.kernels import encode_json
from gai_fast.model.events import Event
from gai_fast.model.request import CacheMark, Request
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers.answers.failures import error_object, failure_of
from gai_fast.providers.chat.answers import ChatAdapter
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.mends import ChatChoiceNeedsTools, ChatPairs
from gai_fast.providers.chat.rules import OF_OPEN_MODELS, ChatRules
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.parts import openai_cache, openai_cache_member
from gai_fast.providers.requests.paths import in_path
from gai_fast.providers.requests.routes import AZURE_ROUTES
from gai_fast.providers.requests.rules import LACKS, CallIds, MemberRule, RequestRules
from gai_fast.providers.requests.target import Target, UpstreamRequest
from gai_fast.providers.responses.answers import ResponsesAdapter
from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import responses_rules

_V1: Final = "/openai/v1"
_OPTIONS: Final = {"api_version": str}

_SCORES: Final = {"safe": 0, "low": 2, "medium": 4, "high": 6}
"""Azure's number for each severity."""


class Azure(ChatAPI):
    """`base_url` is the resource's endpoint (`https://<name>.openai.azure.com`), in the form that the SDK uses."""

    provider = "azure"
    routes = AZURE_ROUTES
    telemetry_name = "azure.ai.openai"
    key_variable = "AZURE_OPENAI_API_KEY"
    key_host = ".azure.com"
    base_url_form = "https://NAME.openai.azure.com"
    models_path = f"{_V1}/models"
    most_tools = 128
    options: ClassVar = _OPTIONS
    rules: ClassVar = ChatRules(
        "azure",
        "openai 3.57.0, 2026-11-25",
        members={
            "max_tokens": MemberRule("max_completion_tokens"),
            "stop": MemberRule(most_items=4),
            **dict.fromkeys(OF_OPEN_MODELS, LACKS),
        },
        call_ids=CallIds(".{1,64}"),
        mends=[ChatChoiceNeedsTools("azure"), ChatPairs("azure"), NoEmptyMessages()],
    )
    summaries = frozenset({"auto", "none"})  # this API shows none
    caches_by_key = True
    marks_cache = True
    unions = "loose"
    strict_is_closed = True

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        body = super().body(request, target) | openai_cache(request.cache)
        self.turn_thinking_off(body, target)
        return body

    def cache_mark(self, mark: bool | CacheMark) -> dict[str, Any]:
        return openai_cache_member(mark)

    def adapter(self, model: str | None = None) -> AzureAdapter:
        return AzureAdapter(self, model)

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        version = body.pop("api_version", None)
        if not version:
            return UpstreamRequest(_V1 + self.path, encode_json(body), self.headers(target))
        return UpstreamRequest(_dated(self.path, version, target.model), encode_json(body), self.headers(target))

    def passed_path(self, route: str, extra: Mapping[str, Any], model: str | None) -> str | None:
        version = extra.get("api_version")
        if not version:
            return super().passed_path(route, extra, model)
        # The API of a date has the deployment in its path; a form's is not known.
        is_known = model is not None and route in self.routes.known
        return _dated(route.removeprefix("/v1"), version, model or "") if is_known else None

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "api-key", api_key

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        return _failure(body)


class AzureAdapter(ChatAdapter):
    """Reads the results of content filters."""

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        events = _filtered(objects(chunk.get("prompt_filter_results")))
        for choice in objects(chunk.get("choices")):
            found = _filtered([choice])
            if found and (number := count(choice.get("index"))):
                for event in found:
                    event["choice"] = number
            events += found
        return events


_WITHOUT_REASONING: Final = responses_rules("azure", thinks=False)
"""The rules of models that do not think: "Reasoning input items can only be provided to a reasoning or computer use
model"."""


class AzureResponses(ResponsesAPI):
    """The Responses dialect of the same resource."""

    caches_by_key = True
    marks_cache = True
    unions = "loose"
    provider = "azure"
    routes = AZURE_ROUTES
    rules: ClassVar = responses_rules("azure", looks_up=True)
    telemetry_name = "azure.ai.openai"
    most_tools = Azure.most_tools
    key_variable = Azure.key_variable
    key_host = Azure.key_host
    base_url_form = Azure.base_url_form
    path = f"{_V1}/responses"
    models_path = Azure.models_path
    options: ClassVar = _OPTIONS

    def rules_of(self, target: Target) -> RequestRules:
        return _WITHOUT_REASONING if self.facts(target).never_thinks else self.rules

    def adapter(self, model: str | None = None) -> AzureResponsesAdapter:
        return AzureResponsesAdapter(self, model)

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        version = body.pop("api_version", None)
        request = super().post(body, target)
        if version:
            request.path = f"{self.path}?{urlencode({'api-version': version})}"
        return request

    def passed_path(self, route: str, extra: Mapping[str, Any], model: str | None) -> str | None:
        path, version = super().passed_path(route, extra, model), extra.get("api_version")
        return f"{path}?{urlencode({'api-version': version})}" if path and version else path

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "api-key", api_key

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        return _failure(body)


class AzureResponsesAdapter(ResponsesAdapter):
    """Reads the results of content filters."""

    def extras(self, response: dict[str, Any]) -> list[Event]:
        return _filtered(objects(response.get("content_filters")))


def _dated(path: str, version: str, deployment: str) -> str:
    """Returns the path of an operation in the API of a date.

    Raises:
        NotFound: The deployment is no name of one.
    """
    query = urlencode({"api-version": version})
    return f"/openai/deployments/{in_path(deployment, 'a deployment')}{path}?{query}"


def _failure(body: Any) -> UpstreamFailure | None:
    error = error_object(body)
    return None if error is None else failure_of(error, error.get("innererror"))


def _filtered(results: Iterable[dict[str, Any]]) -> list[Event]:
    """Returns an event for each category that was filtered or detected."""
    return [
        {"type": "safety", "safety": _safety(category, result)}
        for filtered in results
        for category, result in member(filtered, "content_filter_results").items()
        if isinstance(result, dict) and (result.get("filtered") is True or result.get("detected") is True)
    ]


def _safety(category: str, result: dict[str, Any]) -> dict[str, Any]:
    safety: dict[str, Any] = {"category": category, "action": "filtered" if result.get("filtered") else "detected"}
    score = _SCORES.get(label(result.get("severity")))
    return safety if score is None else safety | {"score": score}


APIS: Final[dict[str, API]] = {"": Azure(), "responses": AzureResponses()}
