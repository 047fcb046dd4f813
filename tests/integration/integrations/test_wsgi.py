"""`gai_fast/integrations/wsgi.py` and Django under WSGI: real applications on gunicorn, which forks and has threads."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import gai_fast
from gai_fast.integrations import wsgi
from tests.integration.gateway import Net, on_uvloop
from tests.integration.integrations.stacks import Served

pytest.importorskip("flask")
pytest.importorskip("bottle")
pytest.importorskip("gunicorn")
ROOT = Path(__file__).parents[3]
EVERY_APP = pytest.mark.parametrize("app", ["plain", "flask", "bottle", "django", "django/sync"])


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """Yields the address of a gunicorn whose application was imported before it forked."""
    with socket.create_server(("127.0.0.1", 0)) as listening, gunicorn(listening) as process:
        assert process.poll() is None
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def gunicorn(listening: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    options = ["--preload", "--threads", "8", "--workers", "1", "--log-level", "error", "--graceful-timeout", "1"]
    command = [sys.executable, "-m", "gunicorn", *options, "--bind", f"fd://{listening.fileno()}"]
    process = subprocess.Popen(
        [*command, "tests.integration.integrations.wsgi_site:application"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=[listening.fileno()],
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def outcomes(served: Served) -> list[str]:
    return (await served.ask("outcomes")).body.decode().split("\n")


async def hears(served: Served, word: str, times: int = 1) -> None:
    """Returns once sources have said a word so often."""
    for _ in range(1000):
        if (await outcomes(served)).count(word) >= times:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{word!r} was not said {times} times: {await outcomes(served)}")


@EVERY_APP
@on_uvloop
async def test_items_are_sent_as_in_every_other_framework(net: Net, host: str, app: str) -> None:
    served = Served(net, host)
    for route in ("texts", "async"):
        response = await served.ask(f"{app}/{route}")
        assert response.status == 200
        assert bytes(response.body) == b"data: Hel\n\ndata: lo\n\n"
        assert response.ended
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache, no-store, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
    assert "one thread" in await outcomes(served)
    assert bytes((await served.ask(f"{app}/lines")).body) == b'{"n":1}\n[2,null]\n'


@EVERY_APP
@on_uvloop
async def test_a_source_that_fails_is_reported(net: Net, host: str, app: str) -> None:
    served = Served(net, host)
    late = await served.ask(f"{app}/failing")
    assert late.types == ["text.delta", "error", "done"]
    assert b"sk-secret" not in late.body
    early = await served.ask(f"{app}/early")
    assert early.status == 200
    assert b"event: error" in early.body
    assert b"rate_limited" in early.body


@EVERY_APP
@on_uvloop
async def test_an_item_is_sent_when_it_comes_and_silence_has_heartbeats(net: Net, host: str, app: str) -> None:
    served = Served(net, host)
    client, response = await served.get(f"{app}/silent")
    await response.until(b"data: first\n\n: ping\n: ping\n")
    client.close()
    await hears(served, "async closed")


@EVERY_APP
@on_uvloop
async def test_a_client_that_leaves_closes_a_plain_source(net: Net, host: str, app: str) -> None:
    served = Served(net, host)
    closed = (await outcomes(served)).count("plain closed")
    client, response = await served.get(f"{app}/endless")
    await response.until(b"data: more\n\ndata: more\n\n")
    client.close()
    await hears(served, "plain closed", closed + 1)


@on_uvloop
async def test_a_source_that_blocks_is_closed_when_it_returns_and_holds_nobody_up(net: Net, host: str) -> None:
    served = Served(net, host)
    for _ in range(10):  # more than the server has threads
        client, response = await served.get("flask/blocking")
        await response.until(b"data: first\n\n: ping\n")
        client.close()
    assert "blocked closed" not in await outcomes(served)
    await served.ask("release")
    await hears(served, "blocked closed", 10)


@on_uvloop
async def test_a_handler_of_django_asks_the_gateway_and_resumes(net: Net, host: str) -> None:
    served = Served(net, host)
    answers = await asyncio.gather(*(served.ask("django/ask?q=Why") for _ in range(3)))
    assert [answer.types[-1] for answer in answers] == ["done"] * 3
    stream_id = answers[0].headers["x-gai-stream-id"]
    rest = await served.ask("django/ask?q=Why", last_event_id=f"{stream_id}.3")
    assert rest.events == answers[0].events[3:]
    assert (await served.ask("django/ask?q=Why", "HEAD")).status == 200
    assert (await served.ask("django/ask?q=Why", last_event_id="x")).status == 400


WSGI_APPS = pytest.mark.parametrize("app", ["plain", "flask", "bottle"])


@WSGI_APPS
@pytest.mark.parametrize("route", ["handled", "asked"])
@on_uvloop
async def test_a_route_asks_the_gateway_opens_it_and_resumes(net: Net, host: str, app: str, route: str) -> None:
    """By `sse_handler`, and by `sse_response` with `request`."""
    served = Served(net, host)
    answers = await asyncio.gather(*(served.ask(f"{app}/{route}?q=Why", x_request_id="mine") for _ in range(3)))
    assert [answer.types[-1] for answer in answers] == ["done"] * 3
    assert answers[0].headers["x-request-id"] == answers[0].events[0]["request_id"] == "mine"
    place = f"{answers[0].headers['x-gai-stream-id']}."
    rest = await served.ask(f"{app}/{route}?q=Why", last_event_id=f"{place}3")
    assert rest.events == answers[0].events[3:]
    last = answers[0].events[-2]["seq"]
    assert (await served.ask(f"{app}/{route}?q=Why", last_event_id=f"{place}{last}")).status == 204
    asked_nobody = await served.ask(f"{app}/{route}?q=Why", "HEAD")
    assert (asked_nobody.status, bytes(asked_nobody.body)) == (200, b"")
    for query, status in (("q=Why&model=nope", 404), ("q=no", 403)):
        refused = await served.ask(f"{app}/{route}?{query}", x_request_id="mine")
        assert (refused.status, refused.error["request_id"]) == (status, "mine")
        assert refused.headers["content-type"] == "application/json"
    refused = await served.ask(f"{app}/{route}?q=Why", last_event_id="nonsense")
    assert (refused.status, refused.error["reason"]) == (400, "last_event_id")


@pytest.mark.parametrize("path", ["plain/later", "flask/later/part", "bottle/later/part"])
@on_uvloop
async def test_prepare_may_be_async_and_sees_the_frameworks_request(net: Net, host: str, path: str) -> None:
    answer = await Served(net, host).ask(f"{path}?q=Why")
    assert answer.types[-2:] == ["finish", "done"]
    assert answer.headers["content-type"] == "application/x-ndjson"


def test_a_handler_outside_of_a_request_says_how_it_is_called() -> None:
    handler = wsgi.sse_handler(gai_fast.Gateway(), lambda request: {})
    with pytest.raises(RuntimeError, match="a view of Flask or Bottle"):
        handler()
    with pytest.raises(TypeError, match="no keyword 'write_timeout'"):
        wsgi.sse_handler(gai_fast.Gateway(), lambda request: {}, write_timeout=1)
    with pytest.raises(TypeError, match="this is int"):
        wsgi.error_response(gai_fast.NotFound(), request=5)


@pytest.mark.parametrize("app", ["django", "django/sync"])
@on_uvloop
async def test_middleware_of_django_may_change_what_is_sent(net: Net, host: str, app: str) -> None:
    """Such as its own compression, which names itself in the head."""
    served = Served(net, host)
    response = await served.ask(f"{app}/texts", accept_encoding="gzip")
    assert response.headers["content-encoding"] == "gzip"
    assert gzip.decompress(bytes(response.body)) == b"data: Hel\n\ndata: lo\n\n"
    closed = (await outcomes(served)).count("plain closed")
    client, response = await served.get(f"{app}/endless", accept_encoding="gzip")
    await response.until(b"\x1f\x8b")
    client.close()
    await hears(served, "plain closed", closed + 1)


@pytest.mark.parametrize("name", wsgi.UNSUPPORTED)
def test_what_a_response_cannot_do_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"no keyword '{name}'"):
        wsgi.sse_response(iter(()), **{name: 1})


@pytest.mark.parametrize("source", [[], "text", {}, None])
def test_a_source_is_an_async_iterable_or_an_iterator(source: object) -> None:
    with pytest.raises(TypeError, match=f"this is {type(source).__name__}"):
        wsgi.ndjson_response(source)  # type: ignore[arg-type]  # what is tested


def test_closing_waits_for_the_cleanup_of_an_async_source_and_nothing_follows() -> None:
    done = []

    async def source() -> object:
        try:
            yield "a"
            yield "b"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            done.append(True)

    body = wsgi.sse_response(source())
    assert next(body) in {b"data: a\n\n", b"data: a\n\ndata: b\n\n"}
    body.close()
    assert done
    body.close()
    assert list(body) == []


@pytest.mark.parametrize("problem", [KeyboardInterrupt, SystemExit])
def test_a_source_that_would_end_the_process_ends_its_response_alone(
    problem: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """It ended the loop of all responses: each later one waited for ever."""

    async def source() -> object:
        yield "a"
        raise problem

    async def function() -> None:
        raise problem

    async def fine() -> object:
        yield "b"

    for _ in range(2):
        assert b"event: error" in b"".join(wsgi.sse_response(source()))
        with pytest.raises(problem):
            wsgi._wait(wsgi.background_loop(), function())
        assert b"".join(wsgi.sse_response(fine())) == b"data: b\n\n"
    assert "the source of a response failed" in caplog.text
    assert "has tried to end the process" in caplog.text
    caplog.clear()


async def test_a_program_that_pushes_into_a_body_that_is_never_read_hears_of_its_end() -> None:
    stream = gai_fast.Stream()
    await asyncio.to_thread(wsgi.sse_response(stream).close)
    with pytest.raises(gai_fast.Network):
        while True:
            await stream.send("a")
            await asyncio.sleep(0)
