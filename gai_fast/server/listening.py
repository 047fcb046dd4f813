"""The listening sockets of a server: their addresses and the options that their connections inherit."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any, Final, Protocol

from gai_fast.limits import LIMITS
from gai_fast.settings import ServerSettings

_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A name may have an address of a family that this machine lacks, as `localhost` where IPv6 is off."""


class Options(Protocol):
    """A socket, or the object that asyncio gives for one."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def listen(settings: ServerSettings, write_timeout: float) -> list[socket.socket]:
    """Binds every address that the configured host has, all with the same port.

    Args:
        settings: `[server]`; port 0 chooses a free port.
        write_timeout: Seconds after which a client that acknowledges nothing is given up.

    Returns:
        The sockets, not yet listening, with the options that connections inherit.

    Raises:
        OSError: An address is in use, none of them is this machine's, or the host can be no name.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as problem:  # a part of more than 63 letters
        raise OSError(errno.EADDRNOTAVAIL, f"the host is not a valid name ({problem})") from None
    for _ in range(LIMITS.port_tries):
        try:
            return _bind_all(found, write_timeout)
        except OSError as problem:
            # The port was free at the first address but is not at another one: another port may be free at all.
            if settings.port or len(found) == 1 or problem.errno != errno.EADDRINUSE:
                raise
    return _bind_all(found, write_timeout)


def _bind_all(found: Sequence[tuple[Any, ...]], write_timeout: float) -> list[socket.socket]:
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
        for listening in sockets:
            set_options(listening, write_timeout)
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


def _bind(family: int, kind: int, protocol: int, address: tuple[Any, ...], is_only: bool) -> socket.socket:
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` alone serves IPv4 too; beside an IPv4 address it would take that one's port.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_only)
        listening.bind(address)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def base_url(host: str, port: int) -> str:
    """The URL under which a bound address is reached."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def set_options(listening: Options, write_timeout: float) -> None:
    """Sets the options that connections inherit; set on each connection they took 10 us.

    Nothing is held back for a fuller packet, and the kernel holds little. The kernel notices that a client's machine is
    gone by missing acknowledgements, and while nothing is written (before a whole answer) by probes.

    Args:
        listening: The socket.
        write_timeout: Seconds after which a client that acknowledges nothing is given up.
    """
    _set_option(listening, "TCP_NODELAY", 1)
    _set_option(listening, "TCP_NOTSENT_LOWAT", LIMITS.kernel_unsent)
    limit_silence(listening, write_timeout)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set_option(listening, "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", LIMITS.probe_after)
    _set_option(listening, "TCP_KEEPINTVL", LIMITS.probe_interval)
    _set_option(listening, "TCP_KEEPCNT", LIMITS.probes)


def limit_silence(sock: Options | None, seconds: float) -> None:
    """Lets the kernel give up a client that acknowledges nothing for this time, where the kernel can (Linux).

    Without it, bytes for a machine that is gone collect in the kernel's buffers for long.
    """
    _set_option(sock, "TCP_USER_TIMEOUT", max(1, int(seconds * 1000)))


def _set_option(sock: Options | None, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if sock is not None and option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
