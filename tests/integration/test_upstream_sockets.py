"""The upstream leg on real sockets, on asyncio's loop and on uvloop; every scenario ends without sockets or tasks."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import stat
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gai_fast.kernels import IMPLEMENTATION
from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, Secret
from gai_fast.model.settings import Peer as PeerSettings
from gai_fast.net.upstream import connection as upstream
from gai_fast.net.upstream.connection import Exchange
from gai_fast.net.upstream.pool import UpstreamPool
from gai_fast.runtime.timers import TimerWheel
from tests.integration.certificates import Authority
from tests.limits import LIMITS
from tests.steady import SteadyLoop
from tests.waiting import SECONDS, until
from tests.wire import reset

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SCENARIO_SECONDS = 2 * SECONDS
PIECE = b"%x\r\n%b\r\n" % (LIMITS.feed_slice, b"x" * LIMITS.feed_slice)

Handler = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[bytes]) -> None:
        self.reader = reader
        self.writer = writer
        self.requests = requests
        self.sent = 0

    async def request(self) -> bytes:
        """Returns the next request; `EOFError` if there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head + await self.reader.readexactly(int(length or 0))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self.sent += len(data)

    def reset(self) -> None:
        reset(self.writer)

    async def until_gone(self) -> None:
        """Returns when the client has closed."""
        try:
            while await self.reader.read(LIMITS.feed_slice):
                pass
        except OSError:
            pass


class Receiver(upstream.Receiver):
    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.ends: list[Error | None] = []
        self.changed = asyncio.Event()

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self.changed.set()

    def body_received(self, data: bytes) -> None:
        assert not self.ends
        self.body += data
        self.changed.set()

    def exchange_ended(self, error: Error | None) -> None:
        self.ends.append(error)
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def success(self) -> bytes:
        await self.until(lambda: self.ends)
        assert self.ends == [None]
        return bytes(self.body)

    async def failure(self) -> tuple[str, str | None, str | None]:
        await self.until(lambda: self.ends)
        assert len(self.ends) == 1
        assert self.ends[0] is not None
        return self.ends[0].code, self.ends[0].reason, self.ends[0].phase


class Net:
    """Servers and pools of one scenario."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.timers = TimerWheel(asyncio.get_running_loop())
        self.pools: list[UpstreamPool] = []

    @asynccontextmanager
    async def serve(self, handler: Handler, certificate: str | ssl.SSLContext | None = None) -> AsyncIterator[Served]:
        served = Served(handler)
        context = self.authority.server(certificate) if isinstance(certificate, str) else certificate
        served.server = await asyncio.start_server(served.accept, "127.0.0.1", 0, ssl=context, limit=LIMITS.event)
        try:
            yield served
        finally:
            for pool in self.pools:
                await pool.close()
            served.server.close()
            for task in served.tasks:
                task.cancel()
            await asyncio.gather(*served.tasks, return_exceptions=True)
            await served.server.wait_closed()

    def pool(self, served: Served | str, scheme: str = "http", host: str = "127.0.0.1", **options: Any) -> UpstreamPool:
        settings: dict[str, Any] = {
            "connect_timeout": SECONDS,
            "idle_timeout": SECONDS,
            "total_timeout": SECONDS,
            **options,
        }
        counts = {name: settings.pop(name) for name in ("max_connections", "min_idle") if name in settings}
        if scheme == "https":
            settings.setdefault("ca_file", str(self.authority.folder / "ca.pem"))
        url = served if isinstance(served, str) else f"{scheme}://{host}:{served.port}/v1"
        pool = UpstreamPool(PeerSettings(url, **settings), timers=self.timers, **{"max_connections": 10, **counts})
        self.pools.append(pool)
        return pool


class Served:
    """One listening server and what it saw."""

    server: asyncio.Server

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections = 0
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.finished = 0

    @property
    def port(self) -> int:
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(asyncio.get_running_loop().create_task(self._run(Peer(reader, writer, self.requests))))

    async def _run(self, peer: Peer) -> None:
        self.peers.append(peer)
        try:
            await self.handler(peer)
        except (OSError, EOFError):
            pass  # the client went away
        finally:
            self.finished += 1
            peer.writer.transport.abort()
            with suppress(OSError):  # the client's reset, which asyncio would else tell the loop of, now and then
                await peer.writer.wait_closed()

    async def until_finished(self, count: int) -> None:
        await until(lambda: self.finished >= count)


def open_(pool: UpstreamPool, body: bytes = b"{}") -> tuple[Exchange, Receiver]:
    receiver = Receiver()
    return pool.open("POST", "/chat", [("Authorization", "Bearer k")], body, receiver, ANONYMOUS), receiver


def open_sockets() -> int:
    """Sockets of this process."""
    count = 0
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the folder's own descriptor
            count += stat.S_ISSOCK(os.fstat(int(entry.name)).st_mode)
    return count


def on_both_loops(scenario: Callable[[Net], Awaitable[None]]) -> Callable[..., None]:
    """Returns a test that runs the scenario on each loop, bounded in time, and looks for what it left behind."""

    @pytest.mark.parametrize("factory", [SteadyLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def test(factory: Callable[[], asyncio.AbstractEventLoop], authority: Authority) -> None:
        problems: list[Any] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            before = open_sockets()
            net = Net(authority)
            async with asyncio.timeout(SCENARIO_SECONDS):
                await scenario(net)
                for pool in net.pools:
                    assert pool.stats.open == pool.stats.connecting == pool.stats.pending == 0
                assert len(net.timers) == 0
                await until(lambda: len(asyncio.all_tasks()) == 1 and open_sockets() <= before)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        gc.collect()
        assert problems == []

    test.__name__ = scenario.__name__
    return test


# ---- answers ---------------------------------------------------------------------------------------------------------


async def answer_all(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(OK)


@on_both_loops
async def test_an_answer_that_comes_byte_by_byte_is_the_same_answer(net: Net) -> None:
    data = CHUNKED + b"5\r\nhello\r\n7\r\n, world\r\n0\r\nTrailer: x\r\n\r\n"

    async def handler(peer: Peer) -> None:
        assert (await peer.request()).startswith(b"POST /v1/chat HTTP/1.1\r\nHost: 127.0.0.1:")
        for n in range(len(data)):
            await peer.send(data[n : n + 1])
            await asyncio.sleep(0)
        await answer_all(peer)

    async with net.serve(handler) as served:
        pool = net.pool(served)
        _, receiver = open_(pool)
        assert await receiver.success() == b"hello, world"
        assert receiver.headers["content-type"] == "text/event-stream"
        assert await open_(pool)[1].success() == b"ok"
        assert served.connections == 1


@on_both_loops
async def test_one_connection_serves_request_after_request(net: Net) -> None:
    async with net.serve(answer_all) as served:
        pool = net.pool(served)
        for _ in range(50):
            assert await open_(pool)[1].success() == b"ok"
        assert (served.connections, len(served.requests)) == (1, 50)
        assert (pool.stats.reused, pool.stats.idle) == (49, 1)


@on_both_loops
async def test_two_hundred_at_once_share_ten_connections(net: Net) -> None:
    async with net.serve(answer_all) as served:
        pool = net.pool(served, max_connections=10)
        opened = [open_(pool, b"%d" % n) for n in range(200)]
        for _, receiver in opened:
            assert await receiver.success() == b"ok"
        assert (served.connections, len(served.requests)) == (10, 200)


@on_both_loops
async def test_a_large_request_is_sent_whole_and_an_early_answer_ends_its_connection(net: Net) -> None:
    body = b"x" * LIMITS.event
    early = True

    async def handler(peer: Peer) -> None:
        if early:
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(OK)
            await peer.until_gone()
        else:
            assert (await peer.request()).endswith(body)
            await peer.send(OK)

    async with net.serve(handler) as served:
        pool = net.pool(served)
        assert await open_(pool, body)[1].success() == b"ok"
        early = False
        assert await open_(pool, body)[1].success() == b"ok"
        assert served.connections == 2


@on_both_loops
async def test_a_name_with_several_addresses_finds_the_one_that_listens(net: Net) -> None:
    async with net.serve(answer_all) as served:
        assert await open_(net.pool(served, host="localhost"))[1].success() == b"ok"


# ---- pooled connections that are dead --------------------------------------------------------------------------------


@on_both_loops
async def test_a_server_that_closes_after_each_answer_without_saying_so_costs_no_error_and_no_second_request(
    net: Net,
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async with net.serve(handler) as served:
        pool = net.pool(served)
        for n in range(300):
            assert await open_(pool)[1].success() == b"ok"
            await asyncio.sleep(0.001 * (n % 2))
        assert len(served.requests) == 300


@on_both_loops
async def test_a_pooled_connection_that_fails_at_the_next_request_costs_one_retry(net: Net) -> None:
    resets = True

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.reader.readexactly(1)
        if resets:
            peer.reset()

    async with net.serve(handler) as served:
        pool = net.pool(served)
        for resets in (True, False):  # noqa: B007  # the handler reads it
            assert await open_(pool)[1].success() == b"ok"
            assert await open_(pool)[1].success() == b"ok"
            exchange, receiver = open_(pool)
            assert await receiver.success() == b"ok"
            assert not exchange.reused
        assert pool.stats.retried >= 2


# ---- faults ----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_refused_connection_is_reported(net: Net) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        pool = net.pool(f"http://127.0.0.1:{unused.getsockname()[1]}")
        exchange, receiver = open_(pool)
        assert await receiver.failure() == ("network", "connect", "connect")
        assert "Connection refused" in str(receiver.ends[0])
        assert not exchange.sent
        await pool.close()


async def _cut(net: Net, data: bytes, how: str, certificate: str | None = None) -> tuple[Receiver, Any]:
    """Returns an answer that breaks off after `data`."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        await asyncio.sleep(0.02)
        if how == "reset":
            peer.reset()
        elif how == "half-close":
            peer.writer.write_eof()
            await peer.until_gone()

    async with net.serve(handler, certificate) as served:
        _, receiver = open_(net.pool(served, "https" if certificate else "http"))
        failure = await receiver.failure()
        await served.until_finished(1)
        return receiver, failure


@on_both_loops
async def test_an_answer_that_breaks_off_is_reported_after_what_had_come(net: Net) -> None:
    part = CHUNKED + b"5\r\nhello\r\n5\r\nwo"
    for how, reason in (("close", "truncated"), ("half-close", "truncated"), ("reset", "reset")):
        receiver, failure = await _cut(net, part, how)
        assert failure == ("network", reason, None)
        assert receiver.body == b"hellowo"
        _, failure = await _cut(net, b"HTTP/1.1 200 OK\r\nCont", how)
        assert failure == ("network", reason, None)
    receiver, failure = await _cut(net, part, "close", "good")
    assert failure == ("network", "truncated", None)
    assert receiver.body == b"hellowo"


@on_both_loops
async def test_an_answer_that_ends_with_its_connection_is_complete(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nhello")
        if ends_well:
            peer.writer.close()
            await peer.until_gone()

    for certificate, ends_well in ((None, False), (None, True), ("good", True), ("good", False)):
        async with net.serve(handler, certificate) as served:
            pool = net.pool(served, "https" if certificate else "http")
            _, receiver = open_(pool)
            if certificate and not ends_well:  # anybody on the way can end TCP
                assert await receiver.failure() == ("network", "truncated", None)
                assert receiver.body == b"hello"
            else:
                assert await receiver.success() == b"hello"


@on_both_loops
async def test_a_head_without_end_is_cut_off_and_the_connection_closed(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await peer.send(b"X-Filler: " + b"x" * 100 + b"\r\n")

    async with net.serve(handler) as served:
        _, receiver = open_(net.pool(served))
        assert await receiver.failure() == ("provider_unavailable", "head_too_large", None)
        await served.until_finished(1)


@on_both_loops
async def test_a_redirect_is_not_followed(net: Net) -> None:
    async with net.serve(answer_all) as target:

        async def handler(peer: Peer) -> None:
            await peer.request()
            await peer.send(
                b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % target.port
            )
            await peer.until_gone()

        async with net.serve(handler) as served:
            _, receiver = open_(net.pool(served))
            assert await receiver.failure() == ("provider_unavailable", "redirect", None)
            await served.until_finished(1)
        assert target.connections == 0


@on_both_loops
async def test_a_compressed_answer_nobody_asked_for_is_refused(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        assert b"\r\nAccept-Encoding: identity\r\n" in await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 99999\r\n\r\n\x1f\x8b")
        await peer.until_gone()

    async with net.serve(handler) as served:
        _, receiver = open_(net.pool(served))
        assert await receiver.failure() == ("provider_unavailable", "content_encoding", None)
        await served.until_finished(1)


# ---- time ------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_silence_and_slowness_are_timeouts_and_the_server_sees_the_close(net: Net) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n")
        await peer.until_gone()

    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        while not peer.reader.at_eof():
            await peer.send(b"1\r\na\r\n")
            await asyncio.sleep(0.01)

    async with net.serve(silent) as served:
        _, receiver = open_(net.pool(served, idle_timeout=0.2))
        assert await receiver.failure() == ("timeout", "idle", None)
        await served.until_finished(1)
    async with net.serve(slow) as served:
        _, receiver = open_(net.pool(served, idle_timeout=5, total_timeout=0.3))
        assert await receiver.failure() == ("timeout", "total", None)
        await served.until_finished(1)


@on_both_loops
async def test_a_handshake_that_stalls_is_a_connect_timeout_and_can_be_closed(net: Net) -> None:
    async with net.serve(Peer.until_gone) as served:
        _, receiver = open_(net.pool(served, "https", connect_timeout=0.2))
        assert await receiver.failure() == ("timeout", "connect", "connect")
        exchange, silent = open_(net.pool(served, "https"))
        await until(lambda: served.connections >= 2)
        exchange.close()
        await served.until_finished(2)
        assert silent.ends == []


# ---- closing ---------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_the_server_sees_a_close_before_the_head_and_after(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        if served.connections > 1:
            await peer.send(CHUNKED + b"1\r\na\r\n")
        await peer.until_gone()

    for certificate in (None, "good"):
        async with net.serve(handler, certificate) as served:
            pool = net.pool(served, "https" if certificate else "http")
            exchange, receiver = open_(pool)
            await until(lambda: served.requests)
            exchange.close()
            await served.until_finished(1)
            assert (receiver.status, receiver.ends) == (None, [])
            exchange, receiver = open_(pool)
            await receiver.until(lambda receiver=receiver: receiver.body)
            exchange.close()
            await served.until_finished(2)
            assert receiver.ends == []
            assert pool.stats.idle == 0


@on_both_loops
async def test_what_is_closed_while_its_connection_is_made_sends_nothing(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.until_gone()

    async with net.serve(handler) as served:
        pool = net.pool(served, host="localhost")  # its name is looked up first
        for turns in range(2):
            exchange, receiver = open_(pool)
            for _ in range(turns):
                await asyncio.sleep(0)
            exchange.close()
            await until(lambda: pool.stats.connecting == pool.stats.open == 0)
            assert receiver.ends == []
        _, receiver = open_(pool)
        await pool.close()
        assert await receiver.failure() == ("network", "closed", "connect")
        assert not served.requests


@on_both_loops
async def test_a_peer_that_speaks_or_ends_before_it_is_asked_gets_no_request(net: Net) -> None:
    for said in (b"SSH-2.0-x\r\n", b""):
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        peer.send(said)
        peer.shutdown(socket.SHUT_WR)

        async def dial(connected: socket.socket = ours) -> socket.socket:
            return connected

        pool = net.pool("http://localhost:9")
        pool._host.dial = dial
        with peer:
            _, receiver = open_(pool)
            assert await receiver.failure() == ("network", "reset", "connect")
            peer.setblocking(False)
            assert peer.recv(100) == b""


@on_both_loops
async def test_what_is_closed_right_after_its_request_was_sent_ends_its_connection(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.until_gone()

    async with net.serve(handler) as served:
        pool = net.pool(served)  # on this machine: connected to at once
        exchange, receiver = open_(pool)
        assert exchange.sent
        exchange.close()
        await served.until_finished(1)
        assert (pool.stats.open, receiver.ends) == (0, [])
        _, receiver = open_(pool)
        await pool.close()
        assert await receiver.failure() == ("network", "closed", None)
        await served.until_finished(2)


@on_both_loops
async def test_many_closed_at_any_moment_leave_nothing_behind_and_no_byte_reaches_another(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            request = await peer.request()
            name = request.rpartition(b"\r\n\r\n")[2]
            await peer.send(CHUNKED)
            for _ in range(3):
                await peer.send(b"%x\r\n%b\r\n" % (len(name), name))
                await asyncio.sleep(0)
            await peer.send(b"0\r\n\r\n")

    async with net.serve(handler) as served:
        pool = net.pool(served, max_connections=8)
        for n in range(300):
            name = b"<%d>" % n
            exchange, receiver = open_(pool, name)
            for _ in range(n % 23):
                await asyncio.sleep(0)
            if n % 3:
                exchange.close()
                assert receiver.body in (b"", name, name * 2, name * 3)
            else:
                assert await receiver.success() == name * 3


# ---- backpressure ----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_pausing_reaches_the_server_and_no_idle_time_passes(net: Net) -> None:
    pieces = 2 * LIMITS.whole_answer // LIMITS.feed_slice

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        for _ in range(pieces):
            await peer.send(PIECE)
        await peer.send(b"0\r\n\r\n")
        await peer.until_gone()

    for certificate in (None, "good"):
        async with net.serve(handler, certificate) as served:
            pool = net.pool(served, "https" if certificate else "http", idle_timeout=0.3)
            exchange, receiver = open_(pool)
            exchange.pause_reading()  # before there is a connection
            await until(lambda: served.peers and served.peers[0].sent)
            sent = -1
            while sent != served.peers[0].sent:  # until the server is stuck
                sent = served.peers[0].sent
                await asyncio.sleep(0.4)
            assert sent < LIMITS.whole_answer
            assert (receiver.status, receiver.ends) == (None, [])
            exchange.resume_reading()
            await receiver.until(lambda receiver=receiver: receiver.body)
            exchange.pause_reading()
            await asyncio.sleep(0.05)
            had = len(receiver.body)
            await asyncio.sleep(0.4)
            assert len(receiver.body) == had < pieces * LIMITS.feed_slice
            exchange.resume_reading()
            assert len(await receiver.success()) == pieces * LIMITS.feed_slice


# ---- TLS -------------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_certificate_of_a_trusted_authority_is_accepted_for_name_and_address(net: Net) -> None:
    async with net.serve(answer_all, "good") as served:
        for host in ("localhost", "127.0.0.1"):
            pool = net.pool(served, "https", host)
            for _ in range(3):
                assert await open_(pool)[1].success() == b"ok"
        assert served.connections == 2


@on_both_loops
async def test_a_socket_is_lent_only_where_its_bytes_can_be_read(net: Net) -> None:
    """The records of TLS only by the kernels."""

    class Borrower:
        def end_reading(self) -> None: ...

    borrower: Any = Borrower()
    for scheme, certificate in (("http", None), ("https", "good")):
        async with net.serve(answer_all, certificate) as served:
            pool = net.pool(served, scheme)
            assert await open_(pool)[1].success() == b"ok"
            (connection,) = pool._idle
            assert (connection.lend(borrower) >= 0) == (scheme == "http" or IMPLEMENTATION == "native")
            connection.take_back()
            assert await open_(pool)[1].success() == b"ok"
            assert served.connections == 1


@on_both_loops
async def test_every_other_certificate_is_refused_and_nothing_is_sent(net: Net) -> None:
    old = net.authority.server("good")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # these versions are
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    for certificate in ("own", "elsewhere", "expired", old):
        async with net.serve(answer_all, certificate) as served:
            exchange, receiver = open_(net.pool(served, "https"))
            assert await receiver.failure() == ("network", "tls", "connect")
            assert not exchange.sent
            assert served.requests == []
    async with net.serve(answer_all, "good") as served:  # without our authority
        _, receiver = open_(net.pool(served, "https", ca_file=None))
        assert await receiver.failure() == ("network", "tls", "connect")
        assert served.requests == []


@on_both_loops
async def test_tls_towards_a_plain_port_and_the_other_way_round_is_reported(net: Net) -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with net.serve(plain) as served:
        _, receiver = open_(net.pool(served, "https"))
        assert await receiver.failure() == ("network", "tls", "connect")
    async with net.serve(answer_all, "good") as served:
        _, receiver = open_(net.pool(served, "http"))
        code, reason, _ = await receiver.failure()
        assert code == "network"
        assert reason in ("protocol", "truncated", "reset")


# ---- connections that are ready, and those that are about to be closed -----------------------------------------------


@on_both_loops
async def test_connections_are_there_before_the_first_request_and_are_made_again(net: Net) -> None:
    async with net.serve(answer_all) as served:
        pool = net.pool(served, min_idle=3)
        pool.keep_ready()
        await until(lambda: pool.stats.idle == 3)
        exchange, receiver = open_(pool)
        assert exchange.reused
        assert await receiver.success() == b"ok"
        for peer in served.peers[:2]:
            peer.writer.close()
        await until(lambda: (pool.stats.idle, served.connections) >= (3, 5))


@on_both_loops
async def test_an_upstream_that_is_not_there_yet_has_its_connections_once_it_is(net: Net) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        pool = net.pool(f"http://127.0.0.1:{reserved.getsockname()[1]}", min_idle=1)
        pool.keep_ready()
        await until(lambda: not pool.stats.connecting)
        reserved.listen()
        await until(lambda: pool.stats.idle == 1)
        await pool.close()


@on_both_loops
async def test_a_connection_is_retired_before_its_upstream_closes_it(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=1\r\n\r\n"))
        await peer.until_gone()

    async with net.serve(handler) as served:
        pool = net.pool(served)
        assert await open_(pool)[1].success() == b"ok"
        await until(lambda: served.finished == 1)


# ---- through a proxy -------------------------------------------------------------------------------------------------


async def tunnels(peer: Peer) -> None:
    """A proxy that opens every tunnel."""
    head = await peer.reader.readuntil(b"\r\n\r\n")
    peer.requests.append(head)
    host, _, port = head.split()[1].decode().rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    there = asyncio.ensure_future(pump(peer.reader, writer))
    await pump(reader, peer.writer)
    await there


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(LIMITS.feed_slice):
            writer.write(data)
            await writer.drain()
    writer.close()


@on_both_loops
async def test_a_tunnel_leads_to_the_upstream_whose_certificate_is_checked(net: Net) -> None:
    for scheme, certificate in (("http", None), ("https", "good")):
        async with net.serve(tunnels) as proxy, net.serve(answer_all, certificate) as served:
            through = Secret(f"http://user:pass@127.0.0.1:{proxy.port}")
            pool = net.pool(served, scheme, proxy=through)
            for _ in range(2):
                assert await open_(pool)[1].success() == b"ok"
            assert len(proxy.requests) == 1
            assert b"\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n" in proxy.requests[0]
            assert all(b"Proxy-Authorization" not in request for request in served.requests)
            await pool.close()


@on_both_loops
async def test_a_proxy_that_is_silent_is_a_connect_timeout_and_one_that_is_gone_is_reported(net: Net) -> None:
    async with net.serve(lambda peer: peer.until_gone()) as proxy:
        through = Secret(f"http://127.0.0.1:{proxy.port}")
        pool = net.pool("http://api.example.com", proxy=through, connect_timeout=0.2)
        assert await open_(pool)[1].failure() == ("timeout", "connect", "connect")
        await until(lambda: proxy.finished == 1)
    receiver = open_(net.pool("http://api.example.com", proxy=through))[1]
    assert await receiver.failure() == ("network", "connect", "connect")
    assert "check proxy" in str(receiver.ends[0])
