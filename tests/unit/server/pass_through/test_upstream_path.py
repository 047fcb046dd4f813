"""`tests/integration/test_pass_through.py` has the paths that are refused, over a socket."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.server.pass_through.upstream_path import below, read_path, read_query


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        ("/v1/embeddings", ("v1", "embeddings")),
        ("/v1/%65mbeddings", ("v1", "embeddings")),
        ("/v1/a%20b", ("v1", "a b")),
        ("/v1/m%C3%BCll", ("v1", "müll")),
        ("/v1/100%25", ("v1", "100%")),
        ("/v1/...", ("v1", "...")),
        ("/v1/.well-known", ("v1", ".well-known")),
        ("/v1/m:embedContent", ("v1", "m:embedContent")),
        ("/v1/", ("v1", "")),
        ("/", ("",)),
    ],
)
def test_a_path_is_matched_decoded_and_kept_as_it_came(path: str, segments: tuple[str, ...]) -> None:
    assert read_path(path) == (path, segments)


@pytest.mark.parametrize(
    "path",
    ["", "v1", "//", "/a//b", "/.", "/..", "/a/..", "/%2e", "/.%2e", "/%2E%2e/a", "/..;a", "/.;", "/%2e%2e;x", "/a%2fb",
     "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a%0a", "/a%1f", "/a%7f", "/a%c2%80", "/%252e%252e", "/a%252fb", "/a%255cb",
     "/a%250a", "/a%", "/a%4", "/a%zz", "/%ff", "/a b", "/a?b", "/a#b", "/\x7f", "/é", '/"'],
)  # fmt: skip
def test_a_path_that_servers_read_differently_is_refused(path: str) -> None:
    with pytest.raises(Error) as caught:
        read_path(path)
    assert (caught.value.status, caught.value.reason) == (400, "path")
    assert path not in caught.value.message or len(path) < 3


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("", ""),
        ("a=1&b=%20&b=&c", "?a=1&b=%20&b=&c"),
        ("key=sk-1", ""),
        ("a=1&key=sk-1&b=2", "?a=1&b=2"),
        ("KEY=x&%6bey=y&k%65y&api_key=z&access_token=t&api-key=u&keys=1", "?keys=1"),
        ("a=key=b", "?a=key=b"),
        ("a=100%&b=[1]", "?a=100%&b=[1]"),
        ("a=1;key=sk-1&b=2;c=3", "?a=1&b=2;c=3"),
        ("key=x;key=y", ""),
        ("_method=DELETE&a=1&%5Fmethod=PUT&_METHOD=PATCH&+_method=PUT&.method=PUT&a_method=1", "?a=1&a_method=1"),
        ("$httpMethod=DELETE&$httpHeaders=X-A:1&%24httpMethod=PUT&x-http-method-override=PUT&$alt=sse", "?$alt=sse"),
    ],
)
def test_a_query_is_sent_as_it_came_without_credentials_and_other_methods(query: str, sent: str) -> None:
    assert read_query(query) == sent


@pytest.mark.parametrize("query", ["a b", "a=\xe9", "a#b", "a\x7f", "a\r\nb"])
def test_a_query_that_would_break_the_request_is_refused(query: str) -> None:
    with pytest.raises(Error) as caught:
        read_query(query)
    assert (caught.value.status, caught.value.reason) == (400, "query")


@pytest.mark.parametrize(
    ("base_url", "path", "relative"),
    [
        ("https://api.openai.com/v1", "/v1/embeddings", "/embeddings"),
        ("https://api.openai.com/v1/", "/v1/embeddings", "/embeddings"),
        ("https://api.openai.com/v1", "/embeddings", "/embeddings"),
        ("https://api.openai.com/v1", "/v1", "/v1"),
        ("https://api.openai.com/v1", "/v10/x", "/v10/x"),
        ("https://api.groq.com/openai/v1", "/v1/audio/speech", "/audio/speech"),
        ("https://api.groq.com/openai/v1", "/openai/v1/x", "/openai/v1/x"),
        ("https://api.mistral.ai", "/v1/embeddings", "/v1/embeddings"),
        ("https://api.mistral.ai/", "/v1/embeddings", "/v1/embeddings"),
    ],
)
def test_the_last_segment_of_the_base_url_is_not_repeated(base_url: str, path: str, relative: str) -> None:
    assert below(base_url, path) == relative
