"""`net/stream_socket.py`: sockets whose family and type are plain numbers."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from gai_fast.net.stream_socket import StreamSocket


def test_its_family_and_type_are_the_numbers_of_the_constants() -> None:
    with StreamSocket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        assert (sock.family, sock.type) == (socket.AF_INET6, socket.SOCK_STREAM)
        assert (type(sock.family), type(sock.type)) == (int, int)


def test_what_it_accepts_is_one_too() -> None:
    with ExitStack() as stack:
        listening = stack.enter_context(StreamSocket(socket.AF_INET, socket.SOCK_STREAM))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        client = stack.enter_context(socket.create_connection(listening.getsockname()))
        accepted, address = listening.accept()
        stack.enter_context(accepted)
        assert isinstance(accepted, StreamSocket)
        assert not accepted.get_inheritable()
        assert accepted.getpeername() == client.getsockname() == address
        client.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
