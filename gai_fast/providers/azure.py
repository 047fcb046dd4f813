"""Azure OpenAI: the chat dialect at `{endpoint}/openai/deployments/{deployment}/chat/completions?api-version=…`.

Source: PROVIDERS §10. Besides the dialect:

* The first chunk has no choices, no id and no model, only `prompt_filter_results`; choices carry
  `content_filter_results`. What was filtered or detected is told as `safety`.
* The key goes into `api-key`; the model of a request is the deployment's name and stands in the path.
* Responses (`azure:responses`) are at `{endpoint}/openai/v1/responses`, with the deployment as the body's `model`; an
  `api-version` goes with them only where it is asked for. What was filtered stands in `content_filters`.
* A blocked prompt is a 400 with `innererror.code` ResponsibleAIPolicyViolation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlencode

from gai_fast._impl import encode_json
from gai_fast.errors import Said
from gai_fast.events import Event
from gai_fast.providers._base import API, Target, UpstreamRequest
from gai_fast.providers._chat import ChatAPI
from gai_fast.providers._chat_answers import ChatAdapter
from gai_fast.providers._failures import error_object, said_of
from gai_fast.providers._responses import ResponsesAPI
from gai_fast.providers._responses_answers import ResponsesAdapter

_API_VERSION: Final = "2024-10-21"
"""The newest data plane version that is generally available; `provider_options.azure.api_version` asks for another."""

_OPTIONS: Final = {"api_version": str}

_SCORES: Final = {"safe": 0, "low": 2, "medium": 4, "high": 6}
"""Azure's own numbers for its severities."""


class Azure(ChatAPI):
    """`base_url` is the resource's endpoint (`https://<name>.openai.azure.com`), as the official SDK takes it."""

    provider = "azure"
    key_variable = "AZURE_OPENAI_API_KEY"
    max_tokens_field = "max_completion_tokens"
    options: ClassVar = _OPTIONS

    def adapter(self, model: str | None = None) -> AzureAdapter:
        return AzureAdapter(self, model)

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        version = body.pop("api_version", None) or _API_VERSION
        query = urlencode({"api-version": version})
        path = f"/openai/deployments/{quote(target.model, safe='')}{self.path}?{query}"
        return UpstreamRequest(path, encode_json(body), self.headers(target))

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "api-key", api_key

    def said(self, body: Any) -> Said | None:
        return _said(body)


class AzureAdapter(ChatAdapter):
    """Reads what the content filters say."""

    def extras(self, chunk: dict[str, Any]) -> list[Event]:
        return _filtered([*(chunk.get("prompt_filter_results") or ()), *(chunk.get("choices") or ())])


class AzureResponses(ResponsesAPI):
    """The Responses dialect of the same resource."""

    provider = "azure"
    key_variable = Azure.key_variable
    path = "/openai/v1/responses"
    options: ClassVar = _OPTIONS

    def adapter(self, model: str | None = None) -> AzureResponsesAdapter:
        return AzureResponsesAdapter(self, model)

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        version = body.pop("api_version", None)
        request = super().post(body, target)
        if version:
            request.path = f"{self.path}?{urlencode({'api-version': version})}"
        return request

    def key_header(self, api_key: str) -> tuple[str, str]:
        return "api-key", api_key

    def said(self, body: Any) -> Said | None:
        return _said(body)


class AzureResponsesAdapter(ResponsesAdapter):
    """Reads what the content filters say."""

    def extras(self, response: dict[str, Any]) -> list[Event]:
        return _filtered(response.get("content_filters") or ())


def _said(body: Any) -> Said | None:
    error = error_object(body)
    return None if error is None else said_of(error, error.get("innererror"))


def _filtered(results: Iterable[dict[str, Any]]) -> list[Event]:
    """What was filtered or detected."""
    return [
        {"type": "safety", "safety": _safety(category, result)}
        for filtered in results
        for category, result in (filtered.get("content_filter_results") or {}).items()
        if isinstance(result, dict) and (result.get("filtered") is True or result.get("detected") is True)
    ]


def _safety(category: str, result: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"category": category, "action": "filtered" if result.get("filtered") else "detected"}
    score = _SCORES.get(result.get("severity", ""))
    return said if score is None else said | {"score": score}


APIS: Final[dict[str, API]] = {"": Azure(), "responses": AzureResponses()}
