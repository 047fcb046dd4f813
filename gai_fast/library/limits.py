"""Limits of the library.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    leading_blanks: int = 4 * KIB
    """Blanks before the first event of a source whose framing is not known yet: keep-alives of one byte, hours of them.
    A source with more is read as SSE."""

    feed_slice: int = 64 * KIB
    """Bytes that a parser handles between two looks at its limits."""

    waiting_events: int = 1024
    """Events that a program in this process has not read yet, above which the upstream is no longer read: some hundred
    KiB of dicts."""

    pushed: int = 256 * KIB
    """Bytes that a program has pushed into a stream and nobody has read, above which it must wait: a few hundred
    events, and as much as a slow client is allowed."""

    pushed_event: int = 256
    """Bytes that a pushed event costs besides its text: its dict, and its place in the queue."""

    pusher_look: float = 1.0
    """Seconds between two looks of a waiting thread at whether the event loop still runs."""

    reconnecting: float = 60.0
    """Seconds for which a client of a server tries to come back to its stream: a restart or a change of networks."""

    reconnect_first: float = 0.25
    """Seconds before it tries for the second time, doubled for each further one; half of it is chance."""

    reconnect_longest: float = 8.0
    """The longest wait between two tries."""

    server_connect: float = 10.0
    """Seconds in which a server must take a client's connection, and again in which it must begin to answer about a
    stream that runs: it does so in milliseconds, and another try may find another worker."""

    server_head: float = 600.0
    """Seconds in which a server must begin to answer a request: as long as an upstream may take, should the server wait
    for it (`commit_after`)."""

    abandoned: int = 1000
    """Streams whose heads a client of a server awaits in place of their programs, to cancel them: each is a connection,
    for ten seconds at most. Further ones are left to the server (`detach_ttl`)."""

    server_silence: float = 60.0
    """Seconds without a byte after which a client takes its connection for dead: four keep-alives of a server."""

    server_error: int = 64 * KIB
    """Bytes of a server's error that a client reads: ours have a few hundred."""


LIMITS: Final = Limits()
