"""The addresses a server listens on, and the options of its connections."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from gai_fast.limits import LIMITS
from gai_fast.server import listening
from gai_fast.server.listening import base_url, listen, set_options
from gai_fast.settings import ServerSettings

WRITE = 40.0


def open_files() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208  # the folder of this process's files


@contextmanager
def bound(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(sock) for sock in listen(ServerSettings(host=host, port=port), WRITE)]


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Gives the host these addresses, whatever this machine's resolver has."""

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("localhost", "http://localhost:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
        ("2001:db8::1", "http://[2001:db8::1]:1"),
    ],
)
def test_a_url_can_be_opened_whatever_the_address_is(host: str, url: str) -> None:
    assert base_url(host, 1) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_binding_listens_on_that_host_and_no_other(host: str) -> None:
    with bound(host) as sockets:
        for sock in sockets:
            address, port = sock.getsockname()[:2]
            assert address in ("127.0.0.1", "::1")
            assert port
            assert not sock.getblocking()


def test_every_address_of_a_host_is_bound_with_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that resolves `localhost` to the other address was refused."""
    resolves(monkeypatch, "127.0.0.1", "127.0.0.2", "::1")
    with bound("localhost") as sockets:
        assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1", "127.0.0.2", "::1"]
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        for sock in sockets:
            sock.listen()
            with socket.socket(sock.family) as client:
                client.settimeout(5)
                client.connect(sock.getsockname())


def test_an_address_that_this_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, "192.0.2.1", "127.0.0.1")
    with bound("localhost") as sockets:
        assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1"]


def test_a_free_port_is_one_that_is_free_at_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, "127.0.0.1", "127.0.0.2")
    bind, calls = listening._bind, []

    def once_in_use(*arguments: Any) -> socket.socket:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.EADDRINUSE, "in use")
        return bind(*arguments)

    monkeypatch.setattr(listening, "_bind", once_in_use)
    before = open_files()
    with bound("localhost") as sockets:
        assert len(sockets) == 2
        assert len(calls) == 4
    assert open_files() == before


def test_an_address_that_cannot_be_had_is_an_os_error_and_leaks_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_files()
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        resolves(monkeypatch, "127.0.0.1", "127.0.0.2")
        with pytest.raises(OSError, match="in use"), bound("localhost", port):
            pass
    resolves(monkeypatch, "192.0.2.1")
    with pytest.raises(OSError, match=r"."), bound("elsewhere"):
        pass
    resolves(monkeypatch)
    with pytest.raises(OSError, match="no address"), bound("nowhere"):
        pass
    assert open_files() == before


def test_a_host_that_can_be_no_name_is_an_os_error() -> None:
    with pytest.raises(OSError, match="the host is not a valid name"):
        listen(ServerSettings(host="a" * 64 + ".example"), WRITE)


def test_connections_inherit_how_long_a_client_may_be_silent_and_how_much_may_be_unread() -> None:
    """Nothing is written to a client that waits for a whole answer, so only probes find that it is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        set_options(listener, WRITE)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = {
                name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in (
                    "TCP_NODELAY",
                    "TCP_USER_TIMEOUT",
                    "TCP_NOTSENT_LOWAT",
                    "TCP_KEEPIDLE",
                    "TCP_KEEPALIVE",
                    "TCP_KEEPINTVL",
                    "TCP_KEEPCNT",
                )
                if hasattr(socket, name)
            }
    assert options.pop("TCP_NODELAY")
    expected = {
        "TCP_USER_TIMEOUT": WRITE * 1000,
        "TCP_NOTSENT_LOWAT": LIMITS.kernel_unsent,
        "TCP_KEEPIDLE": LIMITS.probe_after,
        "TCP_KEEPALIVE": LIMITS.probe_after,
        "TCP_KEEPINTVL": LIMITS.probe_interval,
        "TCP_KEEPCNT": LIMITS.probes,
    }
    assert options.items() <= expected.items()
    assert "TCP_KEEPINTVL" in options
