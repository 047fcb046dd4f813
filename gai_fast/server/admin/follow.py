"""`Follows`: the answers that show an admin a stream as it runs.

Owns the pace of such an answer, and its ends.

1. What is new is asked for each `limits.follow_interval` seconds, but not for a client that is slow.
2. An answer ends after the stream's `done`. It ends without one where the stream ended without telling (its client
   left), its worker is gone, the server drains, or a new configuration may have taken the admin's role.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.server.admin.watch import News
from gai_fast.server.http.replies import Headers
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.stream_response import StreamResponse

_log: Final = logging.getLogger("gai_fast.server")

Ask = Callable[[int], Awaitable[News | None]]
"""Returns the events after a place, as `Watches.news`; raises an `Error` where the stream's worker does not answer."""


class Follows:
    """The answers of one worker that show streams."""

    def __init__(self) -> None:
        self._follows: dict[_Follow, None] = {}
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._follows)

    def check(self) -> None:
        """Checks whether one more stream may be followed.

        Raises:
            Overloaded: The server drains, or as many streams as may be are followed here.
        """
        if self._is_draining:
            raise Error("overloaded", "this server is being stopped", reason="draining")
        if len(self._follows) >= LIMITS.watchers:
            text = f"{LIMITS.watchers} streams are followed in this worker: close one"
            raise Error("overloaded", text, reason="watchers", retry_after_ms=SHARED.overloaded_ms)

    def begin(self, response: StreamResponse, ask: Ask, first: News) -> None:
        """Begins to show a stream; call `check` before.

        Args:
            response: The client's response, not committed.
            ask: Asks for more.
            first: The events to begin with.
        """
        follow = _Follow(self._follows, response, ask)
        self._follows[follow] = None
        follow.begin(first)

    def end_all(self) -> None:
        """Ends every answer; clients may come back at once."""
        for follow in tuple(self._follows):
            follow.end()

    def begin_drain(self) -> None:
        """Ends every answer, and takes no more."""
        self._is_draining = True
        self.end_all()


class _Follow:
    """One answer; the `SessionCallbacks` of its response."""

    metrics: StreamMetrics | None = None

    def __init__(self, all_: dict[_Follow, None], response: StreamResponse, ask: Ask) -> None:
        self._all = all_
        self._response = response
        self._ask = ask
        self._takes_more = asyncio.Event()
        self._takes_more.set()
        self._task: asyncio.Task[None] | None = None

    def begin(self, first: News) -> None:
        """Sends the head and the first events."""
        self._response.attach(self)
        self._response.commit()
        self._response.flush()
        self._task = asyncio.get_running_loop().create_task(self._run(first))
        self._task.add_done_callback(_log_bug)

    async def _run(self, news: News | None) -> None:
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
            pass  # the stream's worker is gone, or late: its admin may ask again
        finally:  # whatever it raises: no admin must wait for ever
            self.end()

    def end(self) -> None:
        """Ends the answer; does nothing a second time."""
        if self._leave():
            self._response.end(())

    def _leave(self) -> bool:
        """Stops asking; returns whether the answer had not ended."""
        if self not in self._all:
            return False
        del self._all[self]
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        return True

    # -- SessionCallbacks --

    @property
    def upstream_headers(self) -> Headers:
        """None: the bytes are ours."""
        return ()

    def measured(self) -> StreamMetrics:
        """No figures."""
        return StreamMetrics(duration=0.0)

    def client_lost(self) -> None:
        """The admin has left."""
        self._leave()

    def pause(self) -> None:
        """The admin's connection is slow."""
        self._takes_more.clear()

    def resume(self) -> None:
        """The admin's connection takes more."""
        self._takes_more.set()


def _log_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("a stream cannot be followed: a bug", exc_info=task.exception())
