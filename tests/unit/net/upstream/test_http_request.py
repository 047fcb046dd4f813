"""The address and the bytes of a request: no value of a configuration or a caller breaks them."""

from __future__ import annotations

import pytest

from gai_fast.model.version import __version__
from gai_fast.net.upstream.http_request import Origin, RequestEncoder, encode_headers, encode_request

# ---- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "origin", "authority", "peer"),
    [
        ("https://api.openai.com/v1", Origin("https", "api.openai.com", 443, "/v1"), "api.openai.com", None),
        ("https://api.openai.com/v1/", Origin("https", "api.openai.com", 443, "/v1"), "api.openai.com", None),
        ("http://localhost:11434", Origin("http", "localhost", 11434, ""), "localhost:11434", None),
        ("HTTP://EXAMPLE.com:80/", Origin("http", "example.com", 80, ""), "example.com", "example.com:80"),
        ("http://[::1]:8080/v1", Origin("http", "::1", 8080, "/v1"), "[::1]:8080", None),
        ("https://[2001:DB8::1]", Origin("https", "2001:db8::1", 443, ""), "[2001:db8::1]", "[2001:db8::1]:443"),
        ("http://127.0.0.1:9800/v1", Origin("http", "127.0.0.1", 9800, "/v1"), "127.0.0.1:9800", None),
        ("http://bücher.example/a%20b", Origin("http", "xn--bcher-kva.example", 80, "/a%20b"), None, None),
        ("http://my_service:8000", Origin("http", "my_service", 8000, ""), "my_service:8000", None),
    ],
)
def test_a_base_url_is_taken_apart(base_url: str, origin: Origin, authority: str | None, peer: str | None) -> None:
    assert Origin.parse(base_url) == origin
    if authority is not None:
        assert Origin.parse(base_url).authority == authority
    if peer is not None:
        assert Origin.parse(base_url).peer == peer


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.openai.com",
        "/v1",
        "file:///etc/passwd",
        "gopher://secret-host/",
        "ftp://secret-host/",
        "https://",
        "https:///v1",
        "https://secret@host/v1",
        "https://user:secret@host/v1",
        "https://@host/",
        "https://host/?key=secret",
        "https://host/v1?",
        "https://host/#secret",
        "https://host#",
        "https://host:0/",
        "https://host:99999/",
        "https://host:port/",
        "https://ho st/",
        "https://host/v1\n",
        "https://ho\tst/",
        "https://host/v1\r\nX-Secret: 1",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://" + "a" * 64 + ".example/",
        "https://a..b/",
        "https://-host/",
        "https://host-/",
        "https://ho*st/",
        "https://host/pätsecret",
        "https://host\ud800/",
    ],
)
def test_a_base_url_that_could_lead_elsewhere_is_refused_without_showing_it(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        Origin.parse(base_url)
    assert "secret" not in str(caught.value)


# ---- what is sent ----------------------------------------------------------------------------------------------------

ORIGIN = Origin.parse("https://api.example.com/v1")


def test_a_request_is_one_piece_of_bytes() -> None:
    headers = [("Authorization", "Bearer k"), ("X-Title", "Café")]
    assert encode_request(ORIGIN, "POST", "/chat?x=1", headers, b"{}") == (
        b"POST /v1/chat?x=1 HTTP/1.1\r\n"
        b"Host: api.example.com\r\n"
        b"Accept-Encoding: identity\r\n"
        b"User-Agent: gai-fast/%b\r\n"
        b"Authorization: Bearer k\r\n"
        b"X-Title: Caf\xc3\xa9\r\n"
        b"Content-Length: 2\r\n"
        b"\r\n{}"
    ) % (__version__.encode(),)


def test_a_request_after_another_has_its_own_head_all_the_same() -> None:
    encoder, key = RequestEncoder(ORIGIN), [("Authorization", "Bearer k")]
    for method, path, headers, body in (
        ("POST", "/chat", key, b"{}"),
        ("POST", "/chat", [*key], b"[1]"),
        ("POST", "/chat", [("Authorization", "Bearer l")], b"{}"),
        ("POST", "/other", [("Authorization", "Bearer l")], b"{}"),
        ("GET", "/other", [("Authorization", "Bearer l")], b""),
        ("GET", "/other", [], b""),
    ):
        assert encoder.encode(method, path, headers, body) == encode_request(ORIGIN, method, path, headers, body)
    with pytest.raises(ValueError, match="path"):
        encoder.encode("GET", "/ ", [], b"")
    assert encoder.encode("GET", "/other", [], b"") == encode_request(ORIGIN, "GET", "/other", [], b"")


def test_headers_that_their_owner_changes_are_read_again() -> None:
    encoder, headers = RequestEncoder(ORIGIN), [("A", "1")]
    assert b"A: 1\r\n" in encoder.encode("POST", "/", headers, b"")
    headers[0] = "A", "2"
    assert b"A: 2\r\n" in encoder.encode("POST", "/", headers, b"")


def test_content_length_stands_wherever_a_body_is_expected() -> None:
    assert b"Content-Length: 0\r\n" in encode_request(ORIGIN, "POST", "/", [], b"")
    assert b"Content-Length" not in encode_request(ORIGIN, "GET", "/", [], b"")


def test_a_configured_user_agent_takes_the_place_of_ours() -> None:
    request = encode_request(ORIGIN, "GET", "/", [("USER-agent", "mine")], b"")
    assert request.lower().count(b"user-agent") == 1


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a:", "a\r\nb", "ä", "a\x00", "(a)", "content-length", "Host", "Transfer-Encoding", "CONNECTION"],
)
def test_a_header_that_would_break_the_framing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        encode_headers([(name, "secret")])


@pytest.mark.parametrize(
    "value", ["secret\r\nx: y", "secret\n", "secret\x00", "secret\x1b", "secret\x7f", "secret\ud800"]
)
def test_a_header_value_with_a_line_break_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="'x-api-key'") as caught:
        encode_headers([("x-api-key", value)])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "chat", "/a b", "/a\r\n", "/ä", "/a#b", "/a\x00"])
def test_a_path_that_would_break_the_framing_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        encode_request(ORIGIN, "POST", path, [], b"")


@pytest.mark.parametrize("method", ["", "get", "GET /", "CONNECT", "G\r\n"])
def test_a_method_that_would_break_the_framing_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        encode_request(ORIGIN, method, "/", [], b"")
