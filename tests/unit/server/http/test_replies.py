"""The bytes of a response, and errors as responses."""

from __future__ import annotations

import json
from email.utils import formatdate, parsedate_to_datetime

import pytest

from gai_fast.model.errors import Error
from gai_fast.server.http.replies import (
    CommonHeaders,
    PassedHead,
    PassedReply,
    Reply,
    StreamHead,
    error_headers,
    error_reply,
    head_bytes,
    header_lines,
    http_date,
    id_headers,
    json_headers,
)


def parsed(data: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def test_a_date_is_as_the_standard_library_writes_it() -> None:
    for second in (0, 951_782_399, 1_709_164_800, 1_709_251_199, 1_798_761_599, *range(10**9, 2 * 10**9, 2_500_001)):
        assert http_date(second) == formatdate(second, usegmt=True)


def test_a_head_has_a_date_and_says_when_the_connection_ends() -> None:
    first, headers, _ = parsed(head_bytes(200, [("x-a", "1")], True))
    assert first == "HTTP/1.1 200 OK"
    assert headers.keys() == {"date", "x-a"}
    assert headers["date"].endswith(" GMT")
    assert parsedate_to_datetime(headers["date"])
    first, headers, _ = parsed(head_bytes(529, [], False))
    assert first == "HTTP/1.1 529 Error"
    assert headers["connection"] == "close"


class _Interrupted(str):
    """A media type during whose comparison another thread writes a head with its own."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        is_same = str.__eq__(self, other)
        StreamHead("application/x-ndjson", "r", "s").to_bytes("", keep_alive=True)
        return is_same

    def __ne__(self, other: object) -> bool:
        return not self == other


def test_a_stream_has_its_own_media_type_whatever_other_threads_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gai_fast.server.http.replies._time", lambda: 1.0, raising=True)
    StreamHead("text/event-stream", "r", "s").to_bytes("", keep_alive=True)
    head = StreamHead(_Interrupted("text/event-stream"), "r", "s").to_bytes("", keep_alive=True)
    assert parsed(head)[1]["content-type"] == "text/event-stream"


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\x00", "é", "a\x7f", "\u2028"])
def test_a_header_that_would_break_out_of_its_line_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match="header 'x-a' cannot be written"):
        head_bytes(200, [("x-a", value)], True)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_no_length(status: int) -> None:
    assert "content-length" not in parsed(Reply(status).to_bytes(keep_alive=True))[1]


def test_a_reply_has_the_length_of_its_body_also_where_that_is_not_sent() -> None:
    reply = Reply(200, b"body", [("content-type", "text/plain")])
    for head_only, body in ((False, b"body"), (True, b"")):
        _, headers, sent = parsed(reply.to_bytes(keep_alive=True, head_only=head_only))
        assert headers["content-length"] == "4"
        assert sent == body


def test_an_error_reply_tells_the_request_in_body_and_headers() -> None:
    reply = error_reply(Error("invalid_request", "no", reason="json"), "req-1")
    assert reply.status == 400
    assert json.loads(reply.body) == {
        "error": {
            "code": "invalid_request",
            "message": "no",
            "temporary": False,
            "reason": "json",
            "request_id": "req-1",
        }
    }
    headers = dict(reply.headers)
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == headers["request-id"] == "req-1"
    assert error_reply(Error("internal"), "r", b"own").body == b"own"


@pytest.mark.parametrize(
    ("error", "retry", "after"),
    [
        (Error("rate_limited", retry_after_ms=1), "true", ("1", "1")),
        (Error("rate_limited", retry_after_ms=1500), "true", ("2", "1500")),
        (Error("rate_limited", retry_after_ms=0), "true", ("0", "0")),
        (Error("rate_limited"), "true", None),
        (Error("rate_limited", temporary=False, retry_after_ms=1500), "false", None),
        (Error("invalid_request"), "false", None),
        (Error("internal"), "false", None),
        (Error("internal", phase="first_event"), None, None),
    ],
)
def test_retry_headers_say_what_the_error_says(error: Error, retry: str | None, after: tuple[str, str] | None) -> None:
    headers = dict(error_headers(error, "r"))
    assert headers.get("x-should-retry") == retry
    result = (headers["retry-after"], headers["retry-after-ms"]) if "retry-after" in headers else None
    assert result == after


def test_one_who_has_no_valid_key_is_reported_how_to_send_it() -> None:
    assert dict(error_headers(Error("unauthorized"), "r"))["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in dict(error_headers(Error("forbidden"), "r"))


def test_the_request_id_has_both_names_and_json_is_not_stored() -> None:
    assert id_headers("a") == [("x-request-id", "a"), ("request-id", "a")]
    assert {("content-type", "application/json"), ("cache-control", "no-store"), ("request-id", "a")} <= set(
        json_headers("a")
    )


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_streams_head_is_the_same_as_bytes_and_as_headers(keep_alive: bool) -> None:
    framing = [("transfer-encoding", "chunked")]
    head = StreamHead("text/event-stream", "req-1", "sid", [("vary", "Origin")])
    first, headers, _ = parsed(head.to_bytes(header_lines(framing), keep_alive=keep_alive))
    assert first == "HTTP/1.1 200 OK"
    assert headers.pop("date")
    assert (headers.pop("connection", None) is None) is keep_alive
    assert headers == dict([*head.headers, *framing])
    with pytest.raises(ValueError, match="header 'vary' cannot be written"):
        StreamHead("a/b", "r", "s", [("vary", "\r\n")]).to_bytes("", keep_alive=keep_alive)


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_passed_response_has_the_same_headers_as_bytes_and_as_headers(keep_alive: bool) -> None:
    common = (("content-type", "image/png"), ("x-gai-upstream", "up"))
    head = PassedHead(418, "req-1", "sid", [("x-gai-cost", "1")], CommonHeaders(common))
    assert dict(head.headers) == {
        "x-request-id": "req-1",
        "request-id": "req-1",
        "x-gai-stream-id": "sid",
        "x-gai-cost": "1",
        **dict(common),
    }
    reply = PassedReply(head, b"body", has_length=True)
    assert (reply.status, reply.all_headers) == (418, head.headers)
    for data, framing in (
        (head.to_bytes(header_lines([("transfer-encoding", "chunked")]), keep_alive=keep_alive), "transfer-encoding"),
        (reply.to_bytes(keep_alive=keep_alive), "content-length"),
    ):
        first, headers, _ = parsed(data)
        assert first == "HTTP/1.1 418 I'm a Teapot"
        assert headers.pop("date")
        assert headers.pop(framing) == ("chunked" if framing == "transfer-encoding" else "4")
        assert (headers.pop("connection", None) is None) is keep_alive
        assert headers == dict(head.headers)
    for more, shared in (([("vary", "\r\n")], ()), ([], (("vary", "\r\n"),))):
        with pytest.raises(ValueError, match="header 'vary' cannot be written"):
            PassedHead(200, "r", "s", more, CommonHeaders(shared)).to_bytes("", keep_alive=keep_alive)


def test_a_passed_response_without_a_length_has_none() -> None:
    for status, has_length in ((200, False), (204, True)):
        head = PassedHead(status, "r", "s", (), CommonHeaders(()))
        reply = PassedReply(head, b"", has_length=has_length)
        assert "content-length" not in parsed(reply.to_bytes(keep_alive=True))[1]
