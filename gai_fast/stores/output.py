"""The output of a resumable stream, logged on its way to the client.

Owns three things: a turn's bytes are logged once, before they are sent, as the object that is sent; keep-alives, which
belong to one client, are not logged; and the log gets the stream's end. Knows no client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gai_fast._impl import Piece
from gai_fast.events import Event
from gai_fast.formats import StreamEncoder
from gai_fast.stores._base import Ending
from gai_fast.stores.memory import StreamLog

_LEFT: Final = Ending("cancelled")
"""The end of a stream without a `finish` or an `error`: its client has gone."""


class LoggedOutput:
    """An encoder whose bytes are logged. Deltas that are written already go to the encoder itself.

    Args:
        encoder: Turns events into bytes.
        log: Keeps the bytes.
        clock: Milliseconds since the epoch.
    """

    __slots__ = ("_clock", "_encoder", "_ending", "_log", "_unlogged")

    def __init__(self, encoder: StreamEncoder, log: StreamLog, clock: Callable[[], int]) -> None:
        self._encoder = encoder
        self._log = log
        self._clock = clock
        self._ending = _LEFT
        self._unlogged: list[Piece] = []

    def event(self, event: Event) -> None:
        """Takes one event."""
        self._encoder.event(event)
        kind = event["type"]
        if kind == "finish":
            reason = event.get("finish_reason")
            self._ending = Ending("cancelled" if reason == "cancelled" else "finished", reason, event.get("usage"))
        elif kind == "error":
            self._ending = Ending("failed", usage=event.get("usage"), error=event["error"])

    def heartbeat(self) -> None:
        """Writes a keep-alive, for the client only."""
        logged = self.take_pieces()
        self._encoder.heartbeat()
        self._unlogged = [*logged, *self._encoder.take_pieces()]

    def take_pieces(self) -> list[Piece]:
        """The bytes since the last call."""
        pieces, self._unlogged = self._unlogged, []
        piece = b"".join(self._encoder.take_pieces())
        if piece:
            self._log.append(piece, self._encoder.seq, self._clock())
            pieces.append(piece)
        return pieces

    def close(self) -> None:
        """Ends the log: the stream has ended for its client."""
        self._log.end(self._ending)
