"""The relay's way through a stream's frames: `DeltaCopier`.

Most frames of a stream equal the one before but for the text of a delta. A copier may learn such a frame and what it
became, and write what later frames of its kind become without parsing them. That it does so must not be visible: what
comes out of a stream is the same, byte for byte, as if every frame had taken the full path.

This one is the definition: it never copies, every frame takes the full path. Knows nothing of providers or formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from gai_fast._pure import faults
from gai_fast._pure.arrays import ArrayFramer
from gai_fast._pure.parsers import Frame, LineFramer, SSEFramer
from gai_fast.events import Event

Part: TypeAlias = bytes | Literal["seq", "ts", "text"]
"""A piece of what a delta is written as: bytes as they are, or where a value goes."""

Piece: TypeAlias = bytes | memoryview
"""Bytes on their way to a client: memory of their own, or a part of what an upstream sent."""


class DeltaCopier:
    """Cuts a stream into frames and copies those it has learned.

    Args:
        framer: Cuts what is not copied.
        passes: Frames are passed on as they are; otherwise what they become is written.
        members: Names of JSON members whose string, and nothing else, is the text of a delta.
        ignored: Names of members whose value nothing depends on.
        kept: Names of members whose value is an object of which only the last one of the stream counts.
        labels: Names of members on whose text nothing depends where they stand at the top of the object.
    """

    __slots__ = ("_data", "_framer")

    def __init__(
        self,
        framer: SSEFramer | LineFramer | ArrayFramer,
        passes: bool,
        members: frozenset[str] = frozenset(),
        ignored: frozenset[str] = frozenset(),
        kept: frozenset[str] = frozenset(),
        labels: frozenset[str] = frozenset(),
    ) -> None:
        self._framer = framer
        self._data: bytes | None = None

    def feed(self, data: Any) -> None:
        """Takes the next bytes; `next` is then called until it returns `None`.

        Args:
            data: Any contiguous bytes-like object; it may change once this has returned.

        Raises:
            TypeError: Not bytes-like.
        """
        self._data = as_bytes(data)

    def next(self, seq: int, ts: int) -> list[Frame] | None:
        """The next frames that must take the full path; `None`: none is left in what was fed.

        What was copied before them is to be had from `take_copied` now.

        Args:
            seq: The number of the stream's last event.
            ts: Milliseconds since the epoch.

        Raises:
            FeedError: A frame is larger than the framer's limit; `.before` holds the frames in front of it.
        """
        data, self._data = self._data, None
        return None if data is None else self._framer.feed(data)

    def close(self) -> list[Frame]:
        """Ends the input: the unfinished rest, if there is any, as a last frame."""
        return self._framer.close()

    @property
    def learns(self) -> bool:
        """Whether it is worth while to say what the next frame became."""
        return False

    def learn(self, frame: Frame, event: Event, key: str, parts: Sequence[Part], always: bool = False) -> None:
        """Learns what a frame became.

        A frame like this one may then be copied: it differs in the text, in the values of `ignored` members, in the
        strings of `labels`, in the numbers within `kept` members, in the blanks before its last brace, and in nothing
        else.

        Args:
            frame: The frame.
            event: The one delta that it became.
            key: Which of the event's keys holds its text.
            parts: What the event is written as, the text exactly once; empty where frames are passed on.
            always: In every stream of the same adapter that expects this event, a frame like this one becomes it.
        """

    def expect(self, event: Event, key: str, parts: Sequence[Part]) -> None:
        """Says what the next frame becomes if it is like one that another stream has learned for `always`.

        It is copied then, though this stream has seen none like it; nothing where frames have been learned here.

        Args:
            event: The delta, with any text; the other arguments are those of `learn`.
        """

    def forget(self) -> None:
        """Forgets all frames: the stream has changed its shape. What was copied is still to be had."""

    @property
    def copied(self) -> int:
        """How many frames were copied since `take_copied` was called last."""
        return 0

    def take_copied(self) -> tuple[Piece, int, list[tuple[Event, int, str]]]:
        """What was copied since the last call.

        Returns:
            The bytes to write, how many frames they hold, and for each kind of delta its event as it was learned, the
            code points copied, and the text (of `arguments` only, which an adapter collects). The kind that was copied
            last comes last.
        """
        return b"", 0, []

    @property
    def copies(self) -> bool:
        """Whether a frame has been learned and nothing is half read, so that a `FastPath` may be worth while."""
        return False

    def settle(self) -> tuple[int, list[tuple[Event, int, str]]]:
        """What a `FastPath` has passed on since the last call: as `take_copied` tells it, but for the bytes."""
        return 0, []

    def take_kept(self) -> dict[str, str]:
        """By name, the JSON text of each `kept` member in the last copied frame that had it; none twice."""
        return {}


def as_bytes(data: Any) -> bytes:
    """The bytes of any contiguous bytes-like object.

    Raises:
        TypeError: Something else.
    """
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise faults.not_bytes(data) from None
    if not view.c_contiguous:
        raise faults.not_bytes(data)
    return bytes(view)
