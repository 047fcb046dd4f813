"""One client of a durable answer that is one JSON object: it waits for the answer's end.

Owns the response to such a client: the object in the log, or the error that the stream ended with. Nothing is written
before the end, so there is no pace, no keep-alive and no position, and the class is no `LogCursor`. A bug of the
gateway ends this client's response alone.
"""

from __future__ import annotations

import logging
from typing import Final

from gai_fast.model.changes import Changes
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import AnswerSource, StreamMetrics
from gai_fast.net.logs.publication import Published
from gai_fast.net.logs.writer import Client, ClientCallbacks, Headers
from gai_fast.stores import StreamLog

_log: Final = logging.getLogger("gai_fast.engine")


class WholeFollower(ClientCallbacks):
    """A client of a whole answer; a `LogWatcher`, and what the client's response calls. Made by `Engine.await_answer`.

    Args:
        log: The answer's log; its framing is `json`.
        client: The client's response.
        publication: The stream. None if it runs in another process.
        is_first: Whether the client has started the stream.
    """

    is_slow = False
    """False: the client never pauses the upstream, because it is written nothing before the end."""
    is_answer = True

    def __init__(self, log: StreamLog, client: Client, publication: Published | None, *, is_first: bool) -> None:
        self._log = log
        self._client = client
        self._publication = publication
        self._is_first = is_first
        self._is_over = False
        self._answer = b""
        self._changes: Changes | None = None
        self.metrics = None
        """The metrics of the stream, for the request that started it, once its response has ended."""

    def begin(self) -> None:
        """Waits for the answer. The client's response must have its follower set before."""
        if self._publication is not None:
            self._publication.add(self)
        self._log.watch(self)
        self._answer = b"".join(self._log.read(0, SHARED.held_answer).pieces)
        if self._log.is_over:
            self.ended()

    # -- LogWatcher --

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Keeps the answer until the end."""
        self._answer = piece

    def ended(self) -> None:
        """Sends the response."""
        if self._is_over:
            return
        self._leave()
        try:
            self._answer_client()
        except Exception as problem:  # noqa: BLE001  # the log's other watchers must still be called
            stream_id = self._log.header.stream_id
            _log.error("the answer of stream %s could not be given: a bug of the gateway", stream_id, exc_info=problem)
            self._client.fail(Error("internal", "the gateway failed while it handled this answer"), ())

    def _answer_client(self) -> None:
        log, answer = self._log, self._answer
        if log.broken is not None:
            self._client.fail(log.broken, ())
        elif log.ending is not None and log.ending.error is not None:
            self._client.fail(Error.from_payload(log.ending.error), ())
        elif answer:
            self._client.commit()
            self._client.end((answer,))
        else:
            self._client.fail(Error("not_found", "the log no longer has this answer", reason="gap"), ())

    # -- the publication --

    def meet(self, publication: Published) -> None:
        """Follows an answer that goes on in this process."""
        if not self._is_over:
            self._publication = publication
            publication.add(self)

    @property
    def position(self) -> int:
        """The number of the log's last event: no piece is kept for the client."""
        return self._log.last_seq

    def fail(self, error: Error) -> None:
        """Responds with the stream's failure."""
        if not self._is_over:
            self._leave()
            self._client.fail(error, ())

    def put_off(self, seconds: float) -> None:
        """Does nothing: nothing is written before the end."""

    # -- the client's response --

    @property
    def upstream_headers(self) -> Headers:
        """Empty: a log keeps no headers."""
        return ()

    @property
    def answered_by(self) -> AnswerSource | None:
        """Works as `Follower.answered_by`."""
        return None if self._changes is None else ("", "", False, self._changes)

    def measured(self) -> StreamMetrics:
        """Returns empty metrics: the answer itself contains them."""
        return StreamMetrics(duration=0.0)

    def client_lost(self) -> None:
        """Called when the client is gone."""
        self._leave()

    def pause(self) -> None:
        """Does nothing: nothing is written before the end."""

    def resume(self) -> None:
        """Does nothing, as `pause`."""

    def _leave(self) -> None:
        """Stops following. Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        self._log.unwatch(self)
        publication, self._publication = self._publication, None
        if publication is not None:
            self._changes = publication.changes()
            if self._is_first:
                self.metrics = publication.metrics()
            publication.remove(self)
