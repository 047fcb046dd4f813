"""`TLSTransport` on a pair of sockets, with a server that the test plays record by record."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
import uvloop

from gai_fast.kernels import SocketSet
from gai_fast.net.upstream.tls import said
from gai_fast.net.upstream.tls_transport import Handshakes, TLSTransport
from tests.integration.certificates import Authority
from tests.key_updates import update_keys
from tests.limits import LIMITS
from tests.waiting import SECONDS, until


class Receiver:
    """Records its calls."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.reads: list[bytes] = []
        self.calls: list[str] = []
        self.lost: list[Exception | None] = []
        self.on_data: Callable[[], object] = lambda: None
        self.on_made: Callable[[], object] = lambda: None

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")
        self.transport = transport
        self.on_made()

    def data_received(self, data: bytes) -> None:
        assert data
        self.reads.append(data)
        self.on_data()

    def eof_received(self) -> None:
        self.calls.append("eof")
        self.transport.abort()

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.lost.append(exc)


class Server:
    """The upstream's side of one connection."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def receive(self) -> None:
        with suppress(BlockingIOError):
            while data := self.socket.recv(LIMITS.feed_slice):
                self.incoming.write(data)

    async def handshake(self) -> None:
        while True:
            self.receive()
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send()
                await asyncio.sleep(0)
            else:
                self.send()
                return

    def sealed(self, *texts: bytes) -> list[bytes]:
        """Returns the records of each text."""
        records = []
        for text in texts:
            left = text
            while left:
                left = left[self.tls.write(left) :]
            records.append(self.outgoing.read())
        return records

    def send(self) -> None:
        self.socket.send(self.outgoing.read())

    def read(self) -> bytes:
        """Returns what has come."""
        self.receive()
        text = b""
        with suppress(ssl.SSLWantReadError):
            while piece := self.tls.read(LIMITS.feed_slice):
                text += piece
        return text

    async def text(self, size: int) -> bytes:
        text = b""
        while len(text) < size:
            text += self.read()
            await asyncio.sleep(0)
        return text


class Net:
    """The connections of one scenario to one upstream."""

    pairs: ClassVar[list[tuple[socket.socket, socket.socket]]] = []

    def __init__(self, authority: Authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = 0.0
        self.server_context = authority.server("good")
        self.server_context.maximum_version = version
        self.handshakes = Handshakes(self.loop, authority.client(), "localhost", lambda: self.now)

    def begin(
        self, kind: type[socket.socket] = socket.socket
    ) -> tuple[TLSTransport, Receiver, Server, list[Exception | None]]:
        """Begins a connection; the last item is the list of what its handshake came to."""
        end, theirs = socket.socketpair()
        ours = kind(fileno=end.detach())
        ours.setblocking(False)
        self.pairs.append((ours, theirs))
        receiver = Receiver()
        shaken: list[Exception | None] = []
        transport = TLSTransport(self.handshakes, self.loop, ours, receiver, SocketSet(self.loop), shaken.append)
        return transport, receiver, Server(self.server_context, theirs), shaken

    async def connect(self, kind: type[socket.socket] = socket.socket) -> tuple[TLSTransport, Receiver, Server]:
        transport, receiver, server, shaken = self.begin(kind)
        await server.handshake()
        await until(lambda: shaken)
        assert shaken == [None]
        assert receiver.calls == ["made"]
        return transport, receiver, server


def on_both_loops(scenario: Callable[[Authority], Awaitable[None]]) -> Callable[..., None]:
    @pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def test(factory: Callable[[], asyncio.AbstractEventLoop], authority: Authority) -> None:
        problems: list[Any] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            async with asyncio.timeout(2 * SECONDS):
                await scenario(authority)

        Net.pairs.clear()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        gc.collect()
        assert problems == []
        pairs = Net.pairs.copy()
        Net.pairs.clear()
        for _, theirs in pairs:
            theirs.close()
        assert [ours for ours, _ in pairs if ours.fileno() >= 0] == []

    test.__name__ = scenario.__name__
    return test


async def _gone(receiver: Receiver) -> Exception | None:
    await until(lambda: receiver.lost)
    assert receiver.calls.count("lost") == 1
    return receiver.lost[0]


# ---- records ---------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_the_records_of_one_read_are_one_piece(authority: Authority) -> None:
    _, receiver, server = await Net(authority).connect()
    texts = [b"a" * n for n in (1, 250, 4000, 16384, 20000)]
    server.socket.send(b"".join(server.sealed(*texts)))
    await until(lambda: receiver.reads)
    assert receiver.reads == [b"".join(texts)]
    receiver.transport.abort()
    assert await _gone(receiver) is None


@on_both_loops
async def test_a_read_takes_what_the_buffer_holds(authority: Authority) -> None:
    transport, receiver, server = await Net(authority).connect()
    transport.pause_reading()
    server.socket.send(b"".join(server.sealed(b"x" * (5 * LIMITS.tls_record))))
    for _ in range(3):
        transport._readable()
    assert len(b"".join(receiver.reads)) == 5 * LIMITS.tls_record
    transport.abort()
    assert await _gone(receiver) is None


@on_both_loops
async def test_records_that_are_cut_anywhere_give_the_same_text(authority: Authority) -> None:
    _, receiver, server = await Net(authority).connect()
    for cut in range(1, 80):
        first, second = server.sealed(b"one", b"second")
        data = first + second
        receiver.reads.clear()
        server.socket.send(data[:cut])
        for _ in range(3):
            await asyncio.sleep(0)
        server.socket.send(data[cut:])
        await until(lambda: b"".join(receiver.reads) == b"onesecond")
    data = b"".join(server.sealed(b"x" * 300))
    receiver.reads.clear()
    for n in range(len(data)):
        server.socket.send(data[n : n + 1])
        await asyncio.sleep(0)
    await until(lambda: b"".join(receiver.reads) == b"x" * 300)
    receiver.transport.abort()


@on_both_loops
async def test_a_long_answer_comes_in_pieces_between_which_other_connections_are_read(authority: Authority) -> None:
    _, receiver, server = await Net(authority).connect()
    text = bytes(range(256)) * 4096
    for begin in range(0, len(text), 16384):
        (record,) = server.sealed(text[begin : begin + 16384])
        while record:
            try:
                record = record[server.socket.send(record) :]
            except BlockingIOError:
                await asyncio.sleep(0)
    await until(lambda: sum(map(len, receiver.reads)) == len(text))
    assert b"".join(receiver.reads) == text
    assert max(map(len, receiver.reads)) <= LIMITS.tls_read
    receiver.transport.abort()


@on_both_loops
async def test_what_came_before_a_bad_record_is_handed_on_first(authority: Authority) -> None:
    for spoil, reason in ((_bend, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"), (_oversize, "PACKET_LENGTH_TOO_LONG")):
        transport, receiver, server = await Net(authority).connect()
        good, bad = server.sealed(b"good", b"bad")
        server.socket.send(good + spoil(bad))
        problem = await _gone(receiver)
        assert isinstance(problem, ssl.SSLError)
        assert problem.reason == reason
        assert receiver.reads == [b"good"]
        assert transport.is_closing()


def _bend(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


def _oversize(record: bytes) -> bytes:
    return record[:3] + struct.pack(">H", 0xFFFF) + record[5:]


@on_both_loops
async def test_empty_records_by_the_thousand_end_the_connection(authority: Authority) -> None:
    """OpenSSL takes 32 in a row. Only TLS 1.2 sends an empty record that the standard library can make."""
    _, receiver, server = await Net(authority).connect()
    server.socket.send(b"".join(b"\x17\x03\x03\x00\x00" for _ in range(1000)))
    assert isinstance(await _gone(receiver), ssl.SSLError)
    assert receiver.reads == []


# ---- the end ---------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_bug_of_ours_ends_the_connection(authority: Authority) -> None:
    """The loop gets the exception."""
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
    _, receiver, server = await Net(authority).connect()
    receiver.on_data = lambda: 1 // 0
    server.socket.send(server.sealed(b"text")[0])
    assert isinstance(await _gone(receiver), ConnectionAbortedError)
    assert [type(each) for each in problems] == [ZeroDivisionError]


@pytest.mark.interpreted
@on_both_loops
async def test_a_bug_while_the_socket_is_written_ends_the_connection(authority: Authority) -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
    transport, receiver, _ = await Net(authority).connect()
    sent = iter([0])  # the socket takes nothing at first; the next write of it is a bug
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gai_fast.net.sockets.socket_transport._send", lambda *_: next(sent))
        transport.write(b"text" * LIMITS.tls_record)  # more than the one record that the records send themselves
        assert isinstance(await _gone(receiver), ConnectionAbortedError)
    assert [type(each) for each in problems] == [StopIteration]


@on_both_loops
async def test_a_receiver_that_fails_at_its_first_call_ends_the_handshake(authority: Authority) -> None:
    """Requests that waited for the handshake did so until `connect_timeout`."""
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
    _, receiver, server, shaken = Net(authority).begin()
    receiver.on_made = lambda: 1 // 0
    with suppress(BrokenPipeError):  # its ticket is not taken any more
        await server.handshake()
    await until(lambda: shaken)
    assert isinstance(shaken[0], ConnectionAbortedError)
    assert said(shaken[0]) == "the gateway failed to make the handshake"
    assert isinstance(await _gone(receiver), ConnectionAbortedError)
    assert [type(each) for each in problems] == [ZeroDivisionError]


@on_both_loops
async def test_close_notify_is_an_end_and_a_cut_is_not(authority: Authority) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        _, receiver, server = await Net(authority, version).connect()
        server.tls.write(b"last")
        with suppress(ssl.SSLWantReadError):
            server.tls.unwrap()
        server.send()
        assert await _gone(receiver) is None
        assert (receiver.reads, receiver.calls) == ([b"last"], ["made", "eof", "lost"])
        _, receiver, server = await Net(authority, version).connect()
        server.tls.write(b"last")
        server.send()
        server.socket.close()
        assert isinstance(await _gone(receiver), ssl.SSLEOFError)
        assert (receiver.reads, receiver.calls) == ([b"last"], ["made", "lost"])


@on_both_loops
async def test_a_connection_whose_end_came_with_the_answer_takes_no_other_request(authority: Authority) -> None:
    transport, receiver, server = await Net(authority).connect()
    closing: list[bool] = []
    receiver.on_data = lambda: closing.append(transport.is_closing())
    server.socket.send(server.sealed(b"a part")[0])
    await until(lambda: receiver.reads)
    server.tls.write(b"the rest")
    with suppress(ssl.SSLWantReadError):
        server.tls.unwrap()
    server.send()
    assert await _gone(receiver) is None
    assert closing == [False, True]


@on_both_loops
async def test_abort_closes_the_socket_and_calls_nothing_but_the_end(authority: Authority) -> None:
    transport, receiver, server = await Net(authority).connect()
    first, second = server.sealed(b"1", b"2")
    receiver.on_data = transport.abort
    server.socket.send(first)
    await until(lambda: receiver.lost)
    transport.abort()
    transport.write(b"late")
    transport.resume_reading()
    transport.pause_reading()
    assert (receiver.reads, receiver.lost, transport.is_reading()) == ([b"1"], [None], False)
    assert transport.get_extra_info("socket").fileno() < 0
    with suppress(OSError):
        server.socket.send(second)


@on_both_loops
async def test_a_reset_is_reported_as_the_system_tells_it(authority: Authority) -> None:
    _, receiver, server = await Net(authority).connect()
    server.socket.close()
    receiver.transport.write(b"x" * LIMITS.event)
    assert isinstance(await _gone(receiver), OSError)


# ---- backpressure ----------------------------------------------------------------------------------------------------


@on_both_loops
async def test_pausing_stops_the_reads_of_the_socket(authority: Authority) -> None:
    transport, receiver, server = await Net(authority).connect()
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    server.socket.send(server.sealed(b"text")[0])
    for _ in range(20):
        await asyncio.sleep(0)
    assert receiver.reads == []
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    await until(lambda: receiver.reads == [b"text"])
    transport.abort()


@on_both_loops
async def test_a_large_request_waits_for_the_socket_and_arrives_whole(authority: Authority) -> None:
    transport, receiver, server = await Net(authority).connect()
    text = bytes(range(256)) * 8192
    transport.write(text)
    transport.write(b"more")
    assert 0 < transport.get_write_buffer_size() <= len(text) + LIMITS.feed_slice
    assert await server.text(len(text) + 4) == text + b"more"
    assert transport.get_write_buffer_size() == 0
    transport.abort()
    await _gone(receiver)


@on_both_loops
async def test_an_upstream_that_asks_for_new_keys_and_takes_no_answer_is_cut_off(authority: Authority) -> None:
    transport, receiver, server = await Net(authority).connect()
    with suppress(BlockingIOError):
        while transport.get_extra_info("socket").send(bytes(LIMITS.tls_record)):
            pass  # the server reads none of it, so the socket is full
    for _ in range(LIMITS.tls_unsent // 1000):
        if receiver.lost:
            break
        update_keys(server.tls, 100, is_asking=True)
        server.send()
        await asyncio.sleep(0.001)
    problem = await _gone(receiver)
    assert isinstance(problem, ssl.SSLError)
    assert "takes none" in str(problem)


# ---- handshakes ------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_session_is_resumed_until_it_is_too_old(authority: Authority) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        net = Net(authority, version)
        resumed = []
        for after in (0.0, 1.0, 2.0, LIMITS.tls_session, 1.0):
            net.now += after
            transport, receiver, server = await net.connect()
            server.socket.send(server.sealed(b"hello")[0])
            await until(lambda receiver=receiver: receiver.reads)
            resumed.append(server.tls.session_reused)
            transport.abort()
        assert resumed == [False, True, True, False, True]


@on_both_loops
async def test_a_session_is_not_resumed_after_the_end_of_the_certificate(authority: Authority) -> None:
    net = Net(authority)
    end = ssl.cert_time_to_seconds("Jan  1 00:00:00 2000 GMT")

    class Bare:
        session_reused = False

        def getpeercert(self) -> dict[str, str]:
            return {"notAfter": "Jan  1 00:00:00 2000 GMT"}

        def session(self) -> object:
            return object()

    assert end > 0
    bare: Any = Bare()
    assert not net.handshakes.keep(bare, bare, None)
    assert net.handshakes.session() is None


@on_both_loops
async def test_a_session_that_the_upstream_refuses_is_replaced(authority: Authority) -> None:
    net = Net(authority)
    for expected in (False, True):
        transport, receiver, server = await net.connect()
        server.socket.send(server.sealed(b"hello")[0])
        await until(lambda receiver=receiver: receiver.reads)
        assert server.tls.session_reused == expected
        transport.abort()
    net.server_context = authority.server("good")  # with other keys for its tickets
    for expected in (False, True):
        transport, receiver, server = await net.connect()
        server.socket.send(server.sealed(b"hello")[0])
        await until(lambda receiver=receiver: receiver.reads)
        assert server.tls.session_reused == expected
        transport.abort()


@on_both_loops
async def test_a_turn_begins_a_few_handshakes_and_the_newest_first(authority: Authority) -> None:
    net = Net(authority)
    begun = [net.begin() for _ in range(3 * LIMITS.tls_steps)]
    await asyncio.sleep(0)
    hellos = [bool(_peek(server)) for _, _, server, _ in begun]
    assert hellos == [False] * (2 * LIMITS.tls_steps) + [True] * LIMITS.tls_steps
    begun[0][0].abort()  # before it began
    await until(lambda: all(_peek(server) for _, _, server, _ in begun[1:]))
    assert not _peek(begun[0][2])
    for transport, *_ in begun:
        transport.abort()
    for _, receiver, _, shaken in begun:
        assert [type(each) for each in shaken] == [ConnectionAbortedError]
        assert receiver.calls == []


@on_both_loops
async def test_a_handshake_that_is_given_up_before_it_began_takes_no_turn_of_another(authority: Authority) -> None:
    net = Net(authority)
    begun = [net.begin() for _ in range(2 * LIMITS.tls_steps)]
    for transport, *_ in begun[LIMITS.tls_steps :]:  # the newest, whose turn it is first
        transport.abort()
    await asyncio.sleep(0)
    assert [bool(_peek(server)) for _, _, server, _ in begun] == [True] * LIMITS.tls_steps + [False] * LIMITS.tls_steps
    for transport, *_ in begun:
        transport.abort()


def _peek(server: Server) -> bytes:
    with suppress(OSError):
        return server.socket.recv(1, socket.MSG_PEEK)
    return b""


@on_both_loops
async def test_a_handshake_that_fails_is_reported_and_its_socket_closed(authority: Authority) -> None:
    for answer, kind, reason in (
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ssl.SSLError, "WRONG_VERSION_NUMBER"),
        (b"\x15\x03\x03\x00\x02\x02\x28", ssl.SSLError, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        (b"", OSError, None),
    ):
        transport, receiver, server, shaken = Net(authority).begin()
        await until(lambda server=server: _peek(server))
        if answer:
            server.socket.send(answer)
        else:
            server.socket.close()
        await until(lambda shaken=shaken: shaken)
        assert isinstance(shaken[0], kind)
        assert getattr(shaken[0], "reason", None) == reason
        assert (len(shaken), receiver.calls, transport.is_closing()) == (1, [], True)
        assert transport.get_extra_info("socket").fileno() < 0


@on_both_loops
async def test_the_certificate_is_checked_and_the_upstream_gets_the_alert(authority: Authority) -> None:
    for certificate in ("own", "elsewhere", "expired"):
        net = Net(authority)
        net.server_context = authority.server(certificate)
        _, receiver, server, shaken = net.begin()
        with pytest.raises(ssl.SSLError, match="ALERT"):
            await server.handshake()
        await until(lambda shaken=shaken: shaken)
        assert isinstance(shaken[0], ssl.SSLCertVerificationError)
        assert receiver.calls == []


@on_both_loops
async def test_a_handshake_without_end_is_cut_off(authority: Authority) -> None:
    transport, _, server, shaken = Net(authority).begin()
    await until(lambda: _peek(server))
    with suppress(OSError):
        for n in range(100_000):
            # Handshake records of one message that never ends: the first four bytes name 16 MiB.
            head = b"\x02\xff\xff\xff" if not n else b""
            record = head + b"\x03\x03" * 500
            server.socket.send(b"\x16\x03\x03" + struct.pack(">H", len(record)) + record)
            await asyncio.sleep(0)
            if shaken:
                break
    assert isinstance(shaken[0], ssl.SSLError)
    assert transport.is_closing()


@on_both_loops
async def test_an_upstream_that_speaks_first_is_heard(authority: Authority) -> None:
    """Its connection gets bytes that no request asked for, and closes."""
    transport, receiver, server, _ = Net(authority).begin()
    await server.handshake()
    server.socket.send(server.sealed(b"220 ready")[0])
    await until(lambda: receiver.reads)
    assert (receiver.calls, receiver.reads) == (["made"], [b"220 ready"])
    transport.abort()


@on_both_loops
async def test_what_is_known_of_a_connection(authority: Authority) -> None:
    net = Net(authority)
    transport, *_ = net.begin()
    assert transport.get_extra_info("ssl_object", 1) == 1
    transport.abort()
    transport, _, _ = await net.connect()
    assert transport.get_extra_info("sslcontext") is net.handshakes.context
    assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
    assert transport.get_extra_info("peername") is None
    transport.abort()
    await asyncio.sleep(0)
