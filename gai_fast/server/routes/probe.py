"""`GET /probe`: a stream of known timing; `gai-fast doctor --url` measures with it what proxies do to streams.

1. The probe sends six small events, `limits.stream_probe_interval` seconds apart. It then sends nothing, not even
   heartbeats, for as many seconds as the client asks, and then a last event.
2. The response has the headers of every stream. The gateway never compresses it: a content coding comes from a proxy.
3. The probe needs no key, so few may run at once. It contains no user data.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Final

from gai_fast.kernels import encode_sse
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import StreamSettings
from gai_fast.net.logs.writer import ResponseWriter
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.http.replies import StreamHead
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming

EVENTS: Final = 6
"""Events before the silence; one more event follows the silence."""
_SECONDS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_log: Final = logging.getLogger("gai_fast.server")


class Probes:
    """The probes of one worker."""

    def __init__(self) -> None:
        self._running: set[_Probe] = set()
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, incoming: Incoming, stream: StreamSettings) -> None:
        """Starts the response to a request.

        Args:
            incoming: The request; `idle` in its query is the silence in seconds.
            stream: The settings of the response.

        Raises:
            InvalidRequest: `idle` is not a number of seconds, or is too large.
            Overloaded: The server drains, or the maximum number of probes runs.
        """
        text = incoming.query.get("idle", "0")
        if not _SECONDS.fullmatch(text) or float(text) > SHARED.stream_probe_idle:
            raise Error(
                "invalid_request", f"`idle` must be seconds, at most {SHARED.stream_probe_idle:g}", reason="idle"
            )
        if self._is_draining:
            raise Error("overloaded", "this server is being stopped", reason="draining")
        if len(self._running) >= LIMITS.stream_probes:
            text = f"{LIMITS.stream_probes} probes run in this worker: wait for one to end"
            raise Error("overloaded", text, reason="probes", retry_after_ms=SHARED.overloaded_ms)
        probe = _Probe(self._running, incoming)
        self._running.add(probe)
        probe.begin(stream, float(text))

    def begin_drain(self) -> None:
        """Ends every probe, and refuses new ones."""
        self._is_draining = True
        for probe in tuple(self._running):
            probe.end()


class _Probe:
    """One response; the `StreamCallbacks` of its transport."""

    def __init__(self, all_: set[_Probe], incoming: Incoming) -> None:
        self._all = all_
        self._incoming = incoming
        self._client = incoming.http.transport
        self._writer = ResponseWriter(self._client)
        self._task: asyncio.Task[None] | None = None

    def begin(self, stream: StreamSettings, idle: float) -> None:
        """Sends the headers, and starts to send the events."""
        incoming = self._incoming
        self._client.begin_stream(self, high_water=stream.client_buffer, write_timeout=stream.write_timeout)
        head = StreamHead("text/event-stream", incoming.http.request_id, new_stream_id(), incoming.answer_headers)
        self._writer.start(*self._client.commit(head))
        self._task = asyncio.get_running_loop().create_task(self._run(idle))
        self._task.add_done_callback(self._ended)

    async def _run(self, idle: float) -> None:
        for number in range(1, EVENTS + 1):
            self._push(number)
            await asyncio.sleep(SHARED.stream_probe_interval)
        await asyncio.sleep(idle)
        self._push(EVENTS + 1)

    def _push(self, number: int) -> None:
        self._writer.write((encode_sse({"number": number}, event="probe"),))
        self._writer.flush()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.error("a probe failed: a bug", exc_info=task.exception())
        self.end()

    def end(self) -> None:
        """Ends the response; idempotent."""
        if self not in self._all:
            return
        self._all.remove(self)
        if self._task is not None:
            self._task.cancel()
        self._writer.end(())
        self._client.answered(200)

    def connection_lost(self) -> None:
        """Stops the probe: the client has disconnected."""
        self._all.discard(self)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Does nothing: the rest is a few hundred bytes."""

    def resume_writing(self) -> None:
        """Does nothing: writing was not paused."""
