"""`Feed`: samples that are pushed to dashboards as server-sent events.

1. While there are dashboards, one task of the worker takes a sample every `limits.sample_interval` seconds. It is
   encoded once for all dashboards.
2. A slow client gets no sample until it has caught up: samples are not queued. If a client reads nothing for
   `write_timeout` seconds, its transport closes the connection.
3. A new configuration ends all responses, because a key may have lost its role; clients reconnect. A drain ends them
   too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from gai_fast.kernels import encode_sse
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import StreamSettings
from gai_fast.net.logs.writer import ResponseWriter
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.admin.bodies import Sample, plain
from gai_fast.server.http.replies import StreamHead
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming

_log: Final = logging.getLogger("gai_fast.server")


class Samples(Protocol):
    """Takes samples of the server."""

    async def sample(self) -> Sample:
        """Returns a sample.

        Raises:
            Error: A sample is unavailable now.
        """


class Feed:
    """The dashboards of one worker.

    Args:
        samples: Takes the samples.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._watchers: dict[_Watcher, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, incoming: Incoming, stream: StreamSettings) -> None:
        """Starts to push samples to a client.

        Args:
            incoming: The client's request.
            stream: The settings of the response.

        Raises:
            Overloaded: The server drains, or the maximum number of clients is reached.
        """
        if self._is_draining:
            raise Error("overloaded", "this server is being stopped", reason="draining")
        if len(self._watchers) >= LIMITS.watchers:
            text = f"{LIMITS.watchers} dashboards are open in this worker: close one"
            raise Error("overloaded", text, reason="watchers", retry_after_ms=SHARED.overloaded_ms)
        watcher = _Watcher(self._watchers, incoming)
        self._watchers[watcher] = None  # first: a disconnected client is reported at once, and removed
        watcher.begin(stream)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(_log_bug)

    async def _run(self) -> None:
        try:
            while self._watchers:
                try:
                    frame = encode_sse(plain(await self._samples.sample()), event="sample")
                except Error as error:  # another worker has not answered in time: the next sample tries again
                    frame = encode_sse({"error": error.payload()}, event="unavailable")
                for watcher in tuple(self._watchers):
                    watcher.push(frame)
                await asyncio.sleep(LIMITS.sample_interval)
        finally:  # always: no dashboard may wait forever
            self._task = None
            self.end_all()

    def end_all(self) -> None:
        """Ends every response. Clients may reconnect at once."""
        for watcher in tuple(self._watchers):
            watcher.end()

    def begin_drain(self) -> None:
        """Ends every response, and accepts no more clients."""
        self._is_draining = True
        self.end_all()

    def close(self) -> None:
        """Ends every response and the task."""
        self.begin_drain()
        if self._task is not None:
            self._task.cancel()


def _log_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("the figures of the dashboard cannot be had: a bug", exc_info=task.exception())


class _Watcher:
    """One client; the `StreamCallbacks` of its transport."""

    def __init__(self, all_: dict[_Watcher, None], incoming: Incoming) -> None:
        self._all = all_
        self._incoming = incoming
        self._client = incoming.http.transport
        self._writer = ResponseWriter(self._client)
        self._is_slow = False

    def begin(self, stream: StreamSettings) -> None:
        """Sends the response headers."""
        incoming = self._incoming
        self._client.begin_stream(self, high_water=stream.client_buffer, write_timeout=stream.write_timeout)
        head = StreamHead("text/event-stream", incoming.http.request_id, new_stream_id(), incoming.answer_headers)
        self._writer.start(*self._client.commit(head))
        self._writer.flush()
        self._is_slow = self._client.is_paused

    def push(self, frame: bytes) -> None:
        """Writes a frame, unless the client is slow."""
        if not self._is_slow:
            self._writer.write((frame,))

    def end(self) -> None:
        """Ends the response."""
        del self._all[self]
        self._writer.end(())
        self._client.answered(200)

    def connection_lost(self) -> None:
        """Removes the client after a disconnect."""
        self._all.pop(self, None)

    def pause_writing(self) -> None:
        """Marks the client as slow."""
        self._is_slow = True

    def resume_writing(self) -> None:
        """Marks the client as caught up."""
        self._is_slow = False
