"""The channels between a supervisor and a worker: messages however they are cut, and descriptors."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import msgspec
import pytest

from gai_fast.server.workers.link import (
    Link,
    LinkError,
    LinkGone,
    LinkMessages,
    pack,
    receive_connections,
    send_connection,
    send_last,
)
from tests.limits import LIMITS


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    with one, other:
        yield one, other


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_messages_are_found_however_they_are_cut(size: int) -> None:
    data = pack("ready") + pack("counts", 1, {"a": [1, 2.5]}) + pack("failed", 3, "ä")
    messages = LinkMessages()
    found = [each for at in range(0, len(data), size) for each in messages.feed(data[at : at + size])]
    assert found == [["ready"], ["counts", 1, {"a": [1, 2.5]}], ["failed", 3, "ä"]]


@pytest.mark.parametrize(
    "data",
    [(LIMITS.link_message + 1).to_bytes(4, "big"), b"\0\0\0\1\xc1", b"\0\0\0\1\x05"],
    ids=["too long", "no MessagePack", "no list"],
)
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(LinkError):
        list(LinkMessages().feed(data))
    assert len(msgspec.msgpack.encode(5)) == 1


def test_a_full_link_keeps_what_waits_and_loses_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    link, other = Link(pair[0]), pair[1]
    while not link.is_full:
        link.send("settings", b"x" * 100_000)
    link.send("last")
    messages, found = LinkMessages(), []
    while not found or found[-1] != ["last"]:
        found += messages.feed(other.recv(1 << 20))
        link.flush()
    assert not link.is_full
    assert {len(each) for each in found} == {1, 2}


def test_a_link_whose_other_side_is_gone_says_so_after_its_last_words(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    link = Link(pair[0])
    assert list(link.receive()) == []
    pair[1].sendall(pack("failed", 3, "no"))
    pair[1].close()
    words = []
    with pytest.raises(LinkGone):
        words.extend(link.receive())
    link.send("ready")
    assert not link.is_full, "nobody reads it"


def test_connections_keep_their_order_and_their_client(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, its = pair
    clients = []
    for number in range(3):
        client, accepted = socket.socketpair()
        clients.append(client)
        with accepted:
            assert send_connection(ours, accepted)
        client.sendall(b"%d" % number)
    assert send_last(ours)
    taken = list(receive_connections(its))
    assert taken.pop() is None
    for number, connection in enumerate(taken):
        assert connection is not None
        with contextlib.closing(connection):
            assert connection.recv(10) == b"%d" % number
    for client in clients:
        client.close()
    assert list(receive_connections(its)) == []


def test_a_full_channel_and_one_that_nobody_reads_take_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, its = pair
    client, accepted = socket.socketpair()
    with client, accepted:
        while send_connection(ours, accepted):
            pass
        assert not send_last(ours)
        for each in receive_connections(its):
            assert each is not None
            each.close()
        assert send_connection(ours, accepted)
        its.close()
        assert not send_connection(ours, accepted)
        assert not send_last(ours)


def test_a_supervisor_that_is_gone_is_the_end_of_the_connections(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert list(receive_connections(pair[1])) == [None]
