"""The load generator of `gai-fast bench`: sends many requests at once and measures when each event arrives.

Owns the load and its measurements. Knows nothing about tables, reports and exit codes. Answers of providers are read by
the gateway's upstream adapters. An error inside a stream counts as an error.

Closed loop (no rate): each connection sends its next request as soon as the previous answer has ended. Open loop (a
rate): requests fall due at equal intervals, even if the endpoint is slow. If all connections are busy, requests wait,
and their times count from the moment they fell due; otherwise an endpoint that stalls would get fewer requests and look
better (coordinated omission).
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import orjson
from msgspec import UNSET, Struct, structs
from msgspec.json import Decoder

from gai_fast.cli.processor_time import MOCK_HEADER
from gai_fast.core.relay import Relay
from gai_fast.kernels import SSEParser
from gai_fast.model.errors import CLASSES, Error
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, Peer
from gai_fast.model.upstream_errors import classify
from gai_fast.net.upstream.connection import Exchange, Receiver
from gai_fast.net.upstream.http_request import Origin, encode_request
from gai_fast.net.upstream.pool import UpstreamPool
from gai_fast.providers import Target, get_provider
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.timers import TimerWheel

NATIVE: Final = "gai"
"""The format of `POST /api/v1/stream`; every other format is the name of a provider's API."""
NATIVE_PATH: Final = "/api/v1/stream"
CONNECT_SECONDS: Final = 10.0

GROWTH: Final = 1.01
FINEST: Final = 1e-6
"""Buckets of times are 1 % apart and begin at a microsecond; shorter times count as 0."""


class LoadHistogram:
    """Counts times in seconds, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.most = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """Counts one time."""
        self.count += 1
        self.total += value
        self.most = max(self.most, value)
        self._buckets[round(math.log(value / FINEST, GROWTH)) if value >= FINEST else -1] += 1

    @property
    def mean(self) -> float | None:
        """The exact mean, or None if nothing was counted."""
        return self.total / self.count if self.count else None

    def percentile(self, percent: float) -> float | None:
        """Returns the percentile by nearest rank, within half a percent, or None if nothing was counted."""
        rank = math.ceil(self.count * percent / 100)
        for value, count in self.buckets():
            rank -= count
            if rank <= 0:
                return min(value, self.most)
        return None

    def buckets(self) -> list[tuple[float, int]]:
        """Returns values and their counts, in rising order."""
        return [(FINEST * GROWTH**at if at >= 0 else 0.0, count) for at, count in sorted(self._buckets.items())]


@dataclass(slots=True)
class Measured:
    """The figures of a load. Times are in seconds."""

    seconds: float = 0.0
    requests: int = 0
    """Answers that have ended, complete or failed."""
    unsent: int = 0
    """Requests that fell due while all connections were busy, and were still waiting at the end."""
    events: int = 0
    """Pieces of text, reasoning, arguments or audio."""
    output_tokens: int | None = None
    """Tokens from the answers' own usage. None if no answer had usage."""
    errors: Counter[str] = field(default_factory=Counter)
    """Failed answers by code."""
    first_error: str = ""
    interrupted: bool = False
    client_cpu: float = 0.0
    """The share of a core that this process used; near 1 the client is the bottleneck."""
    mock_cpu: float | None = None
    """The largest share of a core that a `gai-fast mock` reported; near 1 the mock is the bottleneck. None if none
    answered."""
    ttft: LoadHistogram = field(default_factory=LoadHistogram)
    """Times from the request to the first event, for all answers with an event."""
    gap: LoadHistogram = field(default_factory=LoadHistogram)
    """Times between two events of an answer; 0 if both arrived in one read."""
    duration: LoadHistogram = field(default_factory=LoadHistogram)
    """Times from the request to the end, for complete answers."""

    def note_mock(self, told: str) -> None:
        """Notes the share of a core that a mock reports; a value that is no share is ignored."""
        if re.fullmatch(r"[0-9]{1,3}\.[0-9]{2}", told):
            self.mock_cpu = max(float(told), self.mock_cpu or 0.0)


# ---- the request, and the readers of its answer ----------------------------------------------------------------------


class LoadReader(Protocol):
    """Parses the bytes of one answer to events. After the answer's end its methods return no events."""

    def head(self, status: int, headers: dict[str, str]) -> Sequence[Event]:
        """Reads the status and the headers of the response."""

    def feed(self, data: bytes) -> Sequence[Event]:
        """Reads a part of the body."""

    def end(self, error: Error | None) -> Sequence[Event]:
        """Ends the body; `error` is the failure that cut it off, or None."""


class _Failure(Struct, frozen=True):
    code: str = "internal"
    message: str = ""


class _Event(Struct, frozen=True):
    """The members of an event that the load generator reads."""

    type: str
    usage: dict[str, Any] = {}
    error: _Failure = _Failure()


class _Refusal(Struct, frozen=True):
    error: _Failure


_EVENT: Final = Decoder(_Event)
_REFUSAL: Final = Decoder(_Refusal)


class NativeReader:
    """Reads `gai.events.v1` as SSE."""

    def __init__(self) -> None:
        self._parser = SSEParser()
        self._status = 200
        self._refusal = b""
        self._over = False

    def head(self, status: int, headers: dict[str, str]) -> Sequence[Event]:
        self._status = status
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        if status < 400 and media != "text/event-stream":
            return self._failed("provider_unavailable", f"answered with {media or 'something'}, not with a stream")
        return ()

    def feed(self, data: bytes) -> Sequence[Event]:
        if self._over:
            return ()
        if self._status >= 400:
            self._refusal = (self._refusal + data)[: SHARED.error_body]
            return ()
        try:
            events = [_EVENT.decode(one.data) for one in self._parser.feed(data)]
        except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors
            return self._failed("provider_unavailable", "sent an event that is not of gai.events.v1")
        self._over = any(one.type == "done" for one in events)
        return [{"type": one.type, "usage": one.usage, "error": {**structs.asdict(one.error)}} for one in events]

    def end(self, error: Error | None) -> Sequence[Event]:
        if self._over:
            return ()
        if error is not None:
            return self._failed(error.code, error.message)
        if self._status >= 400:
            return self._refused()
        return self._failed("network", "ended the stream before it was complete")

    def _refused(self) -> Sequence[Event]:
        try:
            refusal = _REFUSAL.decode(self._refusal).error
        except (ValueError, RecursionError):
            return self._failed(classify("", (), self._status), f"answered with status {self._status}")
        return self._failed(refusal.code, refusal.message)

    def _failed(self, code: str, message: str) -> Sequence[Event]:
        self._over = True
        return [{"type": "error", "error": {"code": code, "message": message}}, {"type": "done", "finished": False}]


class ProviderReader:
    """Reads a provider's stream with the gateway's adapter.

    Args:
        name: A provider's name, `name` or `name:api`.
        model: The provider's id of the model.
    """

    def __init__(self, name: str, model: str) -> None:
        self._events: list[Event] = []
        self._relay = Relay(get_provider(name).adapter(model), self)

    def event(self, event: Event) -> None:
        """Receives an event from the relay."""
        self._events.append(event)

    def head(self, status: int, headers: dict[str, str]) -> Sequence[Event]:
        self._relay.receive_head(status, headers)
        return self._take()

    def feed(self, data: bytes) -> Sequence[Event]:
        self._relay.receive_data(data, now_ms())
        return self._take()

    def end(self, error: Error | None) -> Sequence[Event]:
        self._relay.receive_eof(error, now_ms())
        return self._take()

    def _take(self) -> Sequence[Event]:
        events, self._events = self._events, []
        return events


@dataclass(frozen=True, slots=True)
class LoadedEndpoint:
    """The request that is sent repeatedly.

    Args:
        url: The URL for the report, without a key.
        base: Scheme, host and port.
        path: The rest of the URL.
        headers: The headers of every request.
        body: The body of every request.
        format: `gai`, or the provider whose API the endpoint speaks.
        model: The model in the request; empty: the endpoint's default.
    """

    url: str
    base: str
    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    format: str
    model: str

    def reader(self) -> LoadReader:
        """Returns a reader for one answer."""
        return NativeReader() if self.format == NATIVE else ProviderReader(self.format, self.model)


def endpoint(
    url: str,
    *,
    format: str,
    model: str,
    prompt: str,
    max_tokens: int | None,
    api_key: str | None,
    headers: Mapping[str, str],
) -> LoadedEndpoint:
    """Builds the request from the user's arguments.

    Args:
        url: The endpoint, or the base URL of the API's SDKs, or only scheme, host and port.
        format: `gai` or a provider's name.
        model: The model; only `gai` has a default.
        prompt: The user's message.
        max_tokens: The longest answer. None means the API's default.
        api_key: The credential; sent as the API expects it.
        headers: Additional headers with lower-case names; they replace the API's own headers of equal names.

    Raises:
        ValueError: The URL, the format or a header cannot be used; or the format needs a model.
        Error: The API does not support the request.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not parts.netloc:
        raise ValueError("the URL must begin with http:// or https://, and name a host")
    if not _is_text(model) or not _is_text(prompt):
        raise ValueError("the model and the prompt must be UTF-8")
    if format == NATIVE:
        asked = {"model": model, "query": prompt, "max_tokens": max_tokens}
        body = orjson.dumps({key: value for key, value in asked.items() if value})
        own = {"content-type": "application/json", "accept": "text/event-stream"}
        if api_key:
            own["authorization"] = f"Bearer {api_key}"
        path = path or NATIVE_PATH
    else:
        api = get_provider(format)
        if api.recording:
            raise ValueError(f"{format} is a recording, not an API that could be asked")
        if not model:
            raise ValueError(f"the format {format} needs a model: name one with --model")
        request = api.build_request(
            Request(query=prompt, max_tokens=UNSET if max_tokens is None else max_tokens), Target(model, api_key)
        )
        body = request.body
        own = {name.lower(): value for name, value in request.headers}
        if not path.endswith(request.path.partition("?")[0]):
            path = (path or urlsplit(api.base_url).path.rstrip("/")) + request.path
    base = parts._replace(path="").geturl()
    sent = [*{**own, **headers}.items()]
    try:
        encode_request(Origin.parse(base), "POST", path, sent, body)
    except ValueError as problem:
        raise ValueError(str(problem).replace("base_url", "the URL")) from None
    return LoadedEndpoint(f"{base}{path}", base, path, sent, body, format, model)


def _is_text(given: str) -> bool:
    """Returns whether a command-line argument is UTF-8. Python decodes other bytes to lone surrogates."""
    return given.encode("utf-8", "ignore").decode() == given


# ---- the load --------------------------------------------------------------------------------------------------------


class _Answer(Receiver):
    """One running answer: the receiver of its exchange.

    Args:
        load: The load to which the answer belongs.
        due: The time at which its request fell due, by `time.monotonic()`: a loop's own clock may only count
            milliseconds.
    """

    __slots__ = ("_due", "_ended_at", "_error", "_last", "_load", "_reader", "_tokens", "exchange")

    def __init__(self, load: Load, due: float) -> None:
        self.exchange: Exchange | None = None
        self._load = load
        self._due = due
        self._reader = load.endpoint.reader()
        self._last: float | None = None
        self._ended_at: float | None = None
        self._error: tuple[str, str] | None = None
        self._tokens: int | None = None

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        if MOCK_HEADER in headers:
            self._load.measured.note_mock(headers[MOCK_HEADER])
        self._take(self._reader.head(status, headers))

    def body_received(self, data: bytes) -> None:
        self._take(self._reader.feed(data))

    def exchange_ended(self, error: Error | None) -> None:
        self._take(self._reader.end(error))
        measured = self._load.measured
        measured.requests += 1
        if self._error is None and self._ended_at is not None:
            measured.duration.add(self._ended_at - self._due)
            if self._tokens is not None:
                measured.output_tokens = (measured.output_tokens or 0) + self._tokens
        else:
            code, message = self._error or ("network", "the stream did not end")
            measured.errors[code] += 1
            # The message names a setting of the gateway, which this command does not have.
            measured.first_error = measured.first_error or f"{code}: {message}".replace(
                "check base_url", "check the URL"
            )
        self._load.ended(self)

    def _take(self, events: Sequence[Event]) -> None:
        now = time.monotonic()
        for event in events:
            kind = event["type"]
            if kind.endswith(".delta"):
                self._load.measured.events += 1
                if self._last is None:
                    self._load.measured.ttft.add(now - self._due)
                else:
                    self._load.measured.gap.add(now - self._last)
                self._last = now
            elif kind == "finish":
                usage = event.get("usage", {})
                tokens = usage.get("output_tokens")
                if usage.get("source", "counted") == "counted" and isinstance(tokens, int):
                    self._tokens = tokens
            elif kind == "error":
                # The endpoint is not trusted: it cannot add error codes, and its message cannot control the terminal.
                code = event["error"]["code"]
                known = code if code in CLASSES else "provider_unavailable"
                self._error = known, Error("internal", event["error"]["message"]).message
            elif kind == "done":
                self._ended_at = now


class Load:
    """One load on one endpoint.

    Args:
        endpoint: The request.
        connections: Requests at once, at most.
        requests: The total number of requests. None means no bound.
        rate: Requests per second that fall due. None means that each connection sends its next request at once.
        duration: Seconds after which no request is sent. None means no bound.
        timeout: Seconds after which an answer counts as failed.
    """

    def __init__(
        self,
        endpoint: LoadedEndpoint,
        *,
        connections: int,
        requests: int | None,
        rate: float | None,
        duration: float | None,
        timeout: float,
    ) -> None:
        self.endpoint = endpoint
        self.measured = Measured()
        self.requests = requests
        self.duration = duration
        self._connections = connections
        self._rate = rate
        self._timeout = timeout
        self._due = 0
        self._late: deque[float] = deque()
        self._running: set[_Answer] = set()
        self._pool: UpstreamPool
        self._begun = 0.0
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event

    @property
    def running(self) -> int:
        """The number of running answers."""
        return len(self._running)

    @property
    def elapsed(self) -> float:
        """Seconds since the first request."""
        return time.monotonic() - self._begun

    async def run(self) -> None:
        """Runs until the last answer has ended; the figures are in `measured`."""
        loop = self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._pool = UpstreamPool(
            Peer(self.endpoint.base, min(CONNECT_SECONDS, self._timeout), self._timeout, self._timeout),
            timers=TimerWheel(loop),
            max_connections=self._connections,
        )
        self._begun = time.monotonic()
        cpu = time.process_time()
        if self.duration is not None:
            loop.call_later(self.duration, self._check_end)
        if self._rate is None:
            for _ in range(self._connections):
                self._send_next()
        else:
            self._fall_due()
        try:
            await self._over.wait()
        finally:
            self.measured.seconds = self.elapsed
            self.measured.client_cpu = (time.process_time() - cpu) / self.measured.seconds
            self.measured.unsent = len(self._late)
            await self._pool.close()

    def stop(self) -> None:
        """Ends the load now. Running answers are closed and not counted."""
        self.measured.interrupted = self._stopped = True
        for answer in self._running:
            if answer.exchange is not None:
                answer.exchange.close()
        self._running.clear()
        self._over.set()

    def ended(self, answer: _Answer) -> None:
        """Notes that an answer has ended."""
        self._running.discard(answer)
        if self._late and not self._is_past:
            self._send(self._late.popleft())
        elif self._rate is None:
            self._send_next()
        self._check_end()

    @property
    def _is_past(self) -> bool:
        """Whether no further request may be sent."""
        return self._stopped or (self.duration is not None and self.elapsed >= self.duration)

    @property
    def _is_exhausted(self) -> bool:
        """Whether no further request falls due."""
        return self._is_past or (self.requests is not None and self._due >= self.requests)

    def _check_end(self) -> None:
        if not self._running and self._is_exhausted and (not self._late or self._is_past):
            self._over.set()

    def _send_next(self) -> None:
        if not self._is_exhausted:
            self._due += 1
            self._send(time.monotonic())

    def _fall_due(self) -> None:
        if not self._is_exhausted:
            assert self._rate is not None
            due = self._begun + self._due / self._rate
            self._due += 1
            if len(self._running) < self._connections:
                self._send(due)
            else:
                self._late.append(due)
            self._loop.call_later(max(0.0, self._due / self._rate - self.elapsed), self._fall_due)
        self._check_end()

    def _send(self, due: float) -> None:
        answer = _Answer(self, due)
        self._running.add(answer)
        to = self.endpoint
        answer.exchange = self._pool.open("POST", to.path, to.headers, to.body, answer, ANONYMOUS)
