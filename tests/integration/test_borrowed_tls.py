"""Tokens that come one by one over TLS: a kernel reads their records from the borrowed socket, and nobody can tell."""

from __future__ import annotations

import os
import ssl
from typing import Any

import pytest

from gai_fast.kernels import IMPLEMENTATION
from tests.integration.certificates import Authority
from tests.integration.gateway import Client, Gateway, Net, Response, delta, on_both_loops
from tests.integration.test_borrowed_sockets import WORDS, Paced, ask, failure, lent
from tests.limits import LIMITS
from tests.wire import chunk

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


async def begin(
    net: Net, authority: Authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, **options: Any
) -> tuple[Paced, Gateway, Client, Response]:
    """Returns a stream with borrowed sockets, over TLS to its upstream."""
    paced = Paced()
    context = authority.server("good")
    context.maximum_version = version
    paced.upstream = await net.upstream(paced.handle, context)
    gateway = await net.gateway(paced.upstream, ca_file=str(authority.folder / "ca.pem"), **options)
    return paced, gateway, *await ask(gateway, paced)


def raw(paced: Paced, data: bytes) -> None:
    """Sends bytes past TLS."""
    assert paced.peer is not None
    os.write(paced.peer.writer.transport.get_extra_info("socket").fileno(), data)


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@on_both_loops
async def test_an_answer_comes_whole_and_its_connection_carries_the_next_one(
    net: Net, authority: Authority, version: ssl.TLSVersion
) -> None:
    paced, gateway, client, response = await begin(net, authority, version)
    for _ in range(2):
        await paced.end()
        await response.rest()
        assert response.ended
        assert response.text == "first" + "".join(WORDS)
        assert lent(gateway) == 0
        _, response = await ask(gateway, paced, client)
    assert len(paced.upstream.peers) == 1
    await paced.end()
    await response.rest()


@on_both_loops
async def test_a_burst_of_more_than_a_read_comes_whole(net: Net, authority: Authority) -> None:
    paced, gateway, _, response = await begin(net, authority)
    words = [f"w{number} " for number in range(3 * LIMITS.tls_read // len(delta("w000 ")))]
    await paced.send(b"".join(chunk(delta(word)) for word in words))
    await paced.say(WORDS, response)
    assert lent(gateway) == (IMPLEMENTATION == "native")
    await paced.end()
    await response.rest()
    assert response.text == "first" + "".join(WORDS) + "".join(words) + "".join(WORDS)


@pytest.mark.parametrize(
    ("how", "reason"), [("reset", "reset"), ("notify", "truncated"), ("cut", "truncated"), ("garbage", "tls")]
)
@on_both_loops
async def test_an_upstream_that_breaks_off_is_reported(net: Net, authority: Authority, how: str, reason: str) -> None:
    paced, gateway, _, response = await begin(net, authority)
    assert paced.peer is not None
    await paced.send(chunk(delta("last")))
    if how == "reset":
        await response.until(b"last")  # a reset takes back what has not been read
        paced.peer.reset()
    elif how == "notify":
        paced.peer.writer.close()
    elif how == "cut":
        paced.peer.writer.transport.abort()
    else:
        raw(paced, b"\x17\x03\x03\x00\x20" + bytes(32))
    await response.rest()
    error = failure(response)
    assert (error["code"], error["reason"]) == ("network", reason)
    assert response.text == "first" + "".join(WORDS) + "last"
    assert response.ended
    assert lent(gateway) == 0


@on_both_loops
async def test_a_record_that_is_not_whole_is_waited_for_until_the_upstream_is_given_up(
    net: Net, authority: Authority
) -> None:
    paced, gateway, _, response = await begin(net, authority, idle_timeout=1.0)
    raw(paced, b"\x17\x03\x03\x00\x20" + bytes(8))
    await response.rest()
    assert (failure(response)["code"], failure(response)["reason"]) == ("timeout", "idle")
    assert lent(gateway) == 0
