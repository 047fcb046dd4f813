"""The end of a server, breakers, what cannot be sent; `tests/integration/test_pass_through.py` has the rest."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from gai_fast.model.money import UNIT
from gai_fast.model.settings import BreakerSettings, IdentitySettings, KeyLimits, Price
from gai_fast.net.engine.upstreams import Upstreams
from tests.integration.gateway import CHAT, MESSAGES, Net, Peer, on_uvloop
from tests.integration.test_pass_through import bearer, key
from tests.waiting import until
from tests.wire import chunk

LANE = ("/v1/x", "/v1/audio/*", "/v1/rerank")
PRICE = Price(UNIT, UNIT, UNIT, UNIT, UNIT, request=4 * UNIT)
RERANKING = {"model": "m", "query": "q", "documents": ["a" * 40]}


@on_uvloop
async def test_a_server_that_is_stopped_refuses_what_has_no_answer_yet_and_cuts_what_has_begun(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        if b"/v1/x" not in peer.head:
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"a"))
        await peer.until_gone()

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, lane=LANE)
    waiting, begun = await gateway.connect(), await gateway.connect()
    waiting.request("POST", "/p/up/v1/x", {})
    begun.request("POST", "/p/up/v1/audio/y", {})
    response = await (await begun.response()).until(b"a")
    await until(lambda: len(upstream.peers) == 2)
    engine = gateway.running.engine
    assert engine.running == len(engine.transfers) == engine.active["pass_through"] == 2
    engine.disconnect_clients(0.0)
    refused = await (await waiting.response()).rest()
    assert (refused.status, refused.error["reason"]) == (503, "draining")
    assert not (await response.rest()).ended
    assert engine.running == engine.active["pass_through"] == sum(engine.callers.values()) == 0


@on_uvloop
async def test_a_breaker_counts_failures_without_an_answer_and_refuses_as_for_streams(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    upstream = await net.upstream(handler)
    gateway = await net.gateway(upstream, lane=LANE, breaker=BreakerSettings(failures=2, open=1000.0))
    for _ in range(2):
        assert (await gateway.ask("POST", "/p/up/v1/x", {})).error["code"] == "network"
    refused = await gateway.ask("POST", "/p/up/v1/x", {})
    assert (refused.status, refused.error["reason"]) == (503, "breaker_open")
    assert len(upstream.peers) == 2
    net.logged.clear()


@on_uvloop
async def test_a_request_of_which_nothing_is_sent_counts_as_little_as_a_stream(net: Net) -> None:
    """An open breaker refuses both: for no limit of the key, with the same headers, and one row of the admin's list."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    callers = [key("ann", limits=KeyLimits(requests_per_minute=10), pass_upstreams=("up",)), key("bob")]
    lanes = {"lane": LANE, "breaker": BreakerSettings(failures=2, open=1000.0)}
    gateway = await net.gateway(await net.upstream(handler), keys=(*callers, key("root", role="admin")), **lanes)
    chat, listed = {"model": "m", "messages": MESSAGES}, "/admin/v1/requests?key=ann"
    for name in ("ann", "bob"):
        assert (await gateway.ask("POST", CHAT, chat, bearer(name))).error["code"] == "network"
    refusals = []
    for path, body in ((CHAT, chat), ("/v1/rerank", RERANKING), ("/p/up/v1/x", {})):
        refused = await gateway.ask("POST", path, body, bearer("ann"))
        assert (refused.status, refused.headers["x-ratelimit-remaining-requests"]) == (503, "9")
        refusals.append(refused.headers.keys())
        rows = (await gateway.ask("GET", listed, None, bearer("root"))).json["data"]
        assert len(rows) == 1 + len(refusals)
        assert (rows[0]["outcome"], rows[0]["status"], rows[0]["upstream"]) == ("refused", 503, "up")
    assert refusals == [refusals[0]] * 3
    assert gateway.running.engine.running == 0
    net.logged.clear()


@pytest.mark.interpreted  # it replaces methods
@pytest.mark.parametrize("identity", [None, IdentitySettings(command=("sh", "-c", "echo tok-0123456789"))])
@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize(
    ("problem", "status", "reason"),
    [(OSError(errno.EMFILE, "Too many open files"), 503, "descriptors"), (LookupError("a bug"), 500, "request")],
)
@on_uvloop
async def test_a_request_that_cannot_be_sent_is_answered_and_keeps_no_place(
    net: Net,
    monkeypatch: pytest.MonkeyPatch,
    problem: Exception,
    status: int,
    reason: str,
    attempt: int,
    identity: IdentitySettings | None,
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    send = Upstreams.send_once
    attempts: list[int] = []

    def failing(self: Upstreams, *arguments: Any) -> Any:
        attempts.append(1)
        if len(attempts) >= attempt:  # a request that has waited for its token is sent again
            raise problem
        return send(self, *arguments)

    monkeypatch.setattr(Upstreams, "send_once", failing)
    monkeypatch.setattr(Upstreams, "send_repeated", failing)
    gateway = await net.gateway(await net.upstream(handler), lane=LANE, retries=1, identity=identity)
    refused = await gateway.ask("POST", "/p/up/v1/rerank", {})
    assert (refused.status, refused.error["reason"]) == (status, reason)
    engine = gateway.running.engine
    assert engine.running == sum(engine.callers.values()) == 0
    net.logged.clear()


async def charged_for_broken_answer(net: Net, *sent: bytes) -> list[int]:
    """Returns what a key is charged for a 200 of which the upstream sends some parts."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", *sent)

    gateway = await net.gateway(await net.upstream(handler), lane=LANE, price=PRICE)
    answer = await gateway.ask("POST", "/v1/rerank", RERANKING)
    assert answer.status == 200 or answer.error["code"] == "network"
    await until(lambda: not gateway.running.engine.transfers)
    net.logged.clear()
    return [row.amount for row in await gateway.running.engine.ledger.spend("key")]


@on_uvloop
async def test_an_answer_that_breaks_before_any_of_its_body_came_costs_nothing(net: Net) -> None:
    assert await charged_for_broken_answer(net, b"Content-Length: 500\r\n\r\n") == []


@on_uvloop
async def test_an_answer_that_breaks_before_a_part_was_passed_on_is_charged_as_one_that_was(net: Net) -> None:
    sent = b"Content-Length: 500\r\n\r\n", b"x" * 30
    assert await charged_for_broken_answer(net, *sent) == [4 * UNIT + 11 * UNIT // 10**6]
    counted = b"Content-Length: 500\r\n\r\n", b'{"usage": {"prompt_tokens": 90, "total_tokens": 90}, "data": ['
    assert await charged_for_broken_answer(net, *counted) == [4 * UNIT + 90 * UNIT // 10**6]


@on_uvloop
async def test_an_answer_that_breaks_after_a_part_was_passed_on_is_charged(net: Net) -> None:
    sent = b"Transfer-Encoding: chunked\r\n\r\n", chunk(b"x" * 30)
    assert await charged_for_broken_answer(net, *sent) == [4 * UNIT + 11 * UNIT // 10**6]


@on_uvloop
async def test_an_answer_without_counts_is_charged_for_the_text_of_its_request(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.answer("200 OK", b'{"results": []}', "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler), lane=LANE, price=PRICE)
    answer = await gateway.ask("POST", "/v1/rerank", RERANKING)
    assert (answer.status, answer.headers["x-gai-cost"]) == (200, "4.000011")
