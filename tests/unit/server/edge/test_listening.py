"""The addresses a server listens on, and the options of its connections."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from gai_fast.model.settings import ServerSettings
from gai_fast.server.edge import listening
from gai_fast.server.edge.accepted_transport import TransportFactory
from gai_fast.server.edge.listening import (
    CannotListen,
    SocketListener,
    base_url,
    is_on_loopback,
    is_open,
    listen,
    server_url,
    set_options,
)
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.waiting import SECONDS, until

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
                client.settimeout(SECONDS)
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
        with pytest.raises(CannotListen, match="in use"), bound("localhost", port):
            pass
    resolves(monkeypatch, "192.0.2.1")
    with pytest.raises(CannotListen, match=r"."), bound("elsewhere"):
        pass
    resolves(monkeypatch)
    with pytest.raises(CannotListen, match="no address"), bound("nowhere"):
        pass
    assert open_files() == before


def test_a_name_that_is_not_known_is_an_address_that_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CannotListen, match="not known") as caught:
        listen(ServerSettings(host="nowhere.example"), WRITE)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_host_that_can_be_no_name_is_an_os_error() -> None:
    with pytest.raises(CannotListen, match="the host is not a valid name"):
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


# ---- unix sockets and inherited ones ---------------------------------------------------------------------------------


def test_a_unix_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    (first,) = listen(ServerSettings(uds=path), WRITE)
    first.close()
    (second,) = listen(ServerSettings(uds=path), WRITE)
    with pytest.raises(CannotListen, match="in use"):
        listen(ServerSettings(uds=path), WRITE)
    assert server_url(ServerSettings(uds=path), second) == f"unix:{path}"
    second.close()


def test_of_servers_that_start_at_once_on_one_path_one_gets_it(tmp_path: Path) -> None:
    """Each found the socket of another one stale that was bound and did not listen yet, and replaced it."""
    path = str(tmp_path / "s")
    for _ in range(10):
        Path(path).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(path)
        together = threading.Barrier(4)

        def begin(_: int, together: threading.Barrier = together) -> socket.socket | str:
            together.wait(SECONDS)
            try:
                return listen(ServerSettings(uds=path), WRITE)[0]
            except CannotListen as problem:
                return str(problem.strerror)

        with ThreadPoolExecutor(4) as servers:
            begun = [*servers.map(begin, range(4))]
        (one,) = [each for each in begun if not isinstance(each, str)]
        assert [each for each in begun if isinstance(each, str)] == ["in use"] * 3
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            one.accept()[0].close()
        one.close()


async def test_a_folder_that_another_process_has_locked_is_named_and_not_waited_for_at_the_end(
    tmp_path: Path, change_limits: ChangeLimits
) -> None:
    path = str(tmp_path / "s")
    change_limits(path_wait=0.001, path_tries=3)
    listener = SocketListener(listen(ServerSettings(uds=path), WRITE), path)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    before = open_files()
    with pytest.raises(CannotListen, match="another process has locked its folder"):
        listen(ServerSettings(uds=path), WRITE)
    assert open_files() == before
    listener.close()
    assert Path(path).exists()
    os.close(folder)
    (again,) = listen(ServerSettings(uds=path), WRITE)
    again.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (listening,) = listen(ServerSettings(uds=str(tmp_path / "s")), WRITE)
    listening.close()


def test_a_folder_that_cannot_be_read_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    (listening,) = listen(ServerSettings(uds=str(tmp_path / "s")), WRITE)
    monkeypatch.undo()
    listening.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("mine")
    before = open_files()
    with pytest.raises(CannotListen, match="it is no socket"):
        listen(ServerSettings(uds=str(path)), WRITE)
    assert path.read_text() == "mine"
    assert open_files() == before


def test_an_inherited_socket_is_taken_as_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        settings = ServerSettings(fd=inherited.fileno(), host="elsewhere.example")
        (taken,) = listen(settings, WRITE)
        assert taken.fileno() == inherited.fileno()
        assert not os.get_inheritable(taken.fileno())
        assert server_url(settings, taken) == f"http://127.0.0.1:{inherited.getsockname()[1]}"
        taken.detach()


def test_a_server_with_a_certificate_is_reached_over_https() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert server_url(ServerSettings(tls_cert="cert.pem"), listening) == f"https://127.0.0.1:{port}"


def test_all_sockets_of_systemd_are_taken_where_the_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        number = fcntl.fcntl(one, fcntl.F_DUPFD, 900)  # where descriptors are free
        next_one = fcntl.fcntl(other, fcntl.F_DUPFD, 900)
        monkeypatch.setattr("gai_fast.server.edge.listening._FIRST_ACTIVATED", number)
        taken = listen(ServerSettings(fd=number), WRITE, 2)
        assert [each.fileno() for each in taken] == [number, next_one]
        assert not any(os.get_inheritable(each.fileno()) for each in taken)
        (alone,) = listen(ServerSettings(fd=next_one), WRITE, 2)
        assert alone.detach() == next_one
        (also,) = listen(ServerSettings(fd=number), WRITE)
        also.detach()
        for each in taken:
            each.close()


def test_a_descriptor_that_cannot_listen_is_an_os_error_and_stays_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as unbound:
        for each in (datagrams, unbound):
            with pytest.raises(CannotListen, match="no bound stream socket"):
                listen(ServerSettings(fd=each.fileno()), WRITE)
            assert each.getsockname()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        with pytest.raises(CannotListen, match="it is a connection"):
            listen(ServerSettings(fd=client.fileno()), WRITE)
        assert client.getsockname()
    with open(os.devnull) as file, pytest.raises(CannotListen, match=r"."):  # noqa: PTH123  # a descriptor is all it takes
        listen(ServerSettings(fd=file.fileno()), WRITE)


@pytest.mark.parametrize(
    ("host", "on_loopback", "is_reached"), [("127.0.0.1", True, False), ("::1", True, False), ("0.0.0.0", False, True)]
)
def test_who_reaches_a_server_is_judged_by_its_sockets(host: str, on_loopback: bool, is_reached: bool) -> None:
    with bound(host) as sockets:
        assert (is_on_loopback(sockets), is_open(sockets)) == (on_loopback, is_reached)


def test_a_unix_socket_counts_as_loopback_and_is_its_owners_and_its_groups(tmp_path: Path) -> None:
    """Nothing but this machine reaches it."""
    path = tmp_path / "s"
    before = os.umask(0)
    try:
        sockets = listen(ServerSettings(uds=str(path)), WRITE)
    finally:
        os.umask(before)
    assert (is_on_loopback(sockets), is_open(sockets)) == (True, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    sockets[0].close()


# ---- accepting -------------------------------------------------------------------------------------------------------


class Greeting(asyncio.Protocol):
    """Says hello, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = cast("asyncio.Transport", transport)
        client.write(b"hello")
        client.close()


async def greeting(sock: socket.socket) -> bytes:
    """Returns the answer of a server to a client of this listening socket."""
    client = socket.socket(sock.family)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    with client:
        async with asyncio.timeout(SECONDS):
            await loop.sock_connect(client, sock.getsockname())
            return await loop.sock_recv(client, 100)


class Open:
    """Lets in as many as there is room for.

    Attributes:
        refused: How often there was no room.
    """

    def __init__(self, protocols: Callable[[], asyncio.Protocol], room: int = 100) -> None:
        self.protocols = protocols
        self.places = room
        self.refused = 0

    @property
    def room(self) -> int:
        self.refused += not self.places
        return self.places

    def __call__(self, address: str) -> asyncio.Protocol:
        self.places -= 1
        return self.protocols()


LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


class Reluctant(socket.socket):
    """A listening socket whose `accept` fails as the test says."""

    problems: list[int]
    asked = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.asked += 1
        if self.problems:
            raise OSError(self.problems[0], os.strerror(self.problems.pop(0)))
        return super().accept()


def reluctant(*problems: int) -> Reluctant:
    (bound,) = listen(ServerSettings(port=0), WRITE)
    made = Reluctant(fileno=bound.detach())
    made.setblocking(False)
    made.problems = list(problems)
    return made


@pytest.mark.parametrize("loop", LOOPS)
def test_without_a_descriptor_nothing_is_accepted_for_a_while_and_then_all_that_wait(
    loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        sock = reluctant(errno.EMFILE, errno.ENOBUFS)
        listener = SocketListener([sock])
        await listener.start(Open(Greeting))
        assert await asyncio.gather(*(greeting(sock) for _ in range(5))) == [b"hello"] * 5
        assert sock.asked <= 2 + 2 * 5, "no busy loop"
        listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
    result = [record.getMessage() for record in caplog.records]
    assert result == [f"no connection can be accepted for now: {os.strerror(errno.EMFILE)}"], "once a minute"


@pytest.mark.parametrize("problem", [errno.ECONNABORTED, errno.EPROTO, errno.EAGAIN])
async def test_a_client_that_left_or_went_elsewhere_before_it_was_accepted_keeps_nobody_waiting(
    problem: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda delay, _: paused.append(delay))
    sock = reluctant(problem)
    listener = SocketListener([sock])
    await listener.start(Open(Greeting))
    assert await greeting(sock) == b"hello"
    assert not paused
    listener.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_bug_in_making_a_protocol_closes_the_connection_is_logged_and_leaves_nobody_waiting(loop: Any) -> None:
    def broken(address: str) -> asyncio.Protocol:
        raise LookupError("a bug")

    async def scenario() -> None:
        logged: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        newcomers = TransportFactory()
        ours, clients = zip(*[socket.socketpair() for _ in range(2)], strict=True)
        newcomers.adopt(ours[0], broken)
        newcomers.adopt(ours[1], lambda _: Greeting())
        assert clients[0].recv(10) == b""
        assert clients[1].recv(10) == b"hello"
        await until(lambda: [str(context["exception"]) for context in logged] == ["a bug"])
        for client in clients:
            client.close()
        newcomers.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_without_room_nothing_is_accepted_until_there_is_some(loop: Any) -> None:
    async def scenario() -> None:
        (sock,) = listen(ServerSettings(port=0), WRITE)
        listener, entrance = SocketListener([sock]), Open(Greeting, room=2)
        await listener.start(entrance)
        clients = [asyncio.create_task(greeting(sock)) for _ in range(5)]
        await until(lambda: sum(each.done() for each in clients) >= 2 and entrance.refused >= 2)
        assert [each.done() for each in clients].count(True) == 2
        entrance.places = 3
        assert await asyncio.gather(*clients) == [b"hello"] * 5
        listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_listener_that_waits_for_room_can_be_closed(loop: Any) -> None:
    async def scenario() -> None:
        (sock,) = listen(ServerSettings(port=0), WRITE)
        listener, entrance = SocketListener([sock]), Open(Greeting, room=0)
        await listener.start(entrance)
        client = asyncio.create_task(greeting(sock))
        await until(lambda: entrance.refused)
        listener.close()
        await asyncio.sleep(LIMITS.accept_pause * 1.2)
        with pytest.raises(ConnectionError):
            await client

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_that_comes_alone_is_accepted_with_one_call(loop: Any) -> None:
    """The call that finds nothing costs an exception."""

    async def scenario() -> None:
        sock = reluctant()
        listener = SocketListener([sock])
        await listener.start(Open(Greeting))
        for _ in range(3):
            assert await greeting(sock) == b"hello"
        assert sock.asked == 3
        listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_listeners_that_share_a_socket_take_nothing_from_each_other(loop: Any) -> None:
    """Each is woken for every connection, and what one has found may be the other's when it accepts."""

    async def scenario() -> None:
        (sock,) = listen(ServerSettings(port=0), WRITE)
        listeners = [SocketListener([sock.dup()]) for _ in "ab"]
        for each in listeners:
            await each.start(Open(Greeting))
        assert await asyncio.gather(*(greeting(sock) for _ in range(30))) == [b"hello"] * 30
        for each in listeners:
            each.close()
        sock.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_socket_whose_clients_cannot_be_accepted_is_not_empty(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Closing it would reset them."""

    async def scenario() -> None:
        sock = reluctant()
        listener = SocketListener([sock])
        await listener.start(Open(Greeting))
        listener.begin_drain()
        with socket.create_connection(sock.getsockname()) as client:
            sock.problems = [errno.EMFILE] * 2
            await listener.accept_waiting()
            assert not await listener.close_if_empty()
            sock.problems = [errno.ECONNABORTED]
            assert not await listener.close_if_empty(), "one behind a client that has left waits, too"
            client.setblocking(False)
            async with asyncio.timeout(SECONDS):
                assert await asyncio.get_running_loop().sock_recv(client, 100) == b"hello"
        assert await listener.close_if_empty()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
    result = [record.getMessage() for record in caplog.records]
    assert result == [f"no connection can be accepted for now: {os.strerror(errno.EMFILE)}"]


@pytest.mark.parametrize(("backlog", "room", "accepted"), [(3, 100, 3), (100, 2, 2)])
async def test_a_look_of_a_drain_accepts_no_more_than_could_wait_and_have_room(
    backlog: int, room: int, accepted: int, change_limits: ChangeLimits
) -> None:
    """Clients that come faster than they are accepted would hold up the end of the server for ever."""
    change_limits(backlog=backlog)
    (sock,) = listen(ServerSettings(port=0), WRITE)
    listener, entrance = SocketListener([sock]), Open(Greeting, room)
    await listener.start(entrance)
    listener.begin_drain()
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket.create_connection(sock.getsockname(), SECONDS))
        await listener.accept_waiting()
        assert room - entrance.places == accepted
    listener.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ["tcp", "uds"])
def test_a_draining_listener_accepts_what_waits_and_closes_when_nothing_does(
    loop: Any, kind: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    settings = ServerSettings(port=0) if kind == "tcp" else ServerSettings(uds=path)

    async def scenario() -> None:
        sockets = listen(settings, WRITE)
        listener = SocketListener(sockets, settings.uds)
        await listener.start(Open(Greeting))
        assert await greeting(sockets[0]) == b"hello"
        listener.begin_drain()
        waiting = asyncio.create_task(greeting(sockets[0]))
        await until(lambda: select.select(sockets, [], [], 0)[0])  # its connection waits
        assert not waiting.done()
        await listener.accept_waiting()
        assert await waiting == b"hello"
        waiting = asyncio.create_task(greeting(sockets[0]))
        await until(lambda: select.select(sockets, [], [], 0)[0])  # its connection waits
        assert not await listener.close_if_empty()
        assert await waiting == b"hello"
        assert await listener.close_if_empty()
        assert sockets[0].fileno() == -1
        assert not Path(path).exists()
        listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_that_is_accepted_as_a_drain_begins_is_waited_for(loop: Any) -> None:
    """It has no protocol yet, so no server counts it."""
    made: list[asyncio.BaseTransport] = []
    accepts = asyncio.Event()

    class Noting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    class Asked(Open):
        @property
        def room(self) -> int:
            accepts.set()
            return 1

    async def scenario() -> None:
        (sock,) = listen(ServerSettings(port=0), WRITE)
        listener = SocketListener([sock])
        await listener.start(Asked(Noting))
        with socket.create_connection(sock.getsockname()):
            await accepts.wait()
            listener.begin_drain()
            await listener.accept_waiting()
            assert len(made) == 1
            made[0].close()
            assert await listener.close_if_empty()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


async def test_a_successor_on_the_same_socket_gets_what_comes() -> None:
    sockets = listen(ServerSettings(port=0), WRITE)
    old = SocketListener([sockets[0].dup()])
    await old.start(Open(asyncio.Protocol))
    old.begin_drain()
    new = SocketListener(sockets)
    await new.start(Open(Greeting))
    for _ in range(20):
        assert await greeting(sockets[0]) == b"hello"
    assert await old.close_if_empty()
    assert await greeting(sockets[0]) == b"hello", "closing one descriptor leaves the socket"
    new.close()


async def test_the_path_of_another_server_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    old = SocketListener(listen(ServerSettings(uds=path), WRITE), path)
    Path(path).unlink()
    new = SocketListener(listen(ServerSettings(uds=path), WRITE), path)
    old.close()
    assert Path(path).exists()
    new.close()
    assert not Path(path).exists()
