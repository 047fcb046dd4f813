"""One request as every route gets it."""

from __future__ import annotations

import pytest

from gai_fast.model.settings import ANONYMOUS, KeySettings
from gai_fast.server.http.request import headers_too_large
from tests.unit.server import incoming_requests


def test_the_caller_of_a_request_has_the_name_of_its_key() -> None:
    request = incoming_requests.http("GET", "/")
    assert request.caller == ANONYMOUS
    request.set_key(KeySettings("alice", ()))
    assert request.caller == "alice"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/a@b?q=1", "/v1/a@b"),
        ("http://me:sk-canary@host:80/v1/a@b?q=1", "http://host:80/v1/a@b"),
        ("http://sk-canary@host", "http://host"),
        ("http://me:sk@canary@host/x://y", "http://host/x://y"),
        ("http://me:sk?canary@host/x?q=1", "http://host/x"),
        ("http://host?q=a", "http://host"),
        ("me:sk-canary@host:443", "host:443"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_logs_get_no_query_and_no_credentials(target: str, shown: str) -> None:
    assert incoming_requests.http("GET", target).shown_path == shown


def test_a_head_that_is_too_large_is_an_error_of_the_client() -> None:
    error = headers_too_large()
    assert (error.code, error.reason, error.status) == ("invalid_request", "headers_too_large", 431)
