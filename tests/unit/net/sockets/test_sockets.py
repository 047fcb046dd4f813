"""The socket of a transport, and a process that can open none."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.net.sockets.sockets import (
    descriptor_error,
    descriptor_of,
    reset_connection,
    unacknowledged_bytes,
    unsent_error,
)
from tests.waiting import SECONDS


class Transport(asyncio.BaseTransport):
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._extra.get(name, default)


def test_a_socket_is_known_by_its_descriptor() -> None:
    with socket.socket() as sock:
        assert descriptor_of(Transport({"socket": sock})) == sock.fileno()


@pytest.mark.parametrize("says", [{}, {"socket": None}, {"pipe": object()}])
def test_a_transport_may_have_none(says: dict[str, Any]) -> None:
    assert descriptor_of(Transport(says)) == -1


def test_what_goes_through_tls_is_not_what_the_socket_brings() -> None:
    with socket.socket() as sock:
        assert descriptor_of(Transport({"socket": sock, "sslcontext": object()})) == -1


async def test_a_connection_that_is_reset_does_not_end_in_order() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname())
        peer, _ = await loop.sock_accept(listener)
    with peer:
        reset_connection(transport)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(loop.sock_recv(peer, 1), SECONDS)


async def test_a_transport_without_a_socket_is_aborted_all_the_same() -> None:
    calls: list[str] = []

    class Plain(asyncio.WriteTransport):
        def abort(self) -> None:
            calls.append("abort")

    reset_connection(Plain())
    assert calls == ["abort"]


@pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: TIOCOUTQ of sockets")
async def test_bytes_that_a_peer_takes_are_seen_before_the_transport_may_write_more() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname())
        peer, _ = await loop.sock_accept(listener)
    with peer:
        assert unacknowledged_bytes(transport) == 0
        size = 1 << 25  # more than the system holds
        transport.write(bytes(size))
        before = 0
        while before != (before := unacknowledged_bytes(transport)):  # noqa: ASYNC110  # the system sets no event
            await asyncio.sleep(0.05)
        assert transport.get_write_buffer_size() < before < size
        peer.setblocking(True)
        taken = 0
        while unacknowledged_bytes(transport) == before:  # this turn of the loop: the transport itself writes nothing
            taken += len(peer.recv(65536))
        assert taken < size
    transport.abort()
    await asyncio.sleep(0)
    assert unacknowledged_bytes(transport) == 0


def test_only_a_want_of_descriptors_is_one() -> None:
    full = OSError(errno.EMFILE, "Too many open files")
    error = descriptor_error(full)
    assert error is not None
    assert (error.code, error.reason, error.status, error.__cause__) == ("overloaded", "descriptors", 503, full)
    assert descriptor_error(OSError(errno.ENFILE, "")) is not None
    assert descriptor_error(OSError(errno.ECONNREFUSED, "")) is None
    assert descriptor_error(TimeoutError()) is None


def test_a_request_that_cannot_be_sent_lacks_a_descriptor_or_has_met_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    assert unsent_error(OSError(errno.EMFILE, "Too many open files"), "up").reason == "descriptors"
    refusal = Error("overloaded", "no")
    assert unsent_error(refusal, "up") is refusal
    assert caplog.text == ""
    error = unsent_error(LookupError("a bug"), "up")
    assert (error.code, error.message) == ("internal", "the gateway failed to build the request for upstream 'up'")
    assert "LookupError: a bug" in caplog.text


@pytest.mark.parametrize(
    "unknown", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), OSError(errno.EBUSY, "busy")]
)
def test_a_resolver_that_can_open_no_file_reports_anything(monkeypatch: pytest.MonkeyPatch, unknown: OSError) -> None:
    assert descriptor_error(unknown, of_resolver=True) is None

    def full() -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", full)
    error = descriptor_error(unknown, of_resolver=True)
    assert error is not None
    assert error.reason == "descriptors"
