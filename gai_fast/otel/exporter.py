"""Sends spans and metrics to a receiver of OTLP over HTTP, as JSON, from a thread of its own.

Owns the thread, the spans that wait, and what becomes of them while the receiver fails. Knows no attribute.

1. `put` never waits. Where the bytes of `limits.otel_waiting` wait already, new spans are dropped and counted.
2. Spans are sent after `span_delay` seconds, or when `limits.otel_batch` bytes are there; metrics each
   `metric_interval`. What the receiver does not take for now (429, 502, 503, 504, no answer) is sent again as its
   `Retry-After` says, `limits.otel_attempts` times in all; metrics are counted from the beginning, so the next ones
   hold them all. What it refuses otherwise is dropped.
3. A warning is logged when exporting begins to fail, at most once in `limits.warning_interval`, and a line when it
   works again, with the number of spans that were lost.
4. At the end what is under way is awaited, and the last spans and metrics are sent once: within `limits.otel_end`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from gai_fast.model.addresses import is_forbidden_address
from gai_fast.model.limits import SHARED
from gai_fast.model.retry_after import retry_after_ms
from gai_fast.model.settings import OTelSettings
from gai_fast.model.version import __version__
from gai_fast.otel import otlp
from gai_fast.otel.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.otel")
_TAKEN: Final = range(200, 300)
_FOR_NOW: Final = frozenset((429, 502, 503, 504))
"""The statuses after which a request is sent again (OTLP, "Retryable Response Codes")."""


class _Refusal(NamedTuple):
    """Why the receiver has not taken a request.

    Attributes:
        reason: In words.
        may_repeat: Whether it may take the same request later.
        wait: Seconds until then, if the response has them.
    """

    reason: str
    may_repeat: bool
    wait: float | None = None


class _Batch(NamedTuple):
    """Spans for one request.

    Attributes:
        data: Spans of `otlp.span`, with commas between them.
        spans: The number of spans.
    """

    data: bytes
    spans: int


class Exporter:
    """Sends the spans and metrics that are put in, until `close`.

    Args:
        settings: The receiver.
        origin: The attributes of the process.
        metrics: Returns the present metrics for `otlp.metrics`, empty if there are none; called in the thread.
    """

    def __init__(self, settings: OTelSettings, origin: otlp.Attributes, metrics: Callable[[], bytes]) -> None:
        self._settings = settings
        self._origin = origin
        self._metrics = metrics
        self._headers: Mapping[str, str] = {
            **{name: value.reveal() for name, value in settings.headers.items()},
            "content-type": "application/json",
            "user-agent": f"gai-fast/{__version__}",
        }
        self.lost = 0
        """Spans that were dropped and will not be sent."""
        self._spans: deque[tuple[bytes, int]] = deque()  # with their numbers
        self._waiting = 0  # bytes of them
        self._unsent: _Batch | None = None  # the batch that is being sent
        self._not_before = 0.0  # monotonic seconds: the receiver is left alone
        self._is_closed = False
        self._is_failing = False
        self._lost_before = 0  # when exporting began to fail
        self._silent_until = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # the thread's, while it is open; used under the lock
        self._due: asyncio.Event  # set if spans are sent before their time
        self._stop: asyncio.Event
        self._sending: asyncio.Lock  # held while spans are being sent
        try:
            threading.Thread(target=self._run, name="gai-fast-otel", daemon=True).start()
        except RuntimeError:
            self._is_closed = True
            self._ended.set()
            _log.warning("nothing is exported to %s: the system has no thread to spare", settings.endpoint)

    def put(self, spans: bytes, count: int) -> None:
        """Takes spans, or drops them: rule 1.

        Args:
            spans: Spans of `otlp.span`, with commas between them.
            count: Their number.
        """
        with self._lock:
            before = self._waiting
            if self._is_closed or before + len(spans) > LIMITS.otel_waiting:
                self.lost += count
                return
            self._spans.append((spans, count))
            self._waiting = before + len(spans)
            if self._loop is not None and before < LIMITS.otel_batch <= self._waiting:
                self._loop.call_soon_threadsafe(self._due.set)

    async def close(self) -> None:
        """Sends the waiting spans, and ends the thread: rule 4."""
        await asyncio.sleep(LIMITS.otel_check)  # answers that end now have their spans too
        with self._lock:
            self._is_closed = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)
        for _ in range(round(LIMITS.otel_end / LIMITS.otel_check)):
            if self._ended.is_set():
                break
            await asyncio.sleep(LIMITS.otel_check)

    # -- the thread --

    def _run(self) -> None:
        try:
            asyncio.run(self._export())
        finally:
            self._leave()
            self._ended.set()

    def _leave(self) -> None:
        """Takes nothing more, and is not woken any more."""
        with self._lock:
            self._is_closed = True
            self._loop = None

    async def _export(self) -> None:
        self._due, self._stop, self._sending = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        with self._lock:
            self._loop = asyncio.get_running_loop()
            if self._is_closed:
                self._stop.set()
        try:
            await self._export_until_the_end()
        finally:  # before the loop is closed: a closed one cannot be woken
            self._leave()

    async def _export_until_the_end(self) -> None:
        limit = ClientTimeout(total=LIMITS.otel_request)
        async with ClientSession(
            connector=TCPConnector(resolver=_Resolver()),
            headers=self._headers,
            timeout=limit,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each(session)) for each in (self._export_spans, self._export_metrics)]
                await self._stop.wait()
                end = asyncio.get_running_loop().time() + LIMITS.otel_end
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(end), self._sending:
                        pass  # spans that are being sent are not sent again: the receiver would have them twice
                for task in tasks:
                    task.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._send_metrics(session)
                    while batch := self._unsent or self._take():
                        self._unsent = None
                        await self._send_spans(session, batch)

    async def _export_spans(self, session: ClientSession) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.span_delay):
                    await self._due.wait()
            self._due.clear()
            while batch := self._take():
                self._unsent = batch
                await self._send_again_and_again(session, batch)
                self._unsent = None

    async def _export_metrics(self, session: ClientSession) -> None:
        while True:
            await asyncio.sleep(self._settings.metric_interval)
            await self._may_send()
            await self._send_metrics(session)

    async def _may_send(self) -> None:
        """Waits until the receiver may be sent to again (`_not_before`)."""
        await asyncio.sleep(self._not_before - time.monotonic())

    def _take(self) -> _Batch | None:
        """Takes the next spans, about `limits.otel_batch` bytes. None if there are none."""
        pieces, size, count = [], 0, 0
        with self._lock:
            while self._spans and size < LIMITS.otel_batch:
                piece, number = self._spans.popleft()
                pieces.append(piece)
                size += len(piece)
                count += number
            self._waiting -= size
        return _Batch(b",".join(pieces), count) if pieces else None

    async def _send_again_and_again(self, session: ClientSession, batch: _Batch) -> None:
        wait = LIMITS.otel_retry
        for _ in range(LIMITS.otel_attempts):
            await self._may_send()
            async with self._sending:
                refusal = await self._send_spans(session, batch)
            if refusal is None:
                return
            if not refusal.may_repeat:
                break
            if refusal.wait is None:
                self._not_before = time.monotonic() + wait
                wait *= 2
        with self._lock:
            self.lost += batch.spans

    async def _send_metrics(self, session: ClientSession) -> None:
        metrics = self._metrics()
        if metrics:
            await self._send(session, "/v1/metrics", otlp.metrics(self._origin, __version__, metrics))

    async def _send_spans(self, session: ClientSession, batch: _Batch) -> _Refusal | None:
        return await self._send(session, "/v1/traces", otlp.traces(self._origin, __version__, batch.data))

    async def _send(self, session: ClientSession, path: str, data: bytes) -> _Refusal | None:
        """Sends one request. Returns the reason of its refusal, or None if it was accepted."""
        refusal: _Refusal | None = None
        try:
            async with session.post(self._settings.endpoint + path, data=data, allow_redirects=False) as response:
                if response.status not in _TAKEN:
                    refusal = _refusal(response)
                if len(await response.content.read(LIMITS.otel_answer)) == LIMITS.otel_answer:
                    response.close()  # reading on would take as long as it likes
        except TimeoutError:
            refusal = _Refusal("it does not answer in time", may_repeat=True)
        except (ClientError, OSError, ValueError) as problem:
            refusal = _Refusal(f"it cannot be reached ({type(problem).__name__})", may_repeat=True)
        if refusal is None:
            self._worked()
            return None
        if refusal.wait is not None:
            self._not_before = time.monotonic() + refusal.wait
        self._failed(refusal)
        return refusal

    # -- the operator: rule 3 --

    def _failed(self, refusal: _Refusal) -> None:
        now = time.monotonic()
        if not self._is_failing and now >= self._silent_until:
            self._is_failing = True
            self._silent_until = now + SHARED.warning_interval
            self._lost_before = self.lost
            _log.warning("spans and metrics cannot be exported to %s: %s", self._settings.endpoint, refusal.reason)

    def _worked(self) -> None:
        if self._is_failing:
            self._is_failing = False
            lost = self.lost - self._lost_before
            _log.info("spans and metrics are exported to %s again: %d spans were lost", self._settings.endpoint, lost)


def _refusal(response: ClientResponse) -> _Refusal:
    headers = {name.lower(): value for name, value in response.headers.items()}
    wait = retry_after_ms(headers, "", round(time.time() * 1e3))
    seconds = None if wait is None else min(wait / 1e3, LIMITS.otel_retry_most)
    return _Refusal(f"it answers {response.status}", response.status in _FOR_NOW, seconds)


class _Resolver(AbstractResolver):
    """Looks names up in the exporter's own thread: an executor's threads would delay the end of the process."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Returns the addresses of a host.

        Raises:
            OSError: It has no address, or an address that no receiver may have.
        """
        found = []
        for kind, _, protocol, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
            if is_forbidden_address(str(address[0])):
                raise OSError(f"{host} is a link-local or metadata address")
            found.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=int(address[1]),
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        return found

    async def close(self) -> None:
        """Does nothing: it has no sockets."""
