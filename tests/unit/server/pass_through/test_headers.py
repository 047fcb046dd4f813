from __future__ import annotations

import pytest

from gai_fast.server.pass_through.headers import for_client, for_upstream, may_be_passed

OWN = [("authorization", "Bearer ours"), ("anthropic-version", "2023-06-01")]


def passed(headers: dict[str, str], *own: str) -> dict[str, str]:
    return dict(for_client(may_be_passed(headers), own))


@pytest.mark.parametrize(
    "name",
    ["authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "xi-api-key", "cookie",
     "ocp-apim-subscription-key", "x-amz-security-token", "x-auth-token", "x-client-secret", "openai-organization",
     "host", "content-length", "transfer-encoding", "te", "expect", "upgrade", "connection", "keep-alive",
     "accept-encoding", "origin", "referer", "sec-fetch-mode", "x-forwarded-for", "forwarded", "x-real-ip", "via",
     "x-gai-cache", "bad name", "x\r\ny"],
)  # fmt: skip
def test_what_belongs_to_this_hop_or_to_the_client_is_not_sent_upstream(name: str) -> None:
    assert for_upstream({name: "theirs", "x-own": "kept"}, OWN, {}) == [("x-own", "kept"), *OWN]


@pytest.mark.parametrize(
    "name",
    ["x-http-method-override", "x-http-method", "x-method-override", "x_http_method_override", "x-httpmethod-override",
     "http-method-override", "x-original-url", "x-rewrite-url", "x-original-uri", "x-original-method",
     "x-original-host",
     "x-envoy-original-path", "x-forwarded-uri", "x-forwarded-prefix", "x-override-url", "x-http-path-override",
     "request-uri", "x-host", "base-url", "x-proxy-url", "x-rewrite-path", "x-http-destinationurl", "url", "x_api_key",
     "x_forwarded_for", "helicone-target-url", "x-portkey-custom-host"],
)  # fmt: skip
def test_what_gives_a_request_another_method_or_address_is_not_sent_upstream(name: str) -> None:
    assert for_upstream({name: "DELETE", "x-own": "kept"}, OWN, {}) == [("x-own", "kept"), *OWN]


@pytest.mark.parametrize(
    "name",
    ["x-stainless-helper-method", "x-stainless-retry-count", "x-goog-api-client", "http-referer", "x-title",
     "x-curl-id", "x-security-id", "x-methodology", "openai-beta"],
)  # fmt: skip
def test_names_that_only_look_like_it_are_sent_upstream(name: str) -> None:
    assert for_upstream({name: "1"}, (), {}) == [(name, "1")]


@pytest.mark.parametrize("name", ["content-type", "accept", "user-agent", "idempotency-key", "anthropic-beta", "range"])
def test_everything_else_is_sent_upstream(name: str) -> None:
    assert for_upstream({name: "a/b; c"}, OWN, {}) == [(name, "a/b; c"), *OWN]


def test_a_header_that_connection_names_belongs_to_this_hop() -> None:
    given = {"connection": "close, X-Hop", "x-hop": "1", "x-own": "2"}
    assert for_upstream(given, (), {}) == [("x-own", "2")]
    assert passed(given) == {"x-own": "2"}


def test_the_configuration_replaces_all_and_a_version_of_the_client_the_usual_one() -> None:
    given = {"anthropic-version": "2099-01-01", "x-team": "mine"}
    assert for_upstream(given, OWN, {"X-Team": "ours", "Authorization": "Basic x"}) == [
        ("anthropic-version", "2099-01-01"),
        ("X-Team", "ours"),
        ("Authorization", "Basic x"),
    ]


@pytest.mark.parametrize("value", ["a\r\nb", "a\x00", "a\x7f", "\xe9"])
def test_a_value_that_would_break_the_framing_or_change_its_bytes_is_left_out(value: str) -> None:
    assert for_upstream({"x-own": value}, (), {}) == []
    assert passed({"x-own": value}) == {}


@pytest.mark.parametrize(
    "name",
    ["set-cookie", "set-cookie2", "location", "refresh", "connection", "keep-alive", "transfer-encoding", "trailer",
     "upgrade", "content-length", "proxy-authenticate", "www-authenticate", "server", "date", "alt-svc",
     "strict-transport-security", "access-control-allow-origin", "x-request-id", "request-id", "x-gai-cost",
     "content-security-policy", "clear-site-data"],
)  # fmt: skip
def test_what_would_act_on_the_gateways_origin_does_not_come_back(name: str) -> None:
    assert passed({name: "theirs", "etag": "kept"}) == {"etag": "kept"}


def test_responses_that_differ_in_their_time_and_size_alone_have_the_same_headers_to_pass() -> None:
    given = {"date": "now", "content-length": "7", "connection": "keep-alive", "etag": "kept"}
    assert may_be_passed(given) == (("connection", "keep-alive"), ("etag", "kept"))


def test_the_gateways_headers_replace_the_upstreams() -> None:
    given = {"x-ratelimit-limit-requests": "theirs", "content-type": "image/png"}
    assert passed(given, "x-ratelimit-limit-requests") == {"content-type": "image/png"}
