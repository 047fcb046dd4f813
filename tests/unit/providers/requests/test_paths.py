from __future__ import annotations

from posixpath import normpath
from urllib.parse import unquote, urlsplit

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import NotFound
from gai_fast.providers import Target, get_provider
from gai_fast.providers.requests.paths import in_path

ASKED = b'{"query":"Hi","max_tokens":16}'
DATED = b'{"query":"Hi","provider_options":{"azure":{"api_version":"2024-10-21"}}}'
WITH_MODEL_IN_PATH = [
    ("gemini", ASKED),
    ("gemini:vertex", ASKED),
    ("anthropic:vertex", ASKED),
    ("azure", DATED),
]
"""The APIs whose URLs hold the id of a model."""
ELSEWHERE = [
    *("", ".", "..", "../x", "a/../b", "a/..", "a//b", "/a", "a/", "..;x", "a/..;x/b"),
    *("%2e%2e", "%2E", "%2e%2e%2fx", "a%2fb", "a%2F..%2Fb", "a%5c..%5cb", "%252e%252e%252fx", "a%00"),
    *(
        "publishers/google/models/..%2f..%2f..%2fsecrets",
        "publishers/%2e%2e/x",
        "models/%2e%2e/files",
        "endpoints/a%2fb",
    ),
    *("projects/p/locations/l/%2e%2e/x", "a\\..\\b", "a\r\nX: y", "a\x00", "a\x7f", "a\x85", "\ud800"),
]


def path_of(provider: str, asked: bytes, model: str) -> str:
    return get_provider(provider).build_request(parse_request(asked), Target(model, "token")).path


@pytest.mark.parametrize("model", ELSEWHERE)
@pytest.mark.parametrize(("provider", "asked"), WITH_MODEL_IN_PATH)
def test_an_id_that_a_server_could_read_as_another_path_is_no_model(provider: str, asked: bytes, model: str) -> None:
    with pytest.raises(NotFound, match=r"no name of a (model|resource|deployment)"):
        path_of(provider, asked, model)


@pytest.mark.parametrize("model", ["m", "a/b", "my gpt/5", "m@1", "m?key=1#x", "100%", "a;b", "models/m", "é"])
@pytest.mark.parametrize(("provider", "asked"), WITH_MODEL_IN_PATH)
def test_another_id_leads_to_one_place_however_often_the_path_is_decoded(
    provider: str, asked: bytes, model: str
) -> None:
    path = urlsplit(path_of(provider, asked, model)).path
    for _ in range(3):
        assert normpath(path) == path
        assert path.split("/")[1] == urlsplit(path_of(provider, asked, "m")).path.split("/")[1]
        path = unquote(path)


def test_no_other_api_has_the_id_of_a_model_in_its_url() -> None:
    for provider in ("openai", "openai:responses", "anthropic", "groq", "mistral", "cohere", "ollama", "azure"):
        assert path_of(provider, ASKED, "../x") == path_of(provider, ASKED, "m")


def test_an_id_is_percent_encoded_but_for_what_is_safe() -> None:
    assert in_path("a/b@1?", "a model") == "a%2Fb%401%3F"
    assert in_path("a/b@1?", "a model", "/@") == "a/b@1%3F"
