"""A request as a handler gets it: its body, and errors in the shape of its route."""

from __future__ import annotations

import json

import pytest

from gai_fast.model.errors import Error
from tests.unit.server.incoming_requests import LOOPBACK, http, incoming


def test_a_body_is_json_by_its_media_type() -> None:
    json_type = {**LOOPBACK, "Content-Type": "application/json"}
    assert incoming(http("POST", "/", json_type, body=b"0123456789")).json_body() == b"0123456789"
    with pytest.raises(Error) as caught:
        incoming(http("POST", "/", {**LOOPBACK, "Content-Type": "text/plain"}, body=b"{}")).json_body()
    assert (caught.value.status, caught.value.reason) == (415, "content_type")


@pytest.mark.parametrize(
    ("format", "members"),
    [
        ("gai", {"code", "message", "temporary", "retry_after_ms", "request_id"}),
        ("openai", {"message", "type", "param", "code"}),
    ],
)
def test_a_refusal_has_the_shape_of_its_route(format: str, members: set[str]) -> None:
    asked = incoming(http("GET", "/x"), format=format, cors_origins=("https://a.example",))
    reply = asked.refusal(Error("rate_limited", "slow", retry_after_ms=10), [("x-a", "b")], close=True)
    assert json.loads(reply.body)["error"].keys() == members
    assert reply.status == 429
    assert reply.close
    headers = dict(reply.headers)
    assert (headers["x-a"], headers["vary"], headers["retry-after-ms"]) == ("b", "Origin", "10")
    assert headers["x-request-id"] == headers["request-id"] == "req-1"


def test_there_is_one_id_for_headers_bodies_and_the_log() -> None:
    """Defect A21: the id that a body gives a request stood in its answer and not in its line of the access log."""
    request = http("GET", "/x")
    asked = incoming(request)
    assert request.request_id == "req-1"
    request.request_id = "from-the-body"
    assert dict(asked.refusal(Error("not_found", "no")).headers)["x-request-id"] == "from-the-body"


def test_a_json_reply_carries_ids_and_cors() -> None:
    asked = incoming(http("GET", "/"), cors_origins=("https://a.example",))
    reply = asked.json_reply({"a": "é"}, status=202)
    assert (reply.status, reply.body) == (202, '{"a":"é"}'.encode())
    assert ("vary", "Origin") in reply.headers
    assert ("request-id", "req-1") in reply.headers
