"""Faults of upstreams and of the network to them: rows 1 to 21 of docs/reliability.md."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import socket
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest

from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import BreakerSettings
from tests.faults.bench import Bench, check_chat, check_stream, error_of, fault
from tests.faults.proxy import Faults
from tests.integration.gateway import (
    CHAT,
    DONE,
    FINISH,
    LAST_CHUNK,
    NATIVE,
    SSE_HEAD,
    Peer,
    Response,
    delta,
    joined,
    on_asyncio,
    on_steady_loop,
)
from tests.integration.test_retry import body, claude, closed_port
from tests.limits import LIMITS
from tests.ports import free_port
from tests.waiting import SECONDS, until, until_answered
from tests.wire import chunk

EXHAUSTIVE = os.environ.get("GAI_FAST_EXHAUSTIVE") == "1"
TEXTS = [f"w\u00f6rd {number} " for number in range(20)]
TEXT = "".join(TEXTS)
ANSWER = body(*map(delta, TEXTS), FINISH, DONE)
BEGUN = len(SSE_HEAD) + len(chunk(delta(TEXTS[0])))
"""The bytes of an answer up to the end of its first content."""
END = len(SSE_HEAD) + sum(len(chunk(delta(text))) for text in TEXTS)
"""The bytes of an answer up to the reason why it finished."""
OVERLOADED = b'data: {"error":{"message":"The engine is overloaded","type":"overloaded_error"}}\n\n'
HTML = b"<!doctype html><html><body>secret page of the upstream</body></html>"


def cuts() -> list[int]:
    """Places in the answer: around every edge of a frame and some between, or all of them."""
    if EXHAUSTIVE:
        return list(range(1, len(ANSWER)))
    return sorted({*range(1, len(ANSWER), 97), BEGUN - 1, BEGUN, BEGUN + 1, len(ANSWER) - 1, len(ANSWER) - 6})


def whole_texts(cut: int, line_ends: int) -> str:
    """Returns the text of the whole frames within the first bytes of the answer.

    Args:
        cut: The number of bytes.
        line_ends: Bytes at the end of a frame's HTTP chunk that need not have come.
    """
    at, result = len(SSE_HEAD), ""
    for text in TEXTS:
        at += len(chunk(delta(text)))
        if at - line_ends > cut:
            break
        result += text
    return result


# ---- rows 1 to 6: how an answer comes, and how it breaks -------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "more"), [(NATIVE, {}), (NATIVE, {"resumable": True}), (CHAT, {})], ids=["plain", "durable", "chat"]
)
@pytest.mark.parametrize("then", ["reset", "close"])
@fault(1, 2)
async def test_wherever_an_answer_is_cut_no_half_frame_is_shown_and_one_event_ends_the_stream(
    bench: Bench, path: str, more: dict[str, Any], then: Any
) -> None:
    """Before its first content another target answers; after it the client gets an error."""
    upstream = await bench.sending(ANSWER)
    proxy = await bench.proxy(upstream)
    gateway = await bench.gateway(proxy.url, backup=upstream.url)
    for count, cut in enumerate(cuts(), 1):
        proxy.faults = Faults(after=cut, then=then)
        response = await bench.ask(gateway, path, **more)
        if path == CHAT:
            error = check_chat(response, TEXT)
            result = joined(response.events)
        else:
            events = check_stream(response, TEXT)
            error = next((event["error"] for event in events if event["type"] == "error"), None)
            result = response.text
        assert response.ended
        least, most = whole_texts(cut, len("\r\n")), whole_texts(cut, len("\n\n\r\n"))
        if error is not None:
            assert result in (least, most), "a line whose JSON is whole is one, even without its end"
            assert result
            assert error["code"] == "network"
        elif cut < END:  # nothing of it was shown, and the fallback has answered
            assert not least
            bench.attempts += 1
        assert proxy.connections == count


@pytest.mark.parametrize("frames", [[], [FINISH]])
@pytest.mark.parametrize("query", ["", "?format=openai", "?format=simple", "?framing=ndjson"])
@fault(2)
async def test_an_orderly_end_without_the_end_mark_is_an_error_unless_the_reason_to_finish_was_reported(
    bench: Bench, frames: list[bytes], query: str
) -> None:
    upstream = await bench.sending(body(*map(delta, TEXTS), *frames))
    gateway = await bench.gateway(upstream.url)
    response = await bench.ask(gateway, NATIVE + query)
    assert response.ended
    if query in ("", "?framing=ndjson"):
        check_stream(response, TEXT)
    if frames:
        assert b'"error"' not in response.body
        return
    assert b"[DONE]" not in response.body
    if query != "?format=simple":
        assert error_of(response)["code"] == "network"
    if query == "":
        assert error_of(response)["reason"] == "truncated"


@fault(3)
async def test_an_upstream_that_ends_only_its_own_side_is_truncated_and_its_socket_is_closed(bench: Bench) -> None:
    upstream = await bench.sending(ANSWER)
    proxy = await bench.proxy(upstream, Faults(after=BEGUN, then="half_close"))
    gateway = await bench.gateway(proxy.url)
    response = await bench.ask(gateway)
    events = check_stream(response, TEXT)
    assert events[-2]["error"]["reason"] == "truncated"
    await until(lambda: proxy.left)
    assert gateway.running.engine.upstreams.connections()["up"] == 0


@fault(4, on=on_steady_loop)
async def test_an_upstream_that_stalls_is_a_timeout_with_keep_alives_until_then(bench: Bench) -> None:
    upstream = await bench.sending(ANSWER)
    proxy = await bench.proxy(upstream, Faults(after=BEGUN, then="stall"))
    gateway = await bench.gateway(proxy.url, heartbeat=0.1, idle_timeout=0.45)
    response = await bench.ask(gateway)
    events = check_stream(response, TEXT)
    error = events[-2]["error"]
    assert (error["code"], error["reason"], error["phase"]) == ("timeout", "idle", "mid_stream")
    assert response.body.count(b": ping\n") >= 2
    await until(lambda: proxy.left)


@pytest.mark.parametrize("has_backup", [True, False])
@fault(5, on=on_steady_loop)
async def test_an_upstream_that_never_begins_is_left_for_the_fallback_or_reported(
    bench: Bench, has_backup: bool
) -> None:
    upstream = await bench.sending(ANSWER)
    proxy = await bench.proxy(upstream, Faults(after=len(SSE_HEAD), then="stall"))
    gateway = await bench.gateway(
        proxy.url,
        backup=upstream.url if has_backup else None,
        commit_after=0.05,
        heartbeat=0.1,
        first_event_timeout=0.4,
        idle_timeout=5,
    )
    bench.attempts = int(has_backup)
    response = await bench.ask(gateway)
    events = check_stream(response, TEXT)
    assert response.body.startswith(b": ping\n"), "the head is committed, and kept alive"
    if not has_backup:
        assert (events[0]["error"]["code"], events[0]["error"]["reason"]) == ("timeout", "first_event")
    assert events[-1]["finished"] is has_backup


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("size", [1, 7])
@fault(6)
async def test_an_answer_that_comes_in_single_bytes_is_the_same_answer(bench: Bench, path: str, size: int) -> None:
    upstream = await bench.sending(ANSWER)
    proxy = await bench.proxy(upstream, Faults(slice=size))
    gateway = await bench.gateway(proxy.url)
    response = await bench.ask(gateway, path)
    if path == CHAT:
        assert check_chat(response, TEXT) is None
    else:
        assert check_stream(response, TEXT)[-1]["finished"]
    assert proxy.passed == len(ANSWER)


# ---- rows 7 to 13: what it holds -------------------------------------------------------------------------------------


@fault(7)
async def test_a_line_without_end_is_cut_off_at_its_limit(bench: Bench) -> None:
    sent = 0

    async def handle(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(SSE_HEAD, chunk(delta("a")), chunk(b"data: " + b"x" * 65536))
        while True:
            await peer.send(chunk(b"x" * 65536))
            sent = peer.sent

    bench.may_block = True
    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url)
    response = await bench.ask(gateway)
    events = check_stream(response, "a")
    error = events[-2]["error"]
    assert (error["code"], error["reason"]) == ("provider_unavailable", "event_too_large")
    await upstream.until_finished()
    assert LIMITS.event <= sent <= LIMITS.event + 16 * 1024 * 1024, "the sockets' buffers lie between"


@pytest.mark.parametrize("begins", [False, True])
@fault(8)
async def test_bytes_that_mean_nothing_end_in_one_error(bench: Bench, begins: bool) -> None:
    chance, pieces = random.Random(8), [b""]

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(SSE_HEAD, *([chunk(delta("a"))] if begins else []), chunk(pieces[-1]), LAST_CHUNK)

    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url)
    for seed in range(10_000 if EXHAUSTIVE else 60):
        garbage = chance.randbytes(chance.randint(1, 2000))
        pieces.append(gzip.compress(garbage) if seed % 3 == 0 else garbage)
        response = await bench.ask(gateway)
        if begins:
            assert check_stream(response, "a")[-1]["finished"] is False
        else:
            assert response.status in (502, 503), bytes(response.body)
            assert response.error["code"] != "internal"


@fault(9)
async def test_an_event_whose_json_is_cut_may_have_held_text_and_ends_the_answer(bench: Bench) -> None:
    half = b'data: {"choices":[{"index":0,"delta":{"content":"lo\n\n'
    upstream = await bench.sending(body(delta("a"), half, delta("b"), FINISH, DONE))
    gateway = await bench.gateway(upstream.url)
    response = await bench.ask(gateway)
    check_stream(response, "a")
    error = error_of(response)
    assert (error["code"], error["reason"], error["phase"]) == ("provider_unavailable", "malformed_chunk", "mid_stream")


@fault(9)
async def test_an_event_without_text_that_cannot_be_read_is_warned_of_and_the_third_in_a_row_is_an_error(
    bench: Bench,
) -> None:
    for count in (1, 3):
        upstream = await bench.sending(body(delta("a"), *[b"data: 5\n\n"] * count, delta("b"), FINISH, DONE))
        gateway = await bench.gateway(upstream.url)
        response = await bench.ask(gateway)
        events = check_stream(response, "ab" if count == 1 else "a")
        if count == 1:
            assert [event["reason"] for event in events if event["type"] == "warning"] == ["malformed_chunk"]
            assert events[-1]["finished"]
        else:
            assert error_of(response)["reason"] == "malformed_chunk"


@fault(9)
async def test_in_passthrough_an_event_whose_json_is_cut_ends_the_answer_in_an_error_and_without_an_end_mark(
    bench: Bench,
) -> None:
    half = b'data: {"choices":[{"index":0,"delta":{"content":"lo\n\n'
    upstream = await bench.sending(body(delta("a"), half, delta("b"), FINISH, DONE))
    gateway = await bench.gateway(upstream.url)
    response = await bench.ask(gateway, CHAT)
    assert check_chat(response, "a") is not None
    assert bytes(response.body).startswith(delta("a"))
    assert b"[DONE]" not in response.body


@fault(10)
async def test_a_page_in_place_of_an_answer_is_a_502_or_503_and_shows_nothing_of_it(bench: Bench) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(HTML)
    upstream = await bench.sending(head + HTML)
    gateway = await bench.gateway(upstream.url)
    for path in (NATIVE, CHAT):
        response = await bench.ask(gateway, path)
        assert response.status in (502, 503)
        assert error_of(response)["code"] == "provider_unavailable"
        assert b"secret page" not in response.body


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"type": "rate_limit_exceeded"}, 429, "rate_limited"),
        ({"type": "overloaded_error"}, 503, "overloaded"),
        ({"code": "context_length_exceeded"}, 400, "context_length_exceeded"),
        ({"code": "content_filter"}, 400, "content_filtered"),
        ({"type": "server_error"}, 500, "internal"),
        ({"code": "invalid_api_key"}, 502, "provider_unavailable"),
    ],
)
@pytest.mark.parametrize("has_backup", [True, False])
@fault(11)
async def test_an_error_under_200_has_its_own_status_and_the_fallback_is_asked_where_it_may_do_better(
    bench: Bench, said: dict[str, str], status: int, code: str, has_backup: bool
) -> None:
    error = json.dumps({"error": {"message": "no", **said}}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(error)
    upstream, backup = await bench.sending(head + error), await bench.sending(ANSWER)
    gateway = await bench.gateway(upstream.url, backup=backup.url if has_backup else None)
    response = await bench.ask(gateway)
    if has_backup and code not in ("context_length_exceeded", "content_filtered"):
        bench.attempts = 1
        assert check_stream(response, TEXT)[-1]["finished"]
    else:
        assert (response.status, response.error["code"]) == (status, code)
    assert bench.net.warned("refuses our credentials") == (code == "provider_unavailable")


@pytest.mark.parametrize("has_backup", [True, False])
@pytest.mark.parametrize("model", ["m", "claude"])
@fault(12)
async def test_an_answer_that_begins_with_an_error_has_its_status_or_the_fallback_answers(
    bench: Bench, has_backup: bool, model: str
) -> None:
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    first = body(OVERLOADED) if model == "m" else claude(busy)
    upstream, backup = await bench.sending(first), await bench.sending(ANSWER)
    if has_backup and model == "claude":
        gateway = await bench.gateway(backup.url, backup=upstream.url)  # the spare is not asked: `claude` has none
        await bench.ask(gateway)
        gateway = await bench.gateway(upstream.url)
        has_backup = False
    else:
        gateway = await bench.gateway(upstream.url, backup=backup.url if has_backup else None)
    response = await bench.ask(gateway, model=model)
    if has_backup:
        bench.attempts = 1
        assert check_stream(response, TEXT)[-1]["finished"]
    else:
        assert (response.status, response.error["code"]) == (503, "overloaded")


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@fault(13)
async def test_an_error_after_content_is_reported_in_band_and_nobody_is_asked_again(bench: Bench, path: str) -> None:
    upstream, backup = await bench.sending(body(delta("a"), OVERLOADED)), await bench.sending(ANSWER)
    gateway = await bench.gateway(upstream.url, backup=backup.url, retries=2)
    response = await bench.ask(gateway, path)
    if path == CHAT:
        assert check_chat(response, "a") is not None
    else:
        error = check_stream(response, "a")[-2]["error"]
        assert (error["code"], error["phase"]) == ("overloaded", "mid_stream")
    assert bench.calls == 1


# ---- rows 14 to 21: how it is reached --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "milliseconds"),
    [
        ("retry-after: 7", 7000),
        ("retry-after-ms: 1500", 1500),
        ("retry-after: 1000000000", LIMITS.retry_after_ms),
        ("retry-after: -1", None),
        ("retry-after: soon", None),
        ("x-nothing: 1", None),
    ],
)
@fault(14)
async def test_a_wait_that_an_upstream_asks_for_is_passed_on_within_its_limit_and_nonsense_is_none(
    bench: Bench, header: str, milliseconds: int | None
) -> None:
    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer("429 Too Many Requests", b'{"error":{"message":"no"}}', header)

    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url)
    response = await bench.ask(gateway)
    assert response.status == 429
    assert response.error.get("retry_after_ms") == milliseconds
    assert ("retry-after" in response.headers) is (milliseconds is not None)


@fault(14)
async def test_a_date_to_wait_for_is_a_wait(bench: Bench) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        date = formatdate(time.time() + 60, usegmt=True)
        await peer.answer("429 Too Many Requests", b'{"error":{"message":"no"}}', f"retry-after: {date}")

    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url)
    response = await bench.ask(gateway)
    assert 30_000 < response.error["retry_after_ms"] <= 60_000


@pytest.mark.parametrize("has_backup", [True, False])
@pytest.mark.parametrize(("is_slow", "expected"), [(False, ("network", "dns")), (True, ("timeout", "connect"))])
@fault(15, on=on_asyncio)
async def test_a_name_that_does_not_resolve_in_time_is_reported_or_the_fallback_answers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, has_backup: bool, is_slow: bool, expected: tuple[str, str]
) -> None:
    backup, resolve, go_on = await bench.sending(ANSWER), socket.getaddrinfo, threading.Event()

    def resolver(host: str, *rest: Any, **more: Any) -> Any:
        if host != "up.example":
            return resolve(host, *rest, **more)
        if is_slow:
            go_on.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    spare = backup.url if has_backup else None
    gateway = await bench.gateway("http://up.example", backup=spare, connect_timeout=0.2 if is_slow else 5)
    response = await bench.ask(gateway)
    go_on.set()
    if has_backup:
        assert check_stream(response, TEXT)[-1]["finished"]
    else:
        assert (response.error["code"], response.error["reason"]) == expected


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@fault(17)
async def test_a_redirect_is_not_followed_and_nothing_is_sent_to_the_other_host(bench: Bench, status: int) -> None:
    other = await bench.sending(ANSWER)

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.answer(f"{status} Moved", b"", f"Location: {other.url}/v1/chat/completions")

    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url, retries=2)
    response = await bench.ask(gateway)
    assert (response.error["code"], response.error["reason"]) == ("provider_unavailable", "redirect")
    assert other.peers == []


@fault(18, on=on_steady_loop)
async def test_targets_that_refuse_are_left_alone_and_probed_by_one_request(bench: Bench) -> None:
    breaker = BreakerSettings(failures=3, window=30, open=0.3)
    gateway = await bench.gateway(closed_port(), breaker=breaker, model={"fallback": ()})
    result: list[Response] = [await bench.ask(gateway) for _ in range(5)]
    assert [response.error["code"] for response in result] == ["network"] * 3 + ["provider_unavailable"] * 2
    assert [response.status for response in result] == [502] * 3 + [503] * 2
    assert all("retry-after" in response.headers for response in result[3:])
    assert bench.net.warned("keeps failing") == 1
    await asyncio.sleep(0.35)
    together = await asyncio.gather(*(bench.ask(gateway) for _ in range(4)))
    assert sorted(response.error["code"] for response in together) == ["network"] + ["provider_unavailable"] * 3
    assert bench.net.warned("keeps failing") == 1


@fault(18)
async def test_an_upstream_that_refused_connections_is_probed_as_soon_as_one_can_be_made(bench: Bench) -> None:
    port = free_port()
    breaker = BreakerSettings(failures=1, window=30, open=600)
    gateway = await bench.gateway(f"http://127.0.0.1:{port}", breaker=breaker)
    result = [(await bench.ask(gateway)).error["code"] for _ in range(2)]
    assert result == ["network", "provider_unavailable"]
    assert bench.net.warned("keeps failing") == 1

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        with contextlib.suppress(EOFError):
            while True:
                await peer.request()
                await peer.send(ANSWER)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):

        async def is_back() -> bool:
            return (await bench.ask(gateway)).status == 200

        await until_answered(is_back)


@fault(18)
async def test_an_upstream_that_takes_connections_and_closes_them_is_not_taken_for_being_back(bench: Bench) -> None:
    port, taken = free_port(), 0
    breaker = BreakerSettings(failures=1, window=30, open=600)
    gateway = await bench.gateway(f"http://127.0.0.1:{port}", breaker=breaker)
    assert (await bench.ask(gateway)).error["code"] == "network"
    assert bench.net.warned("keeps failing") == 1

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", port):
        await until(lambda: taken == 4)
        assert (await bench.ask(gateway)).error["reason"] == "breaker_open"


@fault(18)
async def test_an_upstream_that_resets_every_connection_is_a_network_error(bench: Bench) -> None:
    upstream = await bench.sending(ANSWER)
    proxy = await bench.proxy(upstream, Faults(is_down=True))
    gateway = await bench.gateway(proxy.url)
    response = await bench.ask(gateway)
    assert (response.status, response.error["code"]) == (502, "network")


@fault(19)
async def test_an_upstream_without_pace_is_read_only_as_fast_as_its_client(bench: Bench) -> None:
    async def handle(peer: Peer) -> None:
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        await peer.request()
        await peer.send(SSE_HEAD)
        frame = chunk(delta("x" * 1000)) * 64
        while True:
            await peer.send(frame)

    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url, client_buffer=65536)
    client = await bench.net.connect(gateway.host, receive_buffer=65536)
    bench.asked += 1
    client.pause()
    client.request("POST", NATIVE, {"query": "hi", "model": "m"})
    sent = -1
    async with asyncio.timeout(SECONDS):
        while not upstream.peers or upstream.peers[0].sent != sent or not sent:
            sent = upstream.peers[0].sent if upstream.peers else -1
            await asyncio.sleep(0.1)
    assert gateway.unsent <= 65536 + 256 * 1024, "one read of the upstream may lie above the limit"
    client.reset()


@fault(20, on=on_steady_loop)
async def test_a_pooled_connection_that_its_upstream_has_closed_costs_no_error_and_no_second_generation(
    bench: Bench,
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(ANSWER)
        await asyncio.sleep(0)

    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url)
    for _ in range(1000 if EXHAUSTIVE else 50):
        assert check_stream(await bench.ask(gateway), TEXT)[-1]["finished"]
    assert bench.calls == bench.asked


@fault(20, on=on_steady_loop)
async def test_a_pooled_connection_that_dies_costs_one_more_request_which_counts_as_a_retry(bench: Bench) -> None:
    """The upstream may have been at work, so the log and the metrics name it."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(ANSWER)
        await peer.request()

    upstream = await bench.upstream(handle)
    gateway = await bench.gateway(upstream.url, retries=0)
    ends: list[StreamMetrics] = []
    gateway.running.engine.sinks.append(SimpleNamespace(stream_ended=ends.append))
    for _ in range(3):
        assert check_stream(await bench.ask(gateway), TEXT)[-1]["finished"]
    assert [end.retries for end in ends] == [0, 1, 1]
    bench.attempts = 2
    assert bench.calls == bench.asked + bench.attempts


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@fault(21)
async def test_an_answer_is_asked_for_uncompressed_and_refused_where_it_is_not(bench: Bench, coding: str) -> None:
    bomb = gzip.compress(b"data: x\n\n" * 200_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: {coding}\r\n".encode()
    upstream = await bench.sending(head + b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb)
    gateway = await bench.gateway(upstream.url)
    response = await bench.ask(gateway)
    assert (response.error["code"], response.error["reason"]) == ("provider_unavailable", "content_encoding")
    assert b"accept-encoding: identity" in upstream.peers[0].head.lower()
