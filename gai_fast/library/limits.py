"""Limits of the library.

Only this folder uses them. Limits shared by several folders are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    leading_blanks: int = 4 * KIB
    """White space before the first event of a source whose framing is not known yet: keep-alives of one byte, for
    hours. A source with more is read as SSE."""

    feed_slice: int = 64 * KIB
    """Bytes that a parser handles between two checks of its limits."""

    waiting_events: int = 1024
    """Events that a program in this process has not read. If there are more, the upstream is no longer read. That many
    are a few hundred KiB of dicts."""

    pushed: int = 256 * KIB
    """Bytes that a program has pushed into a stream and that are not read yet. Above, the program must wait. They are a
    few hundred events, and as much as a slow client is allowed."""

    pushed_event: int = 256
    """Bytes that a pushed event counts besides its text: its dict, and its place in the queue."""

    pusher_check: float = 1.0
    """Seconds between two checks of a waiting thread whether the event loop still runs."""

    reconnecting: float = 60.0
    """Seconds in which a client of a server tries to reconnect to its stream: a restart or a change of networks."""

    reconnect_first: float = 0.25
    """Seconds before the second try; doubled for each further try. Half of the time is random."""

    reconnect_longest: float = 8.0
    """The longest pause between two tries."""

    server_connect: float = 10.0
    """Seconds in which a server must accept a client's connection, and again in which it must respond to a request
    about a running stream. It does so in milliseconds, and another try may reach another worker."""

    server_head: float = 600.0
    """Seconds in which a server must respond to a request for an answer: as long as an upstream may need, if the server
    waits for it (`commit_after`)."""

    abandoned: int = 1000
    """Streams whose response headers a client of a server awaits after their programs have left, to cancel them. Each
    is a connection, for ten seconds at most. The server ends further ones (`detach_ttl`)."""

    server_silence: float = 60.0
    """Seconds without a byte after which a client considers its connection dead: four keep-alives of a server."""

    server_error: int = 64 * KIB
    """Bytes that a client reads of a server's error response: ours have a few hundred."""

    server_object: int = 8 * MIB
    """Bytes that a client reads of a server's JSON object: the list of some ten thousand models."""


LIMITS: Final = Limits()
