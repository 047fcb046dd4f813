"""The HTTP side of a stream: its head, its bytes, its end, and what its connection tells."""

from __future__ import annotations

import json
from typing import Any, ClassVar, cast

import pytest

from gai_fast.kernels import FastPath
from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error
from gai_fast.model.metrics import AnswerSource
from gai_fast.model.settings import StreamSettings
from gai_fast.net.logs.writer import HTTP_CHUNKS, BodyFraming, ClientCallbacks
from gai_fast.net.stream.session import Session
from gai_fast.server.http.replies import Reply, StreamHead, header_lines
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.requests.stream_response import StreamResponse, _answering
from tests.unit.server.incoming_requests import LOOPBACK, http, incoming


class FakeConnection(ClientTransport):
    is_paused = False
    remote = ""

    def __init__(self) -> None:
        self.bytes = b""
        self.stream: Any = None
        self.limits: dict[str, float] = {}
        self.ends: list[Any] = []

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        return head.to_bytes(header_lines(HTTP_CHUNKS.headers), keep_alive=True), HTTP_CHUNKS

    def lend(self, borrower: FastPath) -> int:
        return -1

    def begin_stream(self, stream: Any, high_water: int, write_timeout: float) -> None:
        self.stream = stream
        self.limits = {"high_water": high_water, "write_timeout": write_timeout}

    def write(self, data: bytes) -> None:
        self.bytes += data

    def answered(self, status: int) -> None:
        self.stream = None
        self.ends.append(status)

    def send(self, reply: Reply) -> None:
        self.stream = None
        self.ends.append(reply)


class FakeSession(ClientCallbacks):
    upstream_headers: ClassVar[list[tuple[str, str]]] = []
    answered_by: AnswerSource | None = None

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.metrics = None

    def client_lost(self) -> None:
        self.calls.append("lost")

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")


class Fixture:
    def __init__(self, *, hold: bool = False, origin: str | None = None) -> None:
        self.connection = FakeConnection()
        page = None if origin is None else {**LOOPBACK, "origin": origin}
        asked = incoming(
            http("POST", "/api/v1/stream", page, client=self.connection), cors_origins=("https://a.example",)
        )
        stream = StreamSettings(client_buffer=1000, write_timeout=7)
        media_type = "application/json" if hold else "text/event-stream"
        self.client = StreamResponse(asked, "sid", media_type, stream, whole=hold)
        self.session = FakeSession()

    def attach(self) -> Fixture:
        self.client.attach(cast(Session, self.session))
        return self

    @property
    def bytes(self) -> bytes:
        return self.connection.bytes


def test_a_stream_does_not_keep_its_requests_body() -> None:
    asked = incoming(http("POST", "/api/v1/stream", body=b"x" * 50, client=FakeConnection()))
    StreamResponse(asked, "sid", "text/event-stream", StreamSettings(), whole=False)
    assert asked.http.body == b""


# ---- the HTTP side ---------------------------------------------------------------------------------------------------


def test_a_stream_is_chunked_and_says_what_proxies_must_know() -> None:
    stream = Fixture().attach()
    stream.client.commit()
    stream.client.write([b"one"])
    stream.client.end([b"two"])
    head, _, body = stream.bytes.partition(b"\r\n\r\n")
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert {
        "content-type: text/event-stream",
        "cache-control: no-cache, no-store, no-transform",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
        "x-request-id: req-1",
        "request-id: req-1",
        "x-gai-stream-id: sid",
        "vary: Origin",
        "transfer-encoding: chunked",
    } <= set(lines)
    assert "connection: close" not in lines
    assert stream.connection.ends == [200]


def test_one_object_has_its_length() -> None:
    stream = Fixture(hold=True).attach()
    stream.client.commit()
    stream.client.end([b"{", b"}"])
    (reply,) = stream.connection.ends
    assert (reply.status, reply.body) == (200, b"{}")
    assert dict(reply.headers) == {
        "content-type": "application/json",
        "cache-control": "no-cache, no-store, no-transform",
        "x-accel-buffering": "no",
        "x-content-type-options": "nosniff",
        "x-request-id": "req-1",
        "request-id": "req-1",
        "x-gai-stream-id": "sid",
        "vary": "Origin",
    }
    assert stream.bytes == b""


def test_the_head_can_go_out_alone() -> None:
    stream = Fixture().attach()
    stream.client.commit()
    assert stream.bytes == b""
    stream.client.flush()
    assert stream.bytes.endswith(b"\r\n\r\n")


def test_a_failure_is_a_response_of_its_own() -> None:
    stream = Fixture().attach()
    stream.client.fail(Error("network"), ())
    (reply,) = stream.connection.ends
    assert reply.status == Error("network").status
    assert json.loads(reply.body)["error"]["code"] == "network"
    assert {("x-gai-stream-id", "sid"), ("vary", "Origin"), ("request-id", "req-1")} <= set(reply.headers)
    assert stream.bytes == b""


def test_the_upstreams_headers_stand_behind_ours_of_other_names() -> None:
    theirs = [("x-ratelimit-limit-requests", "60"), ("vary", "theirs"), ("openai-version", "1")]
    streamed, whole = Fixture().attach(), Fixture(hold=True).attach()
    for stream in (streamed, whole):
        stream.session.upstream_headers = theirs
        stream.client.headers = [("x-ratelimit-limit-requests", "7")]
        stream.client.commit()
        stream.client.end([b"{}"])
    lines = streamed.bytes.decode().split("\r\n")
    (reply,) = whole.connection.ends
    for headers in (lines, [f"{name}: {value}" for name, value in reply.headers]):
        found = [line for line in headers if line.startswith(("x-ratelimit", "vary", "openai"))]
        assert found == ["vary: Origin", "x-ratelimit-limit-requests: 7", "openai-version: 1"]


def test_the_names_of_who_answers_are_headers_whatever_their_characters() -> None:
    for model, is_fallback, written in (("fast", False, "fast"), ("é 50%/x", True, "%C3%A9 50%25/x")):
        streamed, whole = Fixture().attach(), Fixture(hold=True).attach()
        for stream in (streamed, whole):
            stream.session.answered_by = (model, "up", is_fallback, None)
            stream.client.commit()
            stream.client.end([b"{}"])
        (reply,) = whole.connection.ends
        for headers in (streamed.bytes.decode().split("\r\n"), [f"{name}: {value}" for name, value in reply.headers]):
            assert {f"x-gai-model: {written}", "x-gai-upstream: up"} <= set(headers)
            assert ("x-gai-fallback: true" in headers) is is_fallback


def test_the_headers_of_targets_that_take_turns_are_made_once() -> None:
    """Making them takes 5 us."""
    targets = (("m", "east", False), ("m", "west", False), ("m", "east", True))
    first = [_answering(*each) for each in targets]
    assert [each.lines for each in first] == [
        "x-gai-model: m\r\nx-gai-upstream: east\r\n",
        "x-gai-model: m\r\nx-gai-upstream: west\r\n",
        "x-gai-model: m\r\nx-gai-upstream: east\r\nx-gai-fallback: true\r\n",
    ]
    assert all(_answering(*each) is known for each, known in zip(targets, first, strict=True))


def test_what_was_changed_of_the_request_is_in_headers_of_bounded_size() -> None:
    changes = Changes()
    for at in range(90):
        changes.drop(f"tools[{at}].strict")
    changes.adjust("reasoning.effort", "high")
    streamed, whole = Fixture().attach(), Fixture(hold=True).attach()
    for stream in (streamed, whole):
        stream.session.answered_by = ("m", "up", False, changes)
        stream.client.commit()
        stream.client.end([b"{}"])
    (reply,) = whole.connection.ends
    dropped = ",".join([*(f"tools[{at}].strict" for at in range(32)), "+58"])
    for headers in (streamed.bytes.decode().split("\r\n"), [f"{name}: {value}" for name, value in reply.headers]):
        assert {f"x-gai-dropped: {dropped}", "x-gai-adjusted: reasoning.effort=high"} <= set(headers)


@pytest.mark.parametrize("origin", [None, "https://a.example", "https://b.example"])
def test_a_page_of_an_allowed_origin_may_read_the_upstreams_headers(origin: str | None) -> None:
    stream = Fixture(hold=True, origin=origin).attach()
    stream.session.upstream_headers = [
        ("x-ratelimit-limit-requests", "60"),
        ("vary", "theirs"),
        ("openai-version", "1"),
    ]
    stream.client.commit()
    stream.client.end([b"{}"])
    (reply,) = stream.connection.ends
    exposed = [value for name, value in reply.headers if name == "access-control-expose-headers"]
    assert len(exposed) == (origin == "https://a.example")
    assert all(value.endswith(", x-gai-spend-reset, openai-version") for value in exposed)
    assert all(value.count("x-ratelimit-limit-requests") == 1 for value in exposed)


def test_an_error_has_the_upstreams_headers_where_it_is_the_upstreams_own() -> None:
    for details in ({"type": "rate_limit"}, None):
        stream = Fixture().attach()
        stream.session.upstream_headers = [("x-ratelimit-limit-requests", "60")]
        stream.client.fail(Error("rate_limited", details=details), ())
        (reply,) = stream.connection.ends
        assert ("x-ratelimit-limit-requests" in dict(reply.headers)) is (details is not None)


def test_the_connection_is_set_up_for_this_stream_and_its_news_reach_the_session() -> None:
    stream = Fixture().attach()
    assert stream.connection.limits == {"high_water": 1000, "write_timeout": 7}
    assert stream.connection.stream is stream.client
    stream.client.pause_writing()
    stream.client.resume_writing()
    stream.client.connection_lost()
    stream.client.connection_lost()
    assert stream.session.calls == ["pause", "resume", "lost"]


def test_a_client_that_is_slow_already_is_reported_when_the_session_comes() -> None:
    stream = Fixture()
    stream.connection.is_paused = True
    stream.attach()
    assert stream.session.calls == ["pause"]


@pytest.mark.parametrize("fails", [True, False])
def test_a_stream_that_has_ended_hears_no_more(fails: bool) -> None:
    for attached_before in (True, False):
        stream = Fixture()
        stream.connection.is_paused = not attached_before
        if attached_before:
            stream.attach()
        if fails:
            stream.client.fail(Error("network"), ())
        else:
            stream.client.commit()
            stream.client.end([b"x"])
        if not attached_before:
            stream.attach()  # it ended before the engine returned
        stream.client.pause_writing()
        stream.client.resume_writing()
        stream.client.connection_lost()
        assert stream.session.calls == []


def test_a_whole_reply_may_come_instead_of_a_stream() -> None:
    stream = Fixture().attach()
    reply = Reply(204)
    stream.client.reply(reply)
    stream.client.connection_lost()
    assert (stream.connection.ends, stream.session.calls) == ([reply], [])


def test_another_writer_may_take_over_before_the_head() -> None:
    stream = Fixture().attach()
    other = FakeSession()
    stream.client.attach(cast(Session, other))
    stream.client.media_type = "application/x-ndjson"
    stream.client.commit()
    stream.client.flush()
    assert b"content-type: application/x-ndjson\r\n" in stream.bytes
    stream.client.connection_lost()
    assert (stream.session.calls, other.calls) == ([], ["lost"])
