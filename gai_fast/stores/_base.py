"""The replay log: what a resumable stream said, kept so that a follower gets exactly what it has not had.

Owns the interface of every store, and how bytes of a log are cut at the edge of a frame. Knows no client and no
upstream; nothing here reads what a stream said, only where its frames end and how they are numbered.

1. A piece is what one turn of the loop wrote: immutable, whole frames, without HTTP's chunk framing and without
   keep-alives, which are each client's own. The log keeps the object it is given; every follower gets references.
2. Writing never awaits: a store that has to reach a disk or another machine gathers, and writes later.
3. Nothing is ever missing in silence: a log that has dropped pieces knows up to which event (`Backlog.lost`).
4. A position is the number of an event of one stream; stream ids are random and never used twice.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from gai_fast.formats import Framing


class LogHeader(NamedTuple):
    """Whose stream a log holds, and what its pieces are written in.

    Args:
        stream_id: Its id; random, never used before.
        model: The model as its caller asked for it.
        format: The name of the wire format.
        framing: What a frame is.
        envelope: `compact` or `full`; `None`: the framing's own.
    """

    stream_id: str
    model: str
    format: str
    framing: Framing
    envelope: Literal["compact", "full"] | None = None


class Ending(NamedTuple):
    """How a stream ended, as `GET /api/v1/streams/{id}` tells it.

    Args:
        state: Which end.
        finish_reason: Of its `finish`.
        usage: Of its `finish` or `error`.
        error: The payload of its `error`.
    """

    state: Literal["finished", "failed", "cancelled"]
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


class Backlog(NamedTuple):
    """What a stream has said after a certain event.

    Args:
        pieces: In order, each whole frames: the log's own bytes, not to be changed.
        last_seq: The number of the stream's last event so far; smaller than what was asked for where the asker knows
            more than the log.
        lost: The number of the last event that is wanted and no longer there: the pieces begin after it. 0: none is
            missing.
        ending: How the stream ended; `None`: it goes on.
    """

    pieces: list[bytes]
    last_seq: int
    lost: int
    ending: Ending | None


class StreamLog(ABC):
    """One stream's log. The session that runs the stream writes it; whoever follows reads it."""

    __slots__ = ()

    header: LogHeader

    @abstractmethod
    def append(self, piece: bytes, last_seq: int) -> None:
        """Keeps a piece: no copy is made, nothing is awaited, never raises for a store that is out of reach.

        Args:
            piece: Whole frames, at least one.
            last_seq: The number of the last event in it.
        """

    @abstractmethod
    def end(self, ending: Ending) -> None:
        """The stream has ended: nothing is appended any more, and its time to live begins."""

    @abstractmethod
    async def read(self, after: int = 0) -> Backlog:
        """What came after the event of this number; 0: all."""


class Store(ABC):
    """The logs of all streams."""

    @abstractmethod
    def create(self, header: LogHeader) -> StreamLog:
        """The log of a stream that begins.

        Raises:
            Overloaded: There is no room for another stream.
        """

    @abstractmethod
    async def find(self, stream_id: str) -> StreamLog | None:
        """The log of a stream; `None` where there is none, or no longer."""

    @abstractmethod
    async def close(self) -> None:
        """Gives everything back, what is still to be written first."""


def frames_after(block: bytes, header: LogHeader, after: int) -> bytes:
    """The frames of a block that come after an event: nothing, all, or a cut at the edge of a frame.

    Args:
        block: Whole frames.
        header: What they are written in.
        after: The event's number; it need not have a frame of its own.
    """
    if header.framing == "sse":
        # A line end within a text is escaped, so this is never part of one.
        number = re.compile(rb"^id: %b\.([0-9]+)$" % re.escape(header.stream_id.encode()), re.M)
        end = b"\n\n"
    else:
        # The first in its line is the event's own (CONTRACT §5: the order of keys); in a string the quote is escaped.
        number, end = re.compile(rb'^\{[^\n]*?"seq":([0-9]+)', re.M), b"\n"
    edge = 0
    for found in number.finditer(block):
        if int(found[1]) > after:
            break
        edge = block.index(end, found.end()) + len(end)
    return block[edge:]
