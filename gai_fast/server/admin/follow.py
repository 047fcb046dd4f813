"""`ShownStreams`: the responses that show an admin a running stream.

Owns the pace of such a response, and its ends.

1. New events are requested every `limits.follow_interval` seconds, but not while the client is slow.
2. A response ends after the stream's `done`. It ends without `done` if the stream ended without one (its client
   disconnected), if its worker is gone, if the server drains, or if a new configuration may have removed the admin's
   role.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import AnswerSource, StreamMetrics
from gai_fast.net.logs.writer import ClientCallbacks
from gai_fast.server.admin.watch import WatchedEvents
from gai_fast.server.http.replies import Headers
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.stream_response import StreamResponse

_log: Final = logging.getLogger("gai_fast.server")

Ask = Callable[[int], Awaitable[WatchedEvents | None]]
"""Returns the events after a place, as `Watches.news`. Raises an `Error` if the stream's worker does not answer."""


class ShownStreams:
    """The responses of one worker that show streams."""

    def __init__(self) -> None:
        self._follows: dict[_Follow, None] = {}
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._follows)

    def check(self) -> None:
        """Checks whether one more stream may be followed.

        Raises:
            Overloaded: The server drains, or the maximum number of streams is followed here.
        """
        if self._is_draining:
            raise Error("overloaded", "this server is being stopped", reason="draining")
        if len(self._follows) >= LIMITS.watchers:
            text = f"{LIMITS.watchers} streams are followed in this worker: close one"
            raise Error("overloaded", text, reason="watchers", retry_after_ms=SHARED.overloaded_ms)

    def begin(self, response: StreamResponse, ask: Ask, first: WatchedEvents) -> None:
        """Starts to show a stream. Call `check` before.

        Args:
            response: The client's response, not committed.
            ask: Asks for more events.
            first: The first events.
        """
        follow = _Follow(self._follows, response, ask)
        self._follows[follow] = None
        follow.begin(first)

    def end_all(self) -> None:
        """Ends every response. Clients may reconnect at once."""
        for follow in tuple(self._follows):
            follow.end()

    def begin_drain(self) -> None:
        """Ends every response, and starts no more."""
        self._is_draining = True
        self.end_all()


class _Follow(ClientCallbacks):
    """One response; the `ClientCallbacks` of this response."""

    def __init__(self, all_: dict[_Follow, None], response: StreamResponse, ask: Ask) -> None:
        self.metrics = None
        self._all = all_
        self._response = response
        self._ask = ask
        self._takes_more = asyncio.Event()
        self._takes_more.set()
        self._task: asyncio.Task[None] | None = None

    def begin(self, first: WatchedEvents) -> None:
        """Sends the response headers and the first events."""
        self._response.attach(self)
        self._response.commit()
        self._response.flush()
        self._task = asyncio.get_running_loop().create_task(self._run(first))
        self._task.add_done_callback(_log_bug)

    async def _run(self, news: WatchedEvents | None) -> None:
        place = 0
        try:
            while news is not None:
                place = news.place
                if news.frames:
                    self._response.write((news.frames,))
                if news.is_over:
                    break
                await asyncio.sleep(LIMITS.follow_interval)
                await self._takes_more.wait()
                news = await self._ask(place)
        except Error:
            pass  # the stream's worker is gone or has not answered in time: the admin may ask again
        finally:  # always: no admin may wait forever
            self.end()

    def end(self) -> None:
        """Ends the response. Idempotent."""
        if self._leave():
            self._response.end(())

    def _leave(self) -> bool:
        """Stops asking. Returns whether the response was still open."""
        if self not in self._all:
            return False
        del self._all[self]
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        return True

    # -- ClientCallbacks --

    @property
    def upstream_headers(self) -> Headers:
        """Empty: the response has no upstream bytes."""
        return ()

    @property
    def answered_by(self) -> AnswerSource | None:
        """Always None: the response is no answer of a model."""
        return None

    def measured(self) -> StreamMetrics:
        """Returns empty figures."""
        return StreamMetrics(duration=0.0)

    def client_lost(self) -> None:
        """Stops asking: the admin has disconnected."""
        self._leave()

    def pause(self) -> None:
        """Pauses: the admin's connection is slow."""
        self._takes_more.clear()

    def resume(self) -> None:
        """Resumes: the admin's connection has caught up."""
        self._takes_more.set()


def _log_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("a stream cannot be followed: a bug", exc_info=task.exception())
