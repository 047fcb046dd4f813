"""`net/sockets/stream_socket.py`: sockets whose family and type are plain numbers."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from gai_fast.net.sockets.stream_socket import NOT_BLOCKING, ListeningSocket, StreamSocket


@pytest.mark.parametrize("kind", [ListeningSocket, StreamSocket])
def test_its_family_and_type_are_the_numbers_of_the_constants(kind: type[socket.socket]) -> None:
    with contextlib.closing(kind(socket.AF_INET6, socket.SOCK_STREAM)) as sock:
        assert (sock.family, sock.type) == (socket.AF_INET6, socket.SOCK_STREAM)
        assert (type(sock.family), type(sock.type)) == (int, int)


def test_a_socket_that_does_not_block_is_a_stream_socket() -> None:
    with contextlib.closing(StreamSocket(socket.AF_INET, NOT_BLOCKING)) as sock:
        assert sock.type == socket.SOCK_STREAM
        assert sock.getblocking() == (NOT_BLOCKING == socket.SOCK_STREAM)


def test_what_is_accepted_has_plain_numbers_too() -> None:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(ListeningSocket(socket.AF_INET, socket.SOCK_STREAM))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client = stack.enter_context(socket.create_connection(listening.getsockname()))
        accepted, address = listening.accept()
        stack.enter_context(contextlib.closing(accepted))
        assert (accepted.family, accepted.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert type(accepted.family) is int
        assert not os.get_inheritable(accepted.fileno())
        assert accepted.getpeername() == client.getsockname() == address
        client.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
