"""What a transport says of its socket."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gai_fast.net.sockets import descriptor_of


class Transport(asyncio.BaseTransport):
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._extra.get(name, default)  # type: ignore[attr-defined]  # asyncio's own keep it there, too


def test_a_socket_is_known_by_its_descriptor() -> None:
    with socket.socket() as sock:
        assert descriptor_of(Transport({"socket": sock})) == sock.fileno()


@pytest.mark.parametrize("says", [{}, {"socket": None}, {"pipe": object()}])
def test_a_transport_may_have_none(says: dict[str, Any]) -> None:
    assert descriptor_of(Transport(says)) == -1


def test_what_goes_through_tls_is_not_what_the_socket_brings() -> None:
    with socket.socket() as sock:
        assert descriptor_of(Transport({"socket": sock, "sslcontext": object()})) == -1
