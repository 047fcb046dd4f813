"""How a request becomes a call, and the HTTP side of a stream."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.test_utils import make_mocked_request

from gai_fast.errors import Error
from gai_fast.formats import StreamContext
from gai_fast.net.engine import Call, Engine
from gai_fast.net.session import Clock, Session
from gai_fast.server.router import Incoming
from gai_fast.server.streams import HTTPClient, StreamRoutes, _characters, json_reply
from gai_fast.settings import ModelSettings, ServerSettings, Settings, StreamSettings, UpstreamSettings
from tests.unit.net.fakes import FakeOutput, FakeTime, FakeTransport

UPSTREAM = UpstreamSettings("up", "openai-compatible", "http://127.0.0.1:9/v1")
MODEL = ModelSettings("m", UPSTREAM, "x", StreamSettings(client_buffer=1000, write_timeout=7))
SETTINGS = Settings(upstreams={"up": UPSTREAM}, models={"m": MODEL})


class Transport(FakeTransport):
    """A connection whose limits can be seen."""

    high = 0

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high


class FakeConnection:
    def __init__(self, transport: Transport | None) -> None:
        self.transport = transport
        self.stream: Any = None
        self.writing_paused = False
        self.silence = 0.0
        self.ssl_context = self.peername = self.sockname = None

    def limit_silence(self, seconds: float) -> None:
        self.silence = seconds


class FakeSession:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def client_lost(self) -> None:
        self.calls.append("lost")

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")


class Fixture:
    def __init__(self, *, hold: bool = False, version: Any = HttpVersion11, closing: bool = False) -> None:
        self.transport = Transport()
        self.connection = FakeConnection(self.transport)
        self.time = FakeTime()
        http = make_mocked_request(
            "POST", "/api/v1/stream", version=version, closing=closing, protocol=cast(Any, self.connection)
        )
        self.connection.transport = self.transport  # which the line before has replaced
        incoming = Incoming(http, "/api/v1/stream", "req-1", cors=[("vary", "Origin")])
        context = StreamContext("sid", "req-1", None, "m", Clock(lambda: 0))
        call = Call(model=MODEL, build=cast(Any, None), output=FakeOutput(), hold=hold)
        engine = cast(Engine, SimpleNamespace(timers=self.time))
        self.client = HTTPClient(engine, incoming, context, call, "application/json" if hold else "text/event-stream")
        self.session = FakeSession()

    def attach(self) -> Fixture:
        self.client.attach(cast(Session, self.session))
        return self

    @property
    def bytes(self) -> bytes:
        return b"".join(self.transport.written)


# ---- the HTTP side ---------------------------------------------------------------------------------------------------


async def test_a_stream_is_chunked_and_says_what_proxies_must_know() -> None:
    stream = Fixture().attach()
    stream.client.commit()
    stream.client.write(b"one")
    stream.client.end(b"two")
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
    assert await stream.client.done is None


async def test_one_object_has_its_length() -> None:
    stream = Fixture(hold=True).attach()
    stream.client.commit()
    stream.client.end(b"{}")
    assert b"\r\ncontent-length: 2\r\n" in stream.bytes
    assert b"transfer-encoding" not in stream.bytes
    assert stream.bytes.endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize("options", [{"version": HttpVersion10}, {"closing": True}])
async def test_a_client_that_keeps_no_connection_is_told_so(options: dict[str, Any]) -> None:
    stream = Fixture(**options).attach()
    stream.client.commit()
    stream.client.end(b"two")
    assert b"\r\nconnection: close\r\n" in stream.bytes
    if "version" in options:
        assert stream.bytes.endswith(b"\r\n\r\ntwo")


async def test_the_head_can_go_out_alone() -> None:
    stream = Fixture().attach()
    stream.client.commit()
    assert stream.bytes == b""
    stream.client.flush()
    assert stream.bytes.endswith(b"\r\n\r\n")


async def test_a_failure_is_for_the_route_to_tell() -> None:
    stream = Fixture().attach()
    error = Error("network")
    stream.client.fail(error)
    stream.client.fail(Error("internal"))
    assert await stream.client.done is error
    assert stream.bytes == b""


async def test_the_connection_is_set_up_for_this_stream_and_its_news_reach_the_session() -> None:
    stream = Fixture().attach()
    assert stream.transport.high == 1000
    assert stream.connection.silence == 7
    assert stream.connection.stream is stream.client
    stream.client.pause_writing()
    stream.client.resume_writing()
    stream.client.connection_lost()
    assert stream.session.calls == ["pause", "resume", "lost"]
    assert await stream.client.done is None


async def test_a_client_that_left_or_is_slow_already_is_told_when_the_session_comes() -> None:
    stream = Fixture()
    stream.connection.writing_paused = True
    stream.attach()
    assert stream.session.calls == ["pause"]
    stream = Fixture()
    stream.connection.transport = None
    stream.attach()
    assert stream.session.calls == ["lost"]


async def test_a_client_that_left_before_is_no_client() -> None:
    http = make_mocked_request("POST", "/")
    http.protocol.transport = None
    with pytest.raises(ConnectionResetError):
        HTTPClient(cast(Any, None), Incoming(http, "/", "r"), cast(Any, None), cast(Any, None), "")


async def test_detached_it_hears_no_more_unless_something_is_unsent() -> None:
    stream = Fixture().attach()
    stream.client.commit()
    stream.client.end(b"x")
    stream.client.detach()
    assert stream.session.calls == ["lost"]
    assert stream.connection.stream is stream.client, "who takes the last bytes is still watched"
    stream.client.pause_writing()
    stream.client.connection_lost()
    assert stream.session.calls == ["lost"]
    assert stream.time.armed == 0

    stream = Fixture().attach()
    stream.client.commit()
    stream.client.end(b"x")
    stream.transport.unsent = 0
    stream.client.detach()
    assert stream.connection.stream is None
    assert stream.time.armed == 0


# ---- routes ----------------------------------------------------------------------------------------------------------


def routes(**server: Any) -> StreamRoutes:
    import dataclasses

    settings = dataclasses.replace(SETTINGS, server=ServerSettings(**server))
    return StreamRoutes(Engine(settings, asyncio.get_running_loop()))


def get(query: dict[str, str], **more: Any) -> Incoming:
    headers = more.pop("headers", {})
    return Incoming(make_mocked_request("GET", "/api/v1/stream", headers=headers), "/", "r", query=query, **more)


async def refusal(table: StreamRoutes, incoming: Incoming) -> tuple[int, str | None]:
    with pytest.raises(Error) as caught:
        await table.event_source(incoming)
    return caught.value.status, caught.value.reason


async def test_a_get_starts_a_stream_only_where_that_is_allowed() -> None:
    assert await refusal(routes(), get({"q": "hi"})) == (403, "get_start")
    table = routes(allow_get_start=True)
    assert await refusal(table, get({"q": "hi"}, is_foreign=True)) == (403, "origin")
    assert await refusal(table, get({})) == (400, "query")
    assert await refusal(table, get({"q": ""})) == (400, "query")
    assert await refusal(table, get({"q": "hi", "model": "nobody"})) == (404, "model")


async def test_an_event_source_that_comes_back_is_sent_away_for_good() -> None:
    for last in ("abc.3", ""):
        reply = await routes(allow_get_start=True).event_source(get({"q": "hi"}, headers={"Last-Event-ID": last}))
        assert reply.status == 204
        assert dict(reply.headers)["x-request-id"] == "r"  # type: ignore[union-attr]  # a Reply


async def test_cancelling_needs_a_stream_that_runs() -> None:
    table = routes()
    cancelled: list[str] = []
    table._engine.streams["known"] = cast(Session, SimpleNamespace(cancel=lambda: cancelled.append("known")))
    reply = await table.cancel(get({}, tail="known"))
    assert (reply.status, json.loads(reply.body)) == (202, {"id": "known", "state": "cancelled"})
    assert cancelled == ["known"]
    for name in ("unknown", "", "known/"):
        with pytest.raises(Error) as caught:
            await table.cancel(get({}, tail=name))
        assert caught.value.code == "not_found"
        with pytest.raises(Error) as caught:
            await table.follow(get({}, tail=name))
        assert caught.value.code == "not_found"
    with pytest.raises(Error) as caught:
        await table.follow(get({}, tail="known"))
    assert caught.value.code == "unsupported"
    with pytest.raises(Error) as caught:
        await table.start(get({}))
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("messages", "characters"),
    [
        (None, 0),
        ("abc", 3),
        ([{"role": "user", "content": "abc"}, {"role": "user", "content": [{"type": "text", "text": "de"}]}], 5),
        ([{"role": "user", "content": None}, 7, ["x"]], 1),
        ({"content": {"text": "abc"}}, 3),
    ],
)
def test_the_characters_of_messages_of_any_shape(messages: Any, characters: int) -> None:
    assert _characters(messages) == characters


def test_a_json_reply_carries_ids_and_cors() -> None:
    reply = json_reply(get({}, cors=[("vary", "Origin")]), {"a": "é"}, status=202)
    assert (reply.status, reply.body) == (202, '{"a":"é"}'.encode())
    assert ("vary", "Origin") in reply.headers
    assert ("request-id", "r") in reply.headers
