"""Responses that wait for something outside this process: a store or another worker.

Owns the wait. A handler adds its work here and returns at once. If the client disconnects, the work is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from gai_fast.model.errors import Error
from gai_fast.model.metrics import AnswerSource, StreamMetrics
from gai_fast.net.logs.writer import ClientCallbacks
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.stream_response import StreamResponse

if TYPE_CHECKING:
    from gai_fast.server.requests.passage import Passage, Wait

_log: Final = logging.getLogger("gai_fast.server")

Work = Coroutine[Any, Any, "Reply | None"]
"""Finds the response to a request; returns None if a stream has started and answers."""


class PendingAnswers:
    """The tasks of the pending responses."""

    def __init__(self) -> None:
        self._answers: set[_Pending] = set()

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, incoming: Incoming, response: StreamResponse, work: Work) -> None:
        """Starts work on a response.

        Args:
            incoming: The request.
            response: The response.
            work: Returns the response, or raises an `Error` to answer with. Cancelled if the client disconnects.
        """
        self._add(_Pending(incoming, response, work))

    def walk(self, passage: Passage, wait: Wait, go_on: Callable[[], Wait | None]) -> None:
        """Lets a request pass the rest of its gates, and starts it.

        Args:
            passage: The request.
            wait: What its last gate waits for.
            go_on: Lets it pass the next gates; returns what must be awaited then, or None behind the last.
        """
        self._add(_Walk(passage, wait, go_on))

    def _add(self, pending: _Pending) -> None:
        self._answers.add(pending)
        pending.task.add_done_callback(lambda _: self._answers.discard(pending))


class _Pending(ClientCallbacks):
    """One pending response; the `ClientCallbacks` of its `StreamResponse` until a session replaces it."""

    def __init__(self, incoming: Incoming, response: StreamResponse, work: Work) -> None:
        self.metrics = None
        self._incoming = incoming
        self._response = response
        response.attach(self)
        self.task = asyncio.get_running_loop().create_task(self._run(work))
        self.task.add_done_callback(lambda _: work.close())  # the task may have been cancelled before it started

    async def _run(self, work: Work) -> None:
        incoming, response = self._incoming, self._response
        try:
            reply = await work
            if reply is not None:
                response.reply(reply)
        except Error as error:
            response.reply(incoming.refusal(error))
        except Exception as problem:  # noqa: BLE001  # a bug in the gateway or in a store: the client gets a response
            _log.error("%s %r could not be handled", incoming.http.method, incoming.path, exc_info=problem)
            response.reply(incoming.refusal(Error("internal", "The server failed to handle this request"), close=True))

    @property
    def upstream_headers(self) -> Headers:
        """Always empty: no upstream has been asked yet."""
        return ()

    @property
    def answered_by(self) -> AnswerSource | None:
        """Always None: no upstream has been asked yet."""
        return None

    def measured(self) -> StreamMetrics:
        """Returns metrics without figures."""
        return StreamMetrics(duration=0.0)

    def client_lost(self) -> None:
        """Cancels the work."""
        self.task.cancel()

    def pause(self) -> None:
        """Does nothing: no body is being written."""

    def resume(self) -> None:
        """Does nothing: no body is being written."""


class _Walk(_Pending):
    """A request whose gates wait."""

    def __init__(self, passage: Passage, wait: Wait, go_on: Callable[[], Wait | None]) -> None:
        self._passage = passage
        self._go_on = go_on
        super().__init__(passage.incoming, passage.response(), self._walk(wait))
        self.task.add_done_callback(lambda _: passage.leave())  # the task may have been cancelled before it started

    async def _walk(self, wait: Wait | None) -> Reply | None:
        passage = self._passage
        try:
            while wait is not None:
                answered = await wait()
                if answered is not None:
                    return answered.reply
                wait = self._go_on()
                self._attach(passage.response())
            return passage.begin()
        except Error:
            passage.note_refusal()
            raise
        finally:
            passage.leave()

    def _attach(self, response: StreamResponse) -> None:
        """Waits on behalf of the response that the plan has made: the earlier one has no headers of the stream."""
        if response is not self._response:
            self._response = response
            response.attach(self)
