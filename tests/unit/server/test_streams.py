"""The way from a request to a spec, and the HTTP side of a stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from gai_fast._impl import FastPath
from gai_fast.errors import Error
from gai_fast.formats import StreamContext
from gai_fast.net.engine import Engine
from gai_fast.net.session import Session
from gai_fast.net.spec import Clock, StreamSpec
from gai_fast.net.writer import HTTP_CHUNKS, BodyFraming
from gai_fast.request import Request
from gai_fast.server.incoming import Incoming
from gai_fast.server.replies import Reply, StreamHead
from gai_fast.server.streams import StreamResponse, StreamRoutes, json_reply
from gai_fast.settings import ModelSettings, ServerSettings, Settings, StreamSettings, UpstreamSettings
from tests.unit.net.fakes import FakeClient, FakeOutput
from tests.unit.server.requests import http, incoming

UPSTREAM = UpstreamSettings("up", "openai-compatible", "http://127.0.0.1:9/v1")
MODEL = ModelSettings("m", UPSTREAM, "x", StreamSettings(client_buffer=1000, write_timeout=7))
SETTINGS = Settings(upstreams={"up": UPSTREAM}, models={"m": MODEL})


class FakeConnection:
    def __init__(self) -> None:
        self.bytes = b""
        self.stream: Any = None
        self.is_paused = False
        self.limits: dict[str, float] = {}
        self.ends: list[Any] = []
        self.remote = ""

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        return head.to_bytes(HTTP_CHUNKS.headers, keep_alive=True), HTTP_CHUNKS

    def lend(self, borrower: FastPath) -> int:
        return -1

    def begin_stream(self, stream: Any, **limits: float) -> None:
        self.stream = stream
        self.limits = limits

    def write(self, data: bytes) -> None:
        self.bytes += data

    def answered(self, status: int) -> None:
        self.stream = None
        self.ends.append(status)

    def send(self, reply: Reply) -> None:
        self.stream = None
        self.ends.append(reply)


class FakeSession:
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
    def __init__(self, *, hold: bool = False) -> None:
        self.connection = FakeConnection()
        asked = incoming(http("POST", "/api/v1/stream", client=self.connection), cors_origins=("https://a.example",))
        context = StreamContext("sid", "req-1", None, "m", Clock(lambda: 0))
        spec = StreamSpec(MODEL, {}, FakeOutput(), hold=hold)
        self.client = StreamResponse(asked, context, spec, "application/json" if hold else "text/event-stream")
        self.session = FakeSession()

    def attach(self) -> Fixture:
        self.client.attach(cast(Session, self.session))
        return self

    @property
    def bytes(self) -> bytes:
        return self.connection.bytes


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
    stream.client.fail(Error("network"))
    (reply,) = stream.connection.ends
    assert reply.status == Error("network").status
    assert json.loads(reply.body)["error"]["code"] == "network"
    assert {("x-gai-stream-id", "sid"), ("vary", "Origin"), ("request-id", "req-1")} <= set(reply.headers)
    assert stream.bytes == b""


def test_the_connection_is_set_up_for_this_stream_and_its_news_reach_the_session() -> None:
    stream = Fixture().attach()
    assert stream.connection.limits == {"high_water": 1000, "write_timeout": 7}
    assert stream.connection.stream is stream.client
    stream.client.pause_writing()
    stream.client.resume_writing()
    stream.client.connection_lost()
    stream.client.connection_lost()
    assert stream.session.calls == ["pause", "resume", "lost"]


def test_a_client_that_is_slow_already_is_told_when_the_session_comes() -> None:
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
            stream.client.fail(Error("network"))
        else:
            stream.client.commit()
            stream.client.end([b"x"])
        if not attached_before:
            stream.attach()  # it ended before the engine returned
        stream.client.pause_writing()
        stream.client.resume_writing()
        stream.client.connection_lost()
        assert stream.session.calls == []


# ---- routes ----------------------------------------------------------------------------------------------------------


def routes(**server: Any) -> StreamRoutes:
    import dataclasses

    settings = dataclasses.replace(SETTINGS, server=ServerSettings(**server))
    return StreamRoutes(Engine(settings, asyncio.get_running_loop()))


def get(query: str = "", tail: str = "", **headers: str) -> Incoming:
    names = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return incoming(http("GET", f"/?{query}", names), tail)


def refusal(table: StreamRoutes, incoming: Incoming) -> tuple[int, str | None]:
    with pytest.raises(Error) as caught:
        table.event_source(incoming)
    return caught.value.status, caught.value.reason


async def test_a_get_starts_a_stream_only_where_that_is_allowed() -> None:
    assert refusal(routes(), get("q=hi")) == (403, "get_start")
    table = routes(allow_get_start=True)
    assert refusal(table, get("q=hi", origin="http://evil.example")) == (403, "origin")
    assert refusal(table, get("q=hi", sec_fetch_site="cross-site")) == (403, "origin")
    assert refusal(table, get()) == (400, "query")
    assert refusal(table, get("q=")) == (400, "query")
    assert refusal(table, get("q=hi&model=nobody")) == (404, "model")


async def test_an_event_source_that_comes_back_is_sent_away_for_good() -> None:
    for last in ("abc.3", ""):
        reply = routes(allow_get_start=True).event_source(get("q=hi", last_event_id=last))
        assert reply is not None
        assert reply.status == 204
        assert dict(reply.headers)["x-request-id"] == "req-1"


async def test_cancelling_needs_a_stream_that_runs() -> None:
    table = routes()
    demo, client = ModelSettings("d", UpstreamSettings("d", "demo", ""), "d"), FakeClient()
    table._engine.start(StreamSpec(demo, Request(query="hi"), FakeOutput()), client, "known", Clock(lambda: 0))
    with pytest.raises(Error) as caught:
        table.follow(get(tail="known"))
    assert caught.value.code == "unsupported"
    reply = table.cancel(get(tail="known"))
    assert (reply.status, json.loads(reply.body)) == (202, {"id": "known", "state": "cancelled"})
    begun, (ended, _) = client.calls
    assert (begun, ended) == ("commit", "end")
    for name in ("unknown", "", "known/", "known"):
        with pytest.raises(Error) as caught:
            table.cancel(get(tail=name))
        assert caught.value.code == "not_found"
        with pytest.raises(Error) as caught:
            table.follow(get(tail=name))
        assert caught.value.code == "not_found"
    with pytest.raises(Error) as caught:
        table.start(get())
    assert caught.value.code == "unsupported"


def test_a_json_reply_carries_ids_and_cors() -> None:
    asked = incoming(http("GET", "/"), cors_origins=("https://a.example",))
    reply = json_reply(asked, {"a": "é"}, status=202)
    assert (reply.status, reply.body) == (202, '{"a":"é"}'.encode())
    assert ("vary", "Origin") in reply.headers
    assert ("request-id", "req-1") in reply.headers
