"""`gai_fast/net/attempts/error_redaction.py`: secrets that an upstream was sent, and repeats, reach no client."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import Secret, UpstreamSettings
from gai_fast.net.attempts.error_redaction import ErrorRedaction

ONE = UpstreamSettings(
    "one",
    "openai",
    "https://one.example/v1",
    api_key=Secret("sk-canary-1"),
    more_api_keys=(Secret("sk-canary-2"),),
    headers={"x-tenant": "tenant-canary"},
)
TWO = UpstreamSettings("two", "openai", "https://two.example/v1", api_key=Secret("sk-canary-3"))


def test_all_keys_and_headers_of_all_upstreams_are_cut_out() -> None:
    result = ErrorRedaction("two", (ONE, TWO), True)(
        Error("invalid_request", "sk-canary-1, sk-canary-2, tenant-canary, sk-canary-3")
    )
    assert result.message == "***, ***, ***, ***"


def test_bytes_that_quote_a_key_are_not_passed_on() -> None:
    redact, error = ErrorRedaction("one", (ONE,), True), Error("invalid_request", "no such field")
    assert redact(error, b'data: {"error":{},"sent":"Bearer sk-canary-2"}\n\n') is not error
    assert redact(error, b'data: {"error":{}}\n\n') is error


def test_other_errors_are_as_they_were() -> None:
    error = Error("invalid_request", "no such field", details={"param": "x"})
    assert ErrorRedaction("one", (ONE,), True)(error) is error
    assert error.details == {"param": "x"}


def test_an_error_that_means_our_key_names_the_upstream_and_not_the_key() -> None:
    result = ErrorRedaction("two", (ONE, TWO), False)(Error("unauthorized", "wrong key: sk-canary-3", status=401))
    assert result.code == "provider_unavailable"
    assert "upstream 'two' refuses our credentials" in result.message
    assert "canary" not in result.message


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "cannot connect to 10.0.0.7:9000 (Connection refused)",
            "cannot connect to upstream 'it' (Connection refused)",
        ),
        ("no TLS with [10.0.0.7]: check", "no TLS with upstream 'it': check"),
        ("cannot connect to proxy.internal:3128: check", "cannot connect to upstream 'it': check"),
        ("it is at PROXY.internal.", "it is at upstream 'it'."),
        ("110.0.0.7 my-proxy.internal proxy.internal.example", "110.0.0.7 my-proxy.internal proxy.internal.example"),
    ],
)
def test_an_ordinary_caller_reads_the_upstreams_name_in_place_of_its_addresses(message: str, shown: str) -> None:
    proxy = Secret("http://user:sk-canary@proxy.internal:3128")
    upstream = UpstreamSettings("it", "openai", "http://10.0.0.7:9000/v1", proxy=proxy)
    error = Error("network", message, reason="connect", phase="connect", temporary=True)
    result = ErrorRedaction("it", (upstream,), False, shows_addresses=False)(error)
    assert (result.message, str(result), result.reason, result.phase, type(result)) == (
        shown,
        shown,
        "connect",
        "connect",
        type(error),
    )
    assert ErrorRedaction("it", (upstream,), False)(error).message == error.message == message
