"""A stream of a server for a program that passes it on: each event with its JSON text, as the server sent it.

Owns the form. Reading, connections and cancelling are those of `RemoteStream`. Nothing is collected, so there is no
result and an answer may have any length.
"""

from __future__ import annotations

from types import TracebackType

from gai_fast.library.remote import Headers, RemoteGateway, RemoteStream
from gai_fast.model.events import Event


class WireStream(RemoteStream):
    """One answer of a server, or a stream of it that is followed. Enter it once, then call `read`.

    Args:
        gateway: The server.
        request: A native request. Ignored if a stream is followed.
        headers: More headers of its requests.
        stream_id: The stream to follow; empty: the request is sent.
        after: The number of the last event that the program has, if a stream is followed.
    """

    def __init__(
        self,
        gateway: RemoteGateway,
        request: dict[str, object],
        *,
        headers: Headers,
        stream_id: str = "",
        after: int = 0,
    ) -> None:
        super().__init__(gateway, {"resumable": True} if stream_id else request, headers=headers)
        self.id = stream_id
        self._seq = self.position = after
        self._kept: list[tuple[Event, str]] = []

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        # Not awaited: grpcio cancels the task of a call more than once.
        self.gateway.run_detached(self._cancel_own())

    async def read(self) -> list[tuple[Event, str]]:
        """Returns the next events, all that have come: each event, and its JSON text. Empty after the last event.

        They hold one read of a connection, so a program that reads slowly slows the server down.
        """
        while not self._kept:
            if self._is_over:
                return []
            await self._read_more()
        kept, self._kept = self._kept, []
        return kept

    def _keep(self, event: Event, text: str) -> None:
        self._kept.append((event, text))

    async def _open(self) -> None:
        await (self._resume() if self.id else super()._open())
