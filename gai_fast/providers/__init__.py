"""The registry of providers: one line per provider. A provider's module is imported at its first use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Final

from gai_fast.core.adapter import Adapter
from gai_fast.model.changes import Changes
from gai_fast.providers.answers.counting import TokenCount, missing_route
from gai_fast.providers.requests.api import API
from gai_fast.providers.requests.authors import DETAIL_FORMATS, DIALECT_AUTHORS
from gai_fast.providers.requests.routes import ROUTES
from gai_fast.providers.requests.target import Target, UpstreamRequest
from gai_fast.providers.requests.tuning import RESERVED, is_tuned

__all__ = [
    "API",
    "DETAIL_FORMATS",
    "DIALECT_AUTHORS",
    "PROVIDERS",
    "RESERVED",
    "ROUTES",
    "Adapter",
    "Changes",
    "Target",
    "TokenCount",
    "UpstreamRequest",
    "encrypts",
    "get_provider",
    "is_tuned",
    "missing_route",
    "provider_names",
    "signs_texts",
]

# A provider's module has `APIS`: its `API` objects by the name after the colon; "" is the API of the plain name.
PROVIDERS: Final = {
    "openai": "gai_fast.providers.openai",
    "anthropic": "gai_fast.providers.anthropic",
    "gemini": "gai_fast.providers.gemini",
    "groq": "gai_fast.providers.groq",
    "mistral": "gai_fast.providers.mistral",
    "xai": "gai_fast.providers.xai",
    "deepseek": "gai_fast.providers.deepseek",
    "cohere": "gai_fast.providers.cohere",
    "ollama": "gai_fast.providers.ollama",
    "openrouter": "gai_fast.providers.openrouter",
    "azure": "gai_fast.providers.azure",
    "perplexity": "gai_fast.providers.perplexity",
    "openai-compatible": "gai_fast.providers.openai_compatible",
    "python": "gai_fast.providers.python",
    "demo": "gai_fast.providers.demo",
}


@cache
def get_provider(name: str) -> API:
    """Returns the API for a provider's name.

    Args:
        name: `name` or `name:api`.

    Raises:
        ValueError: The provider or its API is unknown. The text names the cloud's `auth`, the nearest known name, or
            all known names.
    """
    provider, _, api = name.partition(":")
    module = PROVIDERS.get(provider)
    if module is None:
        raise ValueError(f"unknown provider {name!r}{_in_cloud(provider) or _nearest(provider, PROVIDERS)}")
    apis = _apis(module)
    if api not in apis:
        known = sorted(f"{provider}:{key}" if key else provider for key in apis)
        raise ValueError(f"provider {provider!r} has no API {api!r}; known: {', '.join(known)}")
    return apis[api]


def provider_names() -> tuple[str, ...]:
    """Returns the provider names that can be configured, without APIs."""
    return tuple(PROVIDERS)


def encrypts(provider: str) -> bool:
    """Returns whether all signatures of a provider are its whole reasoning, encrypted. False if it is unknown.

    Args:
        provider: The name in events.
    """
    module = PROVIDERS.get(provider)
    return module is not None and any(api.encrypts_reasoning for api in _apis(module).values())


def signs_texts(provider: str) -> bool:
    """Returns whether a provider's signature without a reasoning text is of the visible text. False if it is unknown.

    Args:
        provider: The name in events.
    """
    module = PROVIDERS.get(provider)
    return module is not None and any(api.signs_texts for api in _apis(module).values())


def _apis(module: str) -> dict[str, API]:
    apis: dict[str, API] = import_module(module).APIS
    return apis


_BEDROCK: Final = ("Amazon Bedrock", '"anthropic" or "openai-compatible"', "aws")
_VERTEX: Final = ("Vertex AI", '"gemini", "anthropic" or "openai-compatible"', "google")
_FOUNDRY: Final = ("Microsoft Foundry", '"azure" or "anthropic"', "entra")
_CLOUDS: Final = {
    **dict.fromkeys(("bedrock", "aws", "amazon"), _BEDROCK),
    **dict.fromkeys(("vertex", "vertexai", "google"), _VERTEX),
    **dict.fromkeys(("foundry", "microsoft"), _FOUNDRY),
}
"""By a word of a cloud's name: the cloud, the providers of its models, and the `auth` of an upstream there. Other
gateways and SDKs use a cloud's name as a provider, also in two words: `vertex_ai`, `amazon-bedrock`."""


def _in_cloud(name: str) -> str:
    """Returns the end of a message about a cloud that was named as a provider. Empty if it is none."""
    words = re.findall("[a-z]+", name.lower())
    cloud = next((_CLOUDS[word] for word in words if word in _CLOUDS), None)
    if cloud is None:
        return ""
    return f'; {cloud[0]} is asked by the provider of the model, {cloud[1]}, with auth = "{cloud[2]}" in [[upstream]]'


_LEAST_ALIKE: Final = 0.65
"""How alike a name must be to be suggested: two letters of three, in their order. With less it would be a guess."""


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(name, names, 1, _LEAST_ALIKE) or get_close_matches(name.lower(), names, 1, _LEAST_ALIKE)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"
