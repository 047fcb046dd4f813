"""`DeltaCopier`: cuts a stream into frames, and copies frames that differ from a learned frame only in their text.

Most frames of a stream equal the frame before except for the text of a delta. A copier may learn such a frame and its
output, and then write the output of similar frames without parsing them. Copying must not be visible: a stream's output
is the same, byte for byte, as if every frame were parsed.

This module is the definition. It never copies: every frame is parsed. It knows nothing of providers or formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from gai_fast.kernels._pure import faults
from gai_fast.kernels._pure.arrays import ArrayFramer
from gai_fast.kernels._pure.parsers import Frame, LineFramer, SSEFramer
from gai_fast.model.events import Event

Part: TypeAlias = bytes | Literal["seq", "ts", "text"]
"""A part of a delta's output: constant bytes, or the name of the value that is written in this place."""

Piece: TypeAlias = bytes | memoryview
"""Bytes for a client: an object of their own, or a view of an upstream's bytes."""


class DeltaCopier:
    """Cuts a stream into frames and copies the frames that it has learned.

    Args:
        framer: Cuts the frames that are not copied.
        passes: Whether the output is the frames themselves. Otherwise the output is the parts given to `learn`.
        members: Names of JSON members whose string is the text of a delta.
        ignored: Names of members whose value does not affect the output.
        kept: Names of members whose value is an object, of which only the stream's last value counts.
        labels: Names of members at the top level whose string does not affect the output.
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
        """Adds the next bytes. Call `next` until it returns `None`, then `feed` again.

        Args:
            data: Any contiguous bytes-like object. The caller may change it after this call.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        self._data = as_bytes(data)

    def next(self, seq: int, ts: int) -> list[Frame] | None:
        """Returns the next frames to parse. `None` if the fed bytes hold no more.

        `take_copied` returns the output of the frames that were copied before them.

        Args:
            seq: The number of the stream's last event.
            ts: Milliseconds since the epoch.

        Raises:
            FeedError: A frame exceeds the framer's limit; `before` of the error holds the frames before it.
        """
        data, self._data = self._data, None
        return None if data is None else self._framer.feed(data)

    def close(self) -> list[Frame]:
        """Ends the input. Returns the incomplete rest as a last frame, if there is one."""
        return self._framer.close()

    @property
    def learns(self) -> bool:
        """Whether `learn` is worth calling for the next frame."""
        return False

    def learn(self, frame: Frame, event: Event, key: str, parts: Sequence[Part], always: bool = False) -> None:
        """Learns a frame and its output.

        Similar frames may then be copied. They may differ in the text, in the values of `ignored` members, in the
        strings of `labels`, in the numbers within `kept` members, and in the blanks before the last brace.

        Args:
            frame: The frame.
            event: The only event that the frame produced, a delta.
            key: The event's key that holds the text.
            parts: The output of the event, with the text exactly once; empty if frames are passed on.
            always: Whether a similar frame produces this event in every stream of the same adapter that expects it.
        """

    def expect(self, event: Event, key: str, parts: Sequence[Part]) -> None:
        """Announces the event that the next frame produces if another stream has learned a similar frame with `always`.

        Such a frame is copied although this stream has not learned it. The call has no effect once this stream has
        learned a frame.

        Args:
            event: The delta, with any text.
            key: As for `learn`.
            parts: As for `learn`.
        """

    def forget(self) -> None:
        """Forgets the learned frames, because later frames may have another meaning. Copied output stays."""

    @property
    def copied(self) -> int:
        """Frames copied since the last call of `take_copied`."""
        return 0

    def take_copied(self) -> tuple[Piece, int, list[tuple[Event, int, str]]]:
        """Returns the output copied since the last call.

        Returns:
            The bytes to write, the number of frames in them, and a tuple for each kind of delta: the learned event, the
            number of copied code points, and the text: all of it if `learn` got the key `arguments`, its last 64
            characters or more if the key was `trail`, otherwise nothing. The kind that was copied last comes last.
            Texts are in the order in which they came: if kinds of `arguments` alternate, each change makes another
            tuple.
        """
        return b"", 0, []

    @property
    def copies(self) -> bool:
        """Whether a `FastPath` may be useful: a frame has been learned, and the framer holds no partial frame."""
        return False

    def settle(self) -> tuple[int, list[tuple[Event, int, str]]]:
        """Returns the output that a `FastPath` has sent since the last call: as `take_copied`, without the bytes."""
        return 0, []

    def take_kept(self) -> dict[str, str]:
        """Returns the JSON text of each `kept` member, by name, from the last copied frame that had it.

        Each text is returned once.
        """
        return {}


def as_bytes(data: Any) -> bytes:
    """Returns the bytes of any contiguous bytes-like object.

    Raises:
        TypeError: `data` is not bytes-like.
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
