"""The listening sockets of a server: their addresses, the options that their connections inherit, and how connections
are accepted.

1. During a drain a server leaves its sockets open and only polls them at intervals. A successor on an inherited socket
   thus gets the new connections; without a successor, no client is refused while the server still answers others.
2. Closing the last descriptor of a listening socket resets the connections that wait on it. A server therefore closes
   it only right after it has found it empty, or at the end of its drain. A client for which the process has no
   descriptor waits too.
3. Connections are accepted here and not by the loop. If the process has no descriptor left, uvloop silently closes all
   waiting connections; if the kernel has no memory, uvloop stops listening for good. asyncio (before 3.14) logs a line
   per place in the backlog, and each line causes as many more. Here accepting pauses for `limits.accept_pause`.
4. The path of a unix socket belongs to one server: from the moment it is bound, its socket listens, so that another
   server finds it in use. Servers look, replace and remove in turn, by a lock of the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from gai_fast.model.addresses import is_local
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ServerSettings
from gai_fast.net.sockets.stream_socket import ListeningSocket
from gai_fast.server.edge.accepted_transport import TransportFactory
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")


class OpenAddress(ValueError):
    """Other machines could reach a server that needs no key; the text is one line and names the address."""


class CannotListen(OSError):
    """The address cannot be bound, or its socket cannot listen."""


_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A name may have an address of a family that this machine lacks, such as `localhost` if IPv6 is off."""


class Options(Protocol):
    """A socket, or asyncio's object for one."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def listen(settings: ServerSettings, write_timeout: float, activated: int = 0) -> list[socket.socket]:
    """Takes the inherited sockets, or binds the unix socket, or binds every address of the host, all with one port.

    Args:
        settings: `[server]`; port 0 chooses a free port.
        write_timeout: Seconds after which a client that acknowledges nothing is disconnected.
        activated: The number of sockets that systemd has handed over.

    Returns:
        The sockets, with the options that connections inherit. A unix socket listens: rule 4. Others that were bound
        here do not listen yet.

    Raises:
        CannotListen: An address is in use, no address belongs to this machine, the host is not a valid name, or a
            descriptor is not a socket that can listen.
    """
    try:
        if settings.fd is not None:
            sockets = [_inherited(each) for each in _descriptors(settings.fd, activated)]
        elif settings.uds is not None:
            sockets = [_bind_path(settings.uds)]
        else:
            sockets = _bind_host(settings)
    except socket.gaierror as problem:  # its number is not an `errno`
        raise CannotListen(errno.EADDRNOTAVAIL, problem.strerror) from None
    except OSError as problem:
        raise CannotListen(*problem.args) from None
    for listening in sockets:
        set_options(listening, write_timeout)
    return sockets


def _descriptors(first: int, activated: int) -> range:
    """Returns the inherited descriptors: `fd`, or all of systemd's descriptors if `fd` is the first of them."""
    return range(first, first + (max(1, activated) if first == _FIRST_ACTIVATED else 1))


def _inherited(descriptor: int) -> socket.socket:
    """Returns the socket of an inherited descriptor.

    Raises:
        OSError: The descriptor is not a socket, or cannot listen.
    """
    listening = ListeningSocket(fileno=descriptor)
    is_stream = listening.type == socket.SOCK_STREAM and listening.family in _FAMILIES
    address = listening.getsockname()
    if not is_stream or not (address[1] if listening.family in _INTERNET else address):
        listening.detach()  # the descriptor is not ours to close
        raise OSError(errno.EINVAL, "it is no bound stream socket")
    if _is_connected(listening):
        listening.detach()
        raise OSError(errno.EINVAL, "it is a connection, no socket that can listen")
    os.set_inheritable(descriptor, False)
    listening.setblocking(False)
    return listening


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


_FIRST_ACTIVATED: Final = 3
"""The first descriptor of a socket that systemd hands over (sd_listen_fds(3))."""
_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_FAMILIES: Final = (*_INTERNET, socket.AF_UNIX)
_PATH_MODE: Final = 0o660
"""The mode of a unix socket: its owner and its group may connect."""


def _bind_path(path: str) -> socket.socket:
    """Binds a socket to a path, and listens; replaces a stale socket of an earlier server.

    Raises:
        OSError: The path cannot be used.
    """
    listening = ListeningSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked_folder(path, LIMITS.path_tries):
            if _is_stale_socket(path):
                Path(path).unlink()
            listening.bind(path)
            Path(path).chmod(_PATH_MODE)  # before `listen`: no client could connect yet
            listening.setblocking(False)
            listening.listen(SHARED.backlog)
    except OSError:
        listening.close()
        raise
    return listening


@contextlib.contextmanager
def _locked_folder(path: str, tries: int) -> Iterator[None]:
    """Keeps other servers from replacing and removing the socket at a path: rule 4.

    A folder that cannot be read, or whose file system has no locks, is not locked.

    Args:
        path: The path.
        tries: How often the lock is asked for, `limits.path_wait` seconds apart.

    Raises:
        OSError: There is no such folder, or another process has it locked.
    """
    try:
        folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        yield
        return
    try:
        for left in range(tries - 1, -1, -1):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise OSError(errno.EADDRINUSE, "another process has locked its folder") from None
                time.sleep(LIMITS.path_wait)
            except OSError as problem:
                if problem.errno not in _NO_LOCKS:
                    raise
                break
        yield
    finally:
        os.close(folder)


_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
"""Errors of a file system that cannot lock a folder."""


def _is_stale_socket(path: str) -> bool:
    """Returns whether a path is a socket that no process listens on.

    Raises:
        OSError: A process listens on the socket, or the file is not a socket.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "it is no socket: remove it, or choose another path")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            pass  # the queue of its listener is full
    raise OSError(errno.EADDRINUSE, "in use")


def _bind_host(settings: ServerSettings) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as problem:  # a label has more than 63 letters
        raise OSError(errno.EADDRNOTAVAIL, f"the host is not a valid name ({problem})") from None
    for _ in range(LIMITS.port_tries):
        try:
            return _bind_all(found)
        except OSError as problem:
            # The port was free at the first address, but in use at another one: try another port.
            if settings.port or len(found) == 1 or problem.errno != errno.EADDRINUSE:
                raise
    return _bind_all(found)


def _bind_all(found: Sequence[tuple[Any, ...]]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, kind, protocol, _, address in found:
            port = sockets[0].getsockname()[1] if sockets else address[1]
            try:
                sockets.append(_bind(family, kind, protocol, (address[0], port, *address[2:]), len(found) == 1))
            except OSError as problem:
                if problem.errno not in _ABSENT:
                    raise
                absent = problem
        if not sockets:
            raise absent or OSError(errno.EADDRNOTAVAIL, "the host has no address")
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


def _bind(family: int, kind: int, protocol: int, address: tuple[Any, ...], is_only: bool) -> socket.socket:
    listening = ListeningSocket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # With `::` as the only address it serves IPv4 too; next to an IPv4 address it would occupy that port.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_only)
        listening.bind(address)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def base_url(host: str, port: int, scheme: str = "http") -> str:
    """Returns the URL for a bound address."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{scheme}://{shown}:{port}"


def server_url(settings: ServerSettings, listening: socket.socket) -> str:
    """Returns the URL of a server, or `unix:` and the path of its socket.

    Args:
        settings: `[server]`.
        listening: The server's first socket.
    """
    address = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(address)}"
    return base_url(settings.host if settings.fd is None else address[0], address[1], settings.scheme)


def is_on_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Returns whether only this machine can reach a server by the addresses of its sockets."""
    return all(is_local(each.getsockname()) for each in sockets)


def is_open(sockets: Sequence[socket.socket]) -> bool:
    """Returns whether other machines may reach a server."""
    return not is_on_loopback(sockets)


def set_options(listening: socket.socket, write_timeout: float) -> None:
    """Sets the options that connections inherit; setting them on each connection took 10 us.

    Small packets are sent at once, and the kernel buffers little. The kernel detects a lost client machine by missing
    acknowledgements, and by probes while nothing is written, such as before a whole response.

    Args:
        listening: The socket; a unix socket needs none of these options.
        write_timeout: Seconds after which a client that acknowledges nothing is disconnected.
    """
    if listening.family not in _INTERNET:
        return
    _set_option(listening, "TCP_NODELAY", 1)
    _set_option(listening, "TCP_NOTSENT_LOWAT", LIMITS.kernel_unsent)
    set_user_timeout(listening, write_timeout)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set_option(listening, "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", LIMITS.probe_after)
    _set_option(listening, "TCP_KEEPINTVL", LIMITS.probe_interval)
    _set_option(listening, "TCP_KEEPCNT", LIMITS.probes)


def set_user_timeout(sock: Options | None, seconds: float) -> None:
    """Makes the kernel drop a client that acknowledges nothing for this time, if the kernel supports it (Linux).

    Otherwise bytes for a lost machine stay in the kernel's buffers for long. A unix socket does not need the option.
    """
    if getattr(sock, "family", None) != socket.AF_UNIX:
        _set_option(sock, "TCP_USER_TIMEOUT", max(1, int(seconds * 1000)))


def _set_option(sock: Options | None, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if sock is not None and option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


class Protocols(Protocol):
    """Creates the protocols of connections."""

    @property
    def room(self) -> int:
        """The number of connections that may be accepted now."""

    def __call__(self, address: str) -> asyncio.Protocol: ...


class Listener(Protocol):
    """A source of a server's connections."""

    async def start(self, protocols: Protocols) -> None:
        """Starts to accept connections.

        Args:
            protocols: Creates the protocol of a connection.

        Raises:
            CannotListen: A socket cannot listen.
        """

    def begin_drain(self) -> None:
        """Stops accepting as connections arrive: rule 1."""

    async def accept_waiting(self) -> None:
        """Accepts the waiting connections; called at intervals during a drain."""

    def stop_taking(self) -> None:
        """Takes no connection any more, as there would be no time to answer it; idempotent."""

    async def close_if_empty(self) -> bool:
        """Closes the sockets if no connection waits, else accepts it: rule 2. Called once no connection is served.

        Returns:
            Whether the sockets are closed.
        """

    def close(self) -> None:
        """Stops accepting; idempotent."""


_CONNECTION_GONE: Final = frozenset(
    (
        *(errno.EINTR, errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENOPROTOOPT, errno.ENETDOWN),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT),
    )
)
"""Errors of `accept` about a connection that no longer exists: accept(2). Any other error is a lack of the process."""


def start_listening(sockets: Sequence[socket.socket]) -> None:
    """Starts to listen on the sockets.

    Raises:
        CannotListen: A socket cannot listen, because another process listens at its address.
    """
    for each in sockets:
        try:
            each.listen(SHARED.backlog)
        except OSError as problem:
            raise CannotListen(*problem.args) from None


def accept(listening: socket.socket) -> tuple[socket.socket, Any] | None:
    """Accepts a connection.

    Args:
        listening: A non-blocking socket.

    Returns:
        The connection and its client's address; None if no connection waits.

    Raises:
        OSError: The process lacks a resource, such as a descriptor; connections may still wait.
    """
    for _ in range(LIMITS.accepted):
        try:
            return listening.accept()
        except BlockingIOError:
            return None
        except OSError as problem:
            if problem.errno not in _CONNECTION_GONE:
                raise
    return None


class AcceptFailureLog:
    """Logs that accepting fails, at most once in `limits.warning_interval`: every attempt would fail."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def note(self, problem: OSError) -> None:
        """Logs a failure.

        Args:
            problem: The error; names the missing resource.
        """
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + SHARED.warning_interval
            _log.warning("no connection can be accepted for now: %s", problem.strerror)


class SocketListener:
    """Accepts the connections of this process's own sockets.

    Args:
        sockets: The sockets; they belong to the listener from now on.
        path: The path of a unix socket, which is removed at the end; None if there is none.
    """

    def __init__(self, sockets: Sequence[socket.socket], path: str | None = None) -> None:
        self._sockets = list(sockets)
        self._protocols: Protocols
        self._loop: asyncio.AbstractEventLoop
        self._is_open = False  # whether connections are accepted as they arrive
        self._is_taking = True
        self._pause: asyncio.TimerHandle | None = None
        self._lacks = AcceptFailureLog()
        self._transports = TransportFactory()
        self._path = path
        self._identity = None if path is None else _file_identity(path)

    async def start(self, protocols: Protocols) -> None:
        """Starts to accept connections; as `Listener.start`."""
        self._protocols = protocols
        self._loop = asyncio.get_running_loop()
        start_listening(self._sockets)
        self._is_open = True
        self._watch()

    def begin_drain(self) -> None:
        """Stops accepting as connections arrive; as `Listener.begin_drain`."""
        if self._is_open:
            self._unwatch()
            self._is_open = False

    def _watch(self) -> None:
        self._pause = None
        for each in self._sockets:
            more = select.poll()
            more.register(each, select.POLLIN)
            self._loop.add_reader(each.fileno(), self._accept_some, each, more)

    def _unwatch(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        for each in self._sockets:
            self._loop.remove_reader(each.fileno())

    def _pause_accepting(self) -> None:
        """Pauses accepting for `limits.accept_pause`."""
        self._unwatch()
        self._pause = self._loop.call_later(LIMITS.accept_pause, self._watch)

    def _accept_some(self, listening: socket.socket, more: select.poll) -> None:
        """Accepts waiting connections; called when a socket becomes readable."""
        room = self._protocols.room
        if room <= 0:
            self._pause_accepting()
            return
        for _ in range(min(room, LIMITS.accepted)):
            try:
                accepted = accept(listening)
            except OSError as problem:
                self._lacks.note(problem)
                self._pause_accepting()
                return
            if accepted is None:
                return
            connection, address = accepted
            self._transports.adopt(connection, self._protocols, address)
            if not more.poll(0):
                return  # the poll costs 9 us less than an `accept` without a connection and its exception

    async def accept_waiting(self) -> None:
        """Accepts the waiting connections; as `Listener.accept_waiting`."""
        try:
            for _ in range(SHARED.backlog):  # a bound: connections that keep arriving must not delay the drain
                if self._protocols.room <= 0 or not self._accept_one():
                    return
        except OSError as problem:
            self._lacks.note(problem)

    def stop_taking(self) -> None:
        """Leaves new connections to a successor; as `Listener.stop_taking`."""
        self._is_taking = False

    async def close_if_empty(self) -> bool:
        """Closes the sockets if no connection waits, or none is accepted any more; as `Listener.close_if_empty`."""
        try:
            if self._is_taking and self._accept_one():
                return False
        except OSError as problem:
            self._lacks.note(problem)
            return False
        self.close()
        return True

    def _accept_one(self) -> bool:
        """Accepts the first waiting connection; returns whether there was one.

        Raises:
            OSError: The process lacks a resource; as `accept`.
        """
        for each in self._sockets:
            accepted = accept(each)
            if accepted is not None:
                connection, address = accepted
                self._transports.adopt(connection, self._protocols, address)
                return True
        return False

    def close(self) -> None:
        """Closes the sockets; as `Listener.close`."""
        self.begin_drain()
        for each in self._sockets:
            each.close()
        self._transports.close()
        self._sockets.clear()
        path, identity, self._identity = self._path, self._identity, None
        if path is not None and identity is not None:
            # It may be removed already, or locked; a file that stays is replaced at the next start.
            with contextlib.suppress(OSError), _locked_folder(path, 1):
                if _file_identity(path) == identity:
                    Path(path).unlink()


def _file_identity(path: str) -> tuple[int, int] | None:
    """Returns the identity of the file at a path, to detect a replacement; None if there is no file."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
