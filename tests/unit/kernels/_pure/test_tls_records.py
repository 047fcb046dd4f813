"""`TLSRecords`, both implementations: the text of records however the socket brings them, and the end."""

from __future__ import annotations

import os
import socket
import ssl
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from gai_fast.kernels import IMPLEMENTATION, make_tls_records
from gai_fast.kernels._pure import TLSRecords as PureRecords
from tests.integration.certificates import Authority
from tests.key_updates import update_keys
from tests.limits import LIMITS


class Pair:
    """A connection whose handshake is over: the records of the client, and the server that the test plays."""

    def __init__(self, make: Any, client: ssl.SSLContext, server: ssl.SSLContext, session: Any = None) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.from_us, self.to_us = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.server = server.wrap_bio(self.from_us, self.to_us, server_side=True)
        self.records = make(self.tls, self.incoming, self.outgoing, self.ours)
        if session is not None:
            self.records.offer(session)
        for _ in range(4):
            for end in (self.tls, self.server):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
                self.from_us.write(self.outgoing.read())
                self.incoming.write(self.to_us.read())

    def sealed(self, *texts: bytes) -> bytes:
        """Returns the records of the server for these texts."""
        for text in texts:
            left = text
            while left:
                left = left[self.server.write(left) :]
        return self.to_us.read()

    def feed(self, data: bytes) -> bytes:
        """Returns the text once the socket has brought this."""
        self.theirs.send(data)
        return bytes(self.records.receive())


@pytest.fixture(params=["definition", "switch"])
def make(request: pytest.FixtureRequest) -> Any:
    """Makes records: by the definition, and by the implementation in use."""
    return PureRecords if request.param == "definition" else make_tls_records


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def contexts(request: pytest.FixtureRequest, authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = authority.server("good")
    server.maximum_version = request.param
    return authority.client(), server


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Pairs whose sockets are closed at the end."""
    pairs: list[Pair] = []
    yield pairs
    for pair in pairs:
        pair.ours.close()
        pair.theirs.close()


@pytest.fixture
def connect(make: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext], pairs: list[Pair]) -> Any:
    def connected(session: Any = None) -> Pair:
        pairs.append(Pair(make, *contexts, session))
        return pairs[-1]

    return connected


def test_the_native_records_are_used_where_there_are_kernels(authority: Authority, pairs: list[Pair]) -> None:
    pair = Pair(make_tls_records, authority.client(), authority.server("good"))
    pairs.append(pair)
    assert isinstance(pair.records, PureRecords) == (IMPLEMENTATION == "pure")
    # Another layout of CPython's object than the known one: its third field is not the context.
    inner = vars(pair.tls)["_sslobj"]
    unknown: Any = SimpleNamespace(_sslobj=inner, context=authority.client())
    assert isinstance(make_tls_records(unknown, pair.incoming, pair.outgoing, pair.ours), PureRecords)
    small: Any = SimpleNamespace(_sslobj=object(), context=authority.client())
    assert isinstance(make_tls_records(small, pair.incoming, pair.outgoing, pair.ours), PureRecords)


def test_native_records_and_sessions_are_made_by_a_connection_only(connect: Any) -> None:
    pair = connect()
    if isinstance(pair.records, PureRecords):
        return
    pair.records.open()
    with pytest.raises(ValueError, match="open already"):
        pair.records.open()
    pair.feed(pair.sealed(b"with the ticket"))
    for kind in (type(pair.records), type(pair.records.session())):
        for arguments in ((), (None,)):
            with pytest.raises(TypeError):
                kind.__new__(kind, *arguments)


def test_text_comes_with_the_read_that_completes_its_record(connect: Any) -> None:
    pair = connect()
    assert pair.records.open() == b""
    assert pair.records.receive() == b""
    for text in (b"one", b"x" * LIMITS.tls_record, b"y" * (2 * LIMITS.tls_record + 1)):
        assert pair.feed(pair.sealed(text)) == text
    assert not pair.records.has_news


def test_a_read_that_fills_the_buffer_is_full(connect: Any) -> None:
    pair = connect()
    pair.records.open()
    pair.feed(pair.sealed(b"x" * (5 * LIMITS.tls_record)))
    assert pair.records.is_full
    pair.records.receive()
    assert not pair.records.is_full


@pytest.mark.parametrize("step", [1, 7, 100])
def test_records_that_are_cut_give_the_same_text(connect: Any, step: int) -> None:
    pair = connect()
    pair.records.open()
    texts = [b"a", b"b" * 20, b"c" * 300]
    data = pair.sealed(*texts)
    pieces = [pair.feed(data[at : at + step]) for at in range(0, len(data), step)]
    assert b"".join(pieces) == b"".join(texts)
    assert sum(piece != b"" for piece in pieces) <= len(texts)


def test_what_comes_with_the_end_of_the_handshake_is_not_lost(connect: Any) -> None:
    pair = connect()
    data = pair.sealed(b"whole", b"cut")
    pair.incoming.write(data[:-3])
    assert pair.records.open() == b"whole"
    assert pair.feed(data[-3:]) == b"cut"


def test_records_without_text_take_no_memory(authority: Authority, make: Any, pairs: list[Pair]) -> None:
    pair = Pair(make, authority.client(), authority.server("good"))
    pairs.append(pair)
    pair.records.open()
    tracemalloc.start()
    try:
        for _ in range(8):
            update_keys(pair.server, 2000, is_asking=False)
            data = pair.to_us.read()
            assert len(data) < LIMITS.tls_read
            pair.theirs.send(data)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            assert pair.records.receive() == b""
            assert tracemalloc.get_traced_memory()[1] - before < 2 * LIMITS.tls_read
    finally:
        tracemalloc.stop()
    assert pair.feed(pair.sealed(b"text")) == b"text"
    assert not pair.records.has_news


def test_key_updates_that_ask_for_an_answer_are_news(authority: Authority, make: Any, pairs: list[Pair]) -> None:
    """OpenSSL answers each with the next record that it reads or writes."""
    pair = Pair(make, authority.client(), authority.server("good"))
    pairs.append(pair)
    pair.records.open()
    update_keys(pair.server, 2, is_asking=True)
    assert pair.feed(pair.sealed(b"text")) == b"text"
    assert pair.records.has_news
    pair.from_us.write(pair.outgoing.read())
    assert not pair.records.has_news
    if not pair.records.send(b"with the other answer"):
        pair.ours.send(pair.outgoing.read())
    pair.from_us.write(pair.theirs.recv(LIMITS.tls_read))
    assert pair.server.read() == b"with the other answer"


def test_a_proper_end_follows_the_text_before_it(connect: Any) -> None:
    pair = connect()
    pair.records.open()
    pair.server.write(b"last")
    with suppress(ssl.SSLWantReadError):
        pair.server.unwrap()
    assert pair.feed(pair.to_us.read() + b"what follows the end") == b"last"
    pair.theirs.close()
    assert pair.records.receive() == b""  # and the end of the socket behind it is none of TLS
    assert (pair.records.has_ended, pair.records.problem, pair.records.has_news) == (True, None, True)


def test_an_end_of_the_socket_alone_is_a_failure(connect: Any) -> None:
    pair = connect()
    pair.records.open()
    pair.theirs.close()
    assert pair.records.receive() == b""
    assert isinstance(pair.records.problem, ssl.SSLEOFError)
    assert "close_notify" in str(pair.records.problem)
    assert pair.records.has_news


def test_a_bad_record_is_a_failure_after_the_text_before_it(connect: Any) -> None:
    for spoil, reason in ((-1, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"), (3, "PACKET_LENGTH_TOO_LONG")):
        pair = connect()
        pair.records.open()
        good, bad = pair.sealed(b"good"), bytearray(pair.sealed(b"bad"))
        bad[spoil] ^= 0xF0
        assert pair.feed(good + bad) == b"good"
        assert isinstance(pair.records.problem, ssl.SSLError)
        assert pair.records.problem.reason == reason
        assert not pair.records.has_ended


def test_a_broken_socket_is_reported_as_the_system_tells_it(connect: Any) -> None:
    pair = connect()
    pair.records.open()
    pair.theirs.close()
    os.close(pair.ours.detach())
    assert pair.records.receive() == b""
    assert isinstance(pair.records.problem, OSError)


def test_a_session_is_resumed_as_often_as_it_is_offered(connect: Any) -> None:
    first = connect()
    first.records.open()
    first.feed(first.sealed(b"with the ticket"))
    session = first.records.session()
    assert session is not None
    assert not first.tls.session_reused
    for _ in range(3):
        again = connect(session)
        assert again.tls.session_reused
        del again.tls, again.records  # it ends without `close_notify`


def test_there_is_no_session_before_the_ticket(authority: Authority, make: Any, pairs: list[Pair]) -> None:
    server = authority.server("good")
    server.num_tickets = 0
    pair = Pair(make, authority.client(), server)
    pairs.append(pair)
    pair.records.open()
    assert pair.records.session() is None


def test_a_record_is_sent_and_what_the_socket_does_not_take_stays(connect: Any) -> None:
    pair = connect()
    pair.records.open()
    sent = b""
    is_sent = True
    for _ in range(1000):
        text = b"z" * LIMITS.tls_record
        is_sent = pair.records.send(text) and not pair.outgoing.pending
        sent += text
        if pair.outgoing.pending:
            with suppress(BlockingIOError):
                rest = pair.outgoing.read()
                rest = rest[pair.ours.send(rest) :]
                pair.outgoing.write(rest)
                continue
            pair.outgoing.write(rest)
            break
    assert not is_sent
    got = b""
    while len(got) < len(sent):
        with suppress(BlockingIOError):
            while data := pair.theirs.recv(1 << 20):
                pair.from_us.write(data)
        rest = pair.outgoing.read()
        with suppress(BlockingIOError):
            rest = rest[pair.ours.send(rest) :]
        pair.outgoing.write(rest)
        with suppress(ssl.SSLWantReadError):
            while piece := pair.server.read(1 << 20):
                got += piece
    assert got == sent
