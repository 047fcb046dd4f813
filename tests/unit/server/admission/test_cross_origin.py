"""Which headers a page of an allowed origin may send and read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gai_fast
from gai_fast.server.admission.cross_origin import EXPOSED_HEADERS, USUAL_HEADERS, allowed_headers
from tests.limits import LIMITS

OPENAI_NODE = (
    "authorization,content-type,user-agent,x-stainless-arch,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version"
)
"""What Firefox asks for in the name of openai-node 6."""


@pytest.mark.parametrize(
    ("requested", "allowed"),
    [
        (OPENAI_NODE, OPENAI_NODE.replace(",", ", ")),
        ("User-Agent, X-Mine", "user-agent, x-mine"),
        ("x-mine,\tx-other ,, ", "x-mine, x-other"),
        ("x-mine, no token, f\xf6o, x\x00y, x:y", "x-mine"),
        ("!#$%&'*+.^_`|~", "!#$%&'*+.^_`|~"),
    ],
)
def test_each_requested_name_that_is_a_token_is_allowed(requested: str, allowed: str) -> None:
    assert allowed_headers(requested) == allowed


@pytest.mark.parametrize(
    "name",
    [
        *("*", "cookie", "Host", "forwarded", "X-Forwarded-For", "x-forwarded-anything", "x-real-ip", "via"),
        *("cf-connecting-ip", "true-client-ip", "connection", "keep-alive", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    ],
)
def test_names_of_connections_hosts_and_proxies_are_never_allowed(name: str) -> None:
    assert allowed_headers(f"x-mine, {name}") == "x-mine"
    assert allowed_headers(name) == USUAL_HEADERS


@pytest.mark.parametrize("requested", ["", " , ", "no token"])
def test_without_a_name_the_usual_headers_are_allowed(requested: str) -> None:
    assert allowed_headers(requested) == USUAL_HEADERS


def test_too_many_names_and_too_long_ones_get_the_usual_headers() -> None:
    most = [f"x-{number}" for number in range(LIMITS.preflight_names)]
    assert allowed_headers(",".join(most)) == ", ".join(most)
    assert allowed_headers(",".join([*most, "x-more"])) == USUAL_HEADERS
    longest = "x" * LIMITS.preflight_text
    assert allowed_headers(longest) == longest
    assert allowed_headers(longest + "x") == USUAL_HEADERS


def test_pages_may_read_every_header_of_the_gateways_own() -> None:
    server = Path(gai_fast.__file__).parent / "server"
    named = {name for path in server.rglob("*.py") for name in re.findall(r'"(x-gai-[a-z-]*[a-z])"', path.read_text())}
    assert len(named) >= 5
    assert named - {"x-gai-unsupported", "x-gai-cache", "x-gai-key", "x-gai-approvals"} <= set(
        EXPOSED_HEADERS.split(", ")
    ), "but those of requests"
