"""The client's address behind balancers and proxies: PROXY headers, `X-Forwarded-For`, `Forwarded`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.certificates import Authority
from tests.integration.gateway import NATIVE, Client, Gateway, M, Net, on_both_loops, request_bytes
from tests.integration.websocket import connect
from tests.waiting import until

LINE = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
BINARY = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes((203, 0, 113, 9, 192, 0, 2, 1, 18, 103, 1, 187))
PROXIES = ("127.0.0.0/8",)


class Clients(logging.Handler):
    """Notes the client of each line of the access log."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.clients.append(record.getMessage().split(" ")[0])


@contextmanager
def logged() -> Iterator[Callable[[], list[str]]]:
    """Gives the clients of the access log so far."""
    handler = Clients()
    log = logging.getLogger("gai_fast.access")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield lambda: handler.clients
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


async def passed_on(gateway: Gateway, header: bytes) -> Client:
    """Returns a connection that begins with a header."""
    client = await gateway.connect()
    client.send(header)
    return client


@on_both_loops
@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@pytest.mark.parametrize("header", [LINE, BINARY], ids=["v1", "v2"])
async def test_a_proxy_header_names_the_client_in_every_line(net: Net, header: bytes, fast_lane: str) -> None:
    gateway = await net.gateway(
        await net.mock(deltas=3, rate=0), proxy_protocol=True, forwarded_allow_ips=PROXIES, fast_lane=fast_lane
    )
    with logged() as clients:
        client = await passed_on(gateway, header)
        assert (await client.ask("POST", NATIVE, M)).types[-1] == "done"
        assert (await client.ask("GET", "/healthz")).status == 200
        client.close()
        broken = await passed_on(gateway, header + b"not HTTP\r\n\r\n")
        assert (await broken.response()).status == 400
        broken.close()
        cut = await gateway.connect()
        await cut.send_in_pieces(header + request_bytes(gateway.host, "POST", NATIVE, M), 1)
        assert (await (await cut.response()).rest()).types[-1] == "done"
        cut.close()
        await until(lambda: len(clients()) == 4)
        assert clients() == ["203.0.113.9"] * 4


@on_both_loops
async def test_the_header_stands_before_tls(net: Net, authority: Authority) -> None:
    options = {**authority.pair("good"), "proxy_protocol": True, "forwarded_allow_ips": PROXIES}
    gateway = await net.gateway(await net.mock(deltas=3, rate=0), **options)
    with logged() as clients:
        client = await passed_on(gateway, LINE)
        await client.writer.start_tls(authority.client(), server_hostname="localhost")
        assert (await client.ask("POST", NATIVE, M)).types[-1] == "done"
        client.close()
        plain = await passed_on(gateway, LINE)
        assert (await plain.ask("GET", "/healthz")).error["reason"] == "tls"
        plain.close()
        assert clients() == ["203.0.113.9"] * 2
    await until(lambda: not gateway.is_connected)


@on_both_loops
async def test_a_balancers_connection_without_the_header_is_closed_with_a_reason(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), proxy_protocol=True, forwarded_allow_ips=PROXIES)
    for sent in (
        request_bytes("h", "GET", "/healthz"),
        b"PROXY TCP4 nobody\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x99" + b"x" * 9,
    ):
        client = await passed_on(gateway, sent)
        assert await client.is_closed()
        client.close()
    await until(lambda: not gateway.is_connected)
    assert net.warned("a connection of 127.0.0.1 is closed: it does not begin with a PROXY header") == 1


@on_both_loops
@pytest.mark.parametrize("sent", [b"", b"PROXY TCP4"])
async def test_a_header_that_does_not_come_has_the_time_of_a_head(net: Net, sent: bytes) -> None:
    gateway = await net.gateway(await net.mock(), proxy_protocol=True, forwarded_allow_ips=PROXIES, header_timeout=0.3)
    client = await passed_on(gateway, sent)
    assert await client.is_closed()
    client.close()
    await until(lambda: not gateway.is_connected)
    assert net.warned("its PROXY header was not whole in time") == bool(sent)


@on_both_loops
async def test_any_other_client_is_its_own(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), proxy_protocol=True, forwarded_allow_ips=("10.0.0.0/8",))
    with logged() as clients:
        assert (await gateway.ask("GET", "/healthz", headers={"x-forwarded-for": "1.2.3.4"})).status == 200
        client = await passed_on(gateway, LINE)
        assert (await client.ask("GET", "/healthz")).status == 400
        client.close()
        assert clients() == ["127.0.0.1"] * 2


@on_both_loops
@pytest.mark.parametrize("fast_lane", ["auto", "off"])
async def test_headers_of_proxies_that_are_believed_name_the_client(net: Net, fast_lane: str) -> None:
    gateway = await net.gateway(
        await net.mock(deltas=3, rate=0), forwarded_allow_ips=(*PROXIES, "10.0.0.0/8"), fast_lane=fast_lane
    )
    sent: list[tuple[dict[str, str], str]] = [
        ({"x-forwarded-for": "1.2.3.4, 203.0.113.9, 10.0.0.7"}, "203.0.113.9"),
        ({"forwarded": 'for="[2001:db8::9]:1", for=10.0.0.7'}, "2001:db8::9"),
        ({}, "127.0.0.1"),
    ]
    with logged() as clients:
        for headers, _ in sent:
            assert (await gateway.ask("POST", NATIVE, M, headers)).types[-1] == "done"
            assert (await gateway.ask("GET", "/healthz", headers=headers)).status == 200
        assert clients() == [client for _, client in sent for _ in "ab"]


@on_both_loops
async def test_streams_over_a_websocket_are_their_clients(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=3, rate=0), forwarded_allow_ips=PROXIES)
    with logged() as clients:
        opened = await connect(gateway, x_forwarded_for="203.0.113.9")
        opened.ask("a", **M)
        await opened.until_done("a")
        opened.client.close()
        await until(lambda: len(clients()) == 2)
        assert clients() == ["203.0.113.9"] * 2


@on_both_loops
async def test_a_client_above_the_limit_is_refused_behind_its_header(net: Net) -> None:
    options: dict[str, Any] = {"proxy_protocol": True, "forwarded_allow_ips": PROXIES, "connections": 1}
    gateway = await net.gateway(await net.mock(), **options)
    first = await passed_on(gateway, LINE)
    assert await first.is_open()
    with logged() as clients:
        second = await passed_on(gateway, LINE)
        assert (await second.ask("GET", "/healthz")).status == 503
        second.close()
        assert clients() == ["203.0.113.9"]
    first.close()
