"""Answers that must wait for something outside this process: a store, another worker.

Owns the wait. A handler returns at once and leaves its work here. The work ends when the client leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.stream_response import StreamResponse

_log: Final = logging.getLogger("gai_fast.server")

Work = Coroutine[Any, Any, "Reply | None"]
"""Finds out what the answer is; `None`: a stream has begun, which answers."""


class PendingAnswers:
    """The answers of some routes that are being worked on."""

    def __init__(self) -> None:
        self._answers: set[_Pending] = set()

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, incoming: Incoming, response: StreamResponse, work: Work) -> None:
        """Begins to work on an answer.

        Args:
            incoming: The request.
            response: Its response.
            work: Ends with the answer; an `Error` is one too. It is cancelled when the client leaves.
        """
        pending = _Pending(incoming, response, work)
        self._answers.add(pending)
        pending.task.add_done_callback(lambda _: self._answers.discard(pending))


class _Pending:
    """One answer that is being worked on; what its client's response calls until then."""

    metrics: StreamMetrics | None = None

    def __init__(self, incoming: Incoming, response: StreamResponse, work: Work) -> None:
        self._incoming = incoming
        self._response = response
        response.attach(self)
        self.task = asyncio.get_running_loop().create_task(self._run(work))
        self.task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began

    async def _run(self, work: Work) -> None:
        incoming, response = self._incoming, self._response
        try:
            reply = await work
            if reply is not None:
                response.reply(reply)
        except Error as error:
            response.reply(incoming.refusal(error))
        except Exception as problem:  # noqa: BLE001  # a bug of ours, or of a store: the client gets an answer
            _log.error("%s %r could not be handled", incoming.http.method, incoming.path, exc_info=problem)
            response.reply(incoming.refusal(Error("internal", "The server failed to handle this request"), close=True))

    @property
    def upstream_headers(self) -> Headers:
        """None: no upstream has been asked yet."""
        return ()

    def measured(self) -> StreamMetrics:
        """No figures."""
        return StreamMetrics(duration=0.0)

    def client_lost(self) -> None:
        """Ends the work."""
        self.task.cancel()

    def pause(self) -> None:
        """Nothing is written yet."""

    def resume(self) -> None:
        """Nothing is written yet."""
