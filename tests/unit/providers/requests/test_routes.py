"""Where each provider has OpenAI's routes: judged by the URLs that the official SDKs ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import cohere
import groq
import httpx
import httpx2
import openai
import pytest
from mistralai.client import Mistral

from gai_fast.model.errors import NotFound
from gai_fast.providers import PROVIDERS, Target, get_provider
from gai_fast.providers.requests.routes import ROUTES

pytestmark = [
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),  # OpenAI's of its oldest routes
    pytest.mark.filterwarnings("ignore:ast.* is deprecated:DeprecationWarning"),  # of what Mistral's imports for them
]
SOUND = ("a.wav", b"RIFF", "audio/wav")
Ask = Callable[[Any], Any]
OF_OPENAI: dict[str, Ask] = {
    "/v1/embeddings": lambda client: client.embeddings.create(model="m", input="a"),
    "/v1/moderations": lambda client: client.moderations.create(model="m", input="a"),
    "/v1/images/generations": lambda client: client.images.generate(model="m", prompt="a"),
    "/v1/images/edits": lambda client: client.images.edit(model="m", prompt="a", image=SOUND),
    "/v1/images/variations": lambda client: client.images.create_variation(model="m", image=SOUND),
    "/v1/audio/speech": lambda client: client.audio.speech.create(model="m", input="a", voice="a"),
    "/v1/audio/transcriptions": lambda client: client.audio.transcriptions.create(model="m", file=SOUND),
    "/v1/audio/translations": lambda client: client.audio.translations.create(model="m", file=SOUND),
}
OF_MISTRAL: dict[str, Ask] = {
    "/v1/embeddings": lambda client: client.embeddings.create(model="m", inputs="a"),
    "/v1/moderations": lambda client: client.classifiers.moderate(model="m", inputs="a"),
    "/v1/audio/speech": lambda client: client.audio.speech.complete(model="m", input="a"),
    "/v1/audio/transcriptions": lambda client: client.audio.transcriptions.complete(model="m", file_url="http://a"),
}
OF_COHERE: dict[str, Ask] = {
    "/v1/rerank": lambda client: client.rerank(model="m", query="a", documents=["b"]),
    "/v1/audio/transcriptions": lambda client: client.audio.transcriptions.create(
        model="m", language="de", file=b"RIFF"
    ),
}


def asked_url(library: Any, make: Callable[[Any], Any], ask: Ask) -> tuple[str, dict[str, str]]:
    """Returns the URL and the headers of the request that an SDK would send."""
    seen: list[Any] = []

    def note(request: Any) -> Any:
        seen.append(request)
        return library.Response(400, json={})

    client = make(library.Client(transport=library.MockTransport(note)))
    with pytest.raises(Exception) as raised:  # noqa: PT011  # each SDK has its own for a 400
        ask(client)
    assert seen, repr(raised.value)
    return str(seen[0].url), dict(seen[0].headers)


def ours(provider: str, base_url: str, route: str, model: str | None = "m", **extra: str) -> str | None:
    path = get_provider(provider).passed_path(route, extra, model)
    return None if path is None else base_url.rstrip("/") + path


OPENAIS = [
    # provider, our `base_url`, the `base_url` of OpenAI's SDK
    ("openai", "https://api.openai.com/v1", "https://api.openai.com/v1"),
    ("openai:responses", "https://api.openai.com/v1", "https://api.openai.com/v1"),
    ("openai", "https://bedrock.example/openai/v1", "https://bedrock.example/openai/v1"),
    ("azure", "https://a.openai.azure.com", "https://a.openai.azure.com/openai/v1"),
    ("azure:responses", "https://a.openai.azure.com", "https://a.openai.azure.com/openai/v1"),
    ("groq", "https://api.groq.com", "https://api.groq.com/openai/v1"),
    ("groq:responses", "https://api.groq.com", "https://api.groq.com/openai/v1"),
    ("mistral", "https://api.mistral.ai", "https://api.mistral.ai/v1"),
    ("xai", "https://api.x.ai/v1", "https://api.x.ai/v1"),
    ("ollama", "http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
    ("openrouter", "https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
    ("perplexity", "https://api.perplexity.ai", "https://api.perplexity.ai/v1"),
    ("openai-compatible", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    ("openai-compatible", "https://a.example/api/paas/v4", "https://a.example/api/paas/v4"),
    ("openai-compatible:responses", "https://a.example/serving-endpoints", "https://a.example/serving-endpoints"),
]


@pytest.mark.parametrize("route", OF_OPENAI)
@pytest.mark.parametrize(("provider", "base_url", "of_sdk"), OPENAIS)
def test_each_route_stands_where_openais_client_asks(provider: str, base_url: str, of_sdk: str, route: str) -> None:
    def make(http: Any) -> Any:
        return openai.OpenAI(base_url=of_sdk, api_key="k", http_client=http, max_retries=0)

    assert ours(provider, base_url, route) == asked_url(httpx2, make, OF_OPENAI[route])[0]


def test_each_route_stands_beside_chat() -> None:
    for provider in {name for name, _, _ in OPENAIS} - {"perplexity", "ollama"}:  # whose chat has an address of its own
        api = get_provider(provider)
        asked = {"input": "a"} if provider.endswith(":responses") else {"messages": []}
        sent = api.build_passthrough(asked, Target("m"))
        assert sent.path in (f"{api.routes.root}/chat/completions", f"{api.routes.root}/responses"), provider


@pytest.mark.parametrize("route", sorted(get_provider("groq").routes.known))
def test_groqs_routes_are_those_of_its_client(route: str) -> None:
    def make(http: Any) -> Any:
        return groq.Groq(api_key="k", http_client=http, max_retries=0)

    assert ours("groq", "https://api.groq.com", route) == asked_url(httpx, make, OF_OPENAI[route])[0]


@pytest.mark.parametrize("route", sorted(get_provider("mistral").routes.known))
def test_mistrals_routes_are_those_of_its_client(route: str) -> None:
    def make(http: Any) -> Any:
        return Mistral(api_key="k", client=http)

    assert ours("mistral", "https://api.mistral.ai", route) == asked_url(httpx, make, OF_MISTRAL[route])[0]


@pytest.mark.parametrize("route", OF_COHERE)
def test_coheres_own_routes_are_those_of_its_client(route: str) -> None:
    def make(http: Any) -> Any:
        return cohere.Client(api_key="k", httpx_client=http)

    assert ours("cohere", "https://api.cohere.com", route) == asked_url(httpx, make, OF_COHERE[route])[0]


@pytest.mark.parametrize("provider", ["azure"])
@pytest.mark.parametrize("route", sorted(get_provider("azure").routes.known - {"/v1/images/edits"}))
def test_a_dated_version_of_azure_has_the_deployment_in_the_path_as_its_client_has(provider: str, route: str) -> None:
    def make(http: Any) -> Any:
        return openai.AzureOpenAI(
            azure_endpoint="https://a.openai.azure.com", api_version="2024-10-21", api_key="k", http_client=http
        )

    url = asked_url(httpx2, make, OF_OPENAI[route])[0]
    assert ours(provider, "https://a.openai.azure.com", route, api_version="2024-10-21") == url
    assert ours(provider, "https://a.openai.azure.com", route, None, api_version="2024-10-21") is None
    with pytest.raises(NotFound):
        ours(provider, "https://a.openai.azure.com", route, "../x", api_version="2024-10-21")


COMPATIBLE = [
    ("gemini", "/v1/embeddings", "/v1beta/openai/embeddings"),
    ("gemini", "/v1/images/generations", "/v1beta/openai/images/generations"),
    ("cohere", "/v1/embeddings", "/compatibility/v1/embeddings"),
    ("cohere", "/v1/rerank", "/v1/rerank"),
    ("cohere", "/v1/audio/transcriptions", "/v2/audio/transcriptions"),
]
"""The routes at the compatible addresses of providers whose API is another one, by their documentation."""
WITHOUT = ("anthropic", "anthropic:vertex", "gemini:vertex", "python", "demo")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("provider", ["gemini", "cohere", *WITHOUT])
def test_another_api_has_its_compatible_addresses_or_none(provider: str, route: str) -> None:
    places = {at: path for name, at, path in COMPATIBLE if name == provider}
    assert ours(provider, "", route) == places.get(route)


def test_every_provider_is_in_a_table_of_this_module() -> None:
    tested = {name.partition(":")[0] for name, _, _ in OPENAIS} | {"gemini", "cohere", *WITHOUT}
    assert tested == {*PROVIDERS, *WITHOUT} - {"deepseek"}
    assert not get_provider("deepseek").routes.known


@pytest.mark.parametrize("provider", ["groq", "azure", "azure:responses"])
def test_an_upstreams_own_paths_may_be_named_as_openais(provider: str) -> None:
    routes = get_provider(provider).routes
    assert routes.own_path("/v1/fine_tuning/jobs") == "/openai/v1/fine_tuning/jobs"
    assert routes.own_path("/v1/embeddings") == "/openai/v1/embeddings"
    assert routes.own_path("/openai/v1/files") is None
    assert routes.own_path("/v10/x") is None


def test_other_paths_of_an_upstream_stay_as_they_are() -> None:
    for provider in ("gemini", "cohere", "mistral", "openai", "anthropic", "openai-compatible"):
        assert get_provider(provider).routes.own_path("/v1/models/m:generateContent") is None
    assert get_provider("anthropic").routes.own_path("/v1/embeddings") is None
    assert get_provider("openai-compatible").routes.own_path("/v1/embeddings") == "/embeddings"


def test_the_list_of_models_stands_there_too() -> None:
    """`gai-fast doctor` asks it."""
    for provider, base_url, of_sdk in OPENAIS:
        api = get_provider(provider)
        if api.models_path and api.provider != "ollama":  # which has a list of its own
            assert base_url + api.models_path == f"{of_sdk}/models", provider
    assert urlsplit(get_provider("groq").base_url).path == ""
