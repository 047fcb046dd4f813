"""The replay log of a resumable stream: keeps its bytes, so that a follower gets exactly those that it lacks.

Owns the interface of every store, and how the bytes of a log are cut at the edge of a frame. Knows no client and no
upstream; reads of the bytes only where frames end and their numbers.

1. A piece holds the bytes of one turn of the loop: immutable, whole frames, without HTTP's chunk framing and without
   keep-alives, which belong to each client. The log keeps the object that it is given; followers get references.
2. Writing never awaits: a store on a disk or another machine gathers, and writes later.
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
    """Describes the stream of a log, and how its pieces are written.

    Args:
        stream_id: The stream's id; random, never used before.
        model: The model as its caller asked for it.
        format: The name of the wire format.
        framing: `sse` or `ndjson`.
        envelope: `compact` or `full`; `None`: the framing's own.
    """

    stream_id: str
    model: str
    format: str
    framing: Framing
    envelope: Literal["compact", "full"] | None = None


class Ending(NamedTuple):
    """How a stream ended, as in the answer to `GET /api/v1/streams/{id}`.

    Args:
        state: The kind of end.
        finish_reason: From its `finish`.
        usage: From its `finish` or `error`.
        error: The payload of its `error`.
    """

    state: Literal["finished", "failed", "cancelled"]
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


class Backlog(NamedTuple):
    """The bytes of a stream after a certain event.

    Args:
        pieces: In order, each whole frames: the log's own bytes, which must not be changed.
        last_seq: The number of the stream's last event so far; smaller than the position that was asked for where the
            follower is ahead of the log.
        lost: The number of the last event that was asked for and is no longer there: the pieces begin after it. 0: none
            is missing.
        ending: How the stream ended; `None`: it runs.
    """

    pieces: list[bytes]
    last_seq: int
    lost: int
    ending: Ending | None


class StreamLog(ABC):
    """One stream's log. The session that runs the stream writes it; followers read it."""

    __slots__ = ()

    header: LogHeader

    @abstractmethod
    def append(self, piece: bytes, last_seq: int) -> None:
        """Keeps a piece: makes no copy, awaits nothing, never raises for a store that is out of reach.

        Args:
            piece: Whole frames, at least one.
            last_seq: The number of the last event in it.
        """

    @abstractmethod
    def end(self, ending: Ending) -> None:
        """Ends the log: nothing is appended any more, and its time to live begins."""

    @abstractmethod
    async def read(self, after: int = 0) -> Backlog:
        """Returns the bytes after the event of this number; 0: all."""


class Store(ABC):
    """The logs of all streams."""

    @abstractmethod
    def create(self, header: LogHeader) -> StreamLog:
        """Makes the log of a stream that begins.

        Raises:
            Overloaded: There is no room for another stream.
        """

    @abstractmethod
    async def find(self, stream_id: str) -> StreamLog | None:
        """Returns the log of a stream; `None` where there is none, or no longer."""

    @abstractmethod
    async def close(self) -> None:
        """Writes what is gathered, and releases everything."""


def frames_after(block: bytes, header: LogHeader, after: int) -> bytes:
    """Returns the frames of a block that come after an event: none, all, or those from the edge of a frame on.

    Args:
        block: Whole frames.
        header: How they are written.
        after: The event's number; it need not have a frame of its own.
    """
    if header.framing == "sse":
        # A line end within a text is escaped, so a text never matches.
        number = re.compile(rb"^id: %b\.([0-9]+)$" % re.escape(header.stream_id.encode()), re.M)
        end = b"\n\n"
    else:
        # The first in its line is the event's own, as keys have a fixed order; in a string the quote is escaped.
        number, end = re.compile(rb'^\{[^\n]*?"seq":([0-9]+)', re.M), b"\n"
    edge = 0
    for found in number.finditer(block):
        if int(found[1]) > after:
            break
        edge = block.index(end, found.end()) + len(end)
    return block[edge:]
