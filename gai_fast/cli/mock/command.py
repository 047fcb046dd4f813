"""A fake upstream: answers like a provider, with realistic timing, and fails on demand.

Owns the pace of the answers and the execution of each fault. `dialects/` owns the frames, `faults.py` the names of the
faults. Knows nothing about the gateway, which is its client.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self

import click

from gai_fast.cli import FiniteRange, WholeRange, announce, cannot_listen, option
from gai_fast.cli.local_server import LocalServer, cut, read_body, reset, run_until_signal
from gai_fast.cli.mock.dialects import DIALECTS
from gai_fast.cli.mock.dialects._base import ANY_PREFIX, CREATED, MockAnswer, to_json
from gai_fast.cli.mock.faults import BEFORE_HEAD, FAULTS, STATUSES, Fault
from gai_fast.cli.processor_time import BUSY, MOCK_HEADER, ProcessorShare
from gai_fast.model.limits import SHARED

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Fault", "Mock", "MockRequest", "command"]

_HTML: Final = b"<!doctype html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
_MODELS: Final = [{"id": "mock", "object": "model", "created": CREATED, "owned_by": "gai-fast"}]


@dataclass(slots=True)
class MockRequest:
    """One request and its answer. Times are `time.monotonic()` seconds."""

    method: str
    path: str
    headers: dict[str, str]
    """Headers with lower-case names; of a repeated header the last value."""
    raw: bytes
    body: Any
    """The parsed body. None if it is not JSON."""
    at: float
    deltas: int = 0
    """Text deltas written so far."""
    answered_at: float | None = None
    """The time at which the whole answer was written."""
    closed_at: float | None = None
    """The time at which the connection was lost or closed."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with `closed_at`; with it a test can wait until the gateway has closed the connection."""

    def close(self, _: object = None) -> None:
        """Records the end of the connection."""
        self.closed_at = time.monotonic()
        self.closed.set()


class Mock:
    """A fake upstream in this process.

        async with Mock(rate=0) as mock:
            ...  # ask f"{mock.url}/v1/chat/completions"

    Args:
        dialect: A name of `DIALECTS`; empty: all of them, distinguished by the path.
        rate: Text deltas per second; 0: as fast as the client reads them.
        ttft: Seconds from the request to the first frame.
        deltas: Text deltas of an answer.
        fault: The fault, if any; may be replaced at any time, for the next request.
        host: Address to listen on.
        port: Port to listen on; 0 chooses a free one.
        keeps_requests: Whether `requests` keeps every request; memory then grows with each.
        on_busy: Called once, with the share of a core that this process uses, when it is the limit of a load.
    """

    def __init__(
        self,
        *,
        dialect: str = "",
        rate: float = 0.0,
        ttft: float = 0.0,
        deltas: int = 64,
        fault: Fault | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        keeps_requests: bool = True,
        on_busy: Callable[[float], None] | None = None,
    ) -> None:
        self.dialects = {dialect: DIALECTS[dialect]} if dialect else dict(DIALECTS)
        self.rate = rate
        self.ttft = ttft
        self.deltas = deltas
        self.requests: list[MockRequest] = []
        self._keeps_requests = keeps_requests
        self._received = 0
        self._fault = fault
        self._on_busy = on_busy
        self._processor = ProcessorShare()
        self._server = LocalServer(self._app(), host=host, port=port, listens=not self._refuses)

    def note_share(self) -> float:
        """Returns the share of a core that this process used in the last second; reports the first one above `BUSY`."""
        share = self._processor.share()
        if share > BUSY and self._on_busy is not None:
            self._on_busy(share)
            self._on_busy = None
        return share

    @property
    def fault(self) -> Fault | None:
        """The fault of the next request."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._fault = fault
        self._server.resets_all = self._refuses  # a server that already listens refuses connections by a reset

    @property
    def _refuses(self) -> bool:
        return self._fault is not None and self._fault.kind == "refuse" and self._fault.after is None

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return self._server.connections

    @property
    def url(self) -> str:
        """The mock's base URL: scheme, host and port."""
        return self._server.url

    async def start(self) -> None:
        """Starts to listen.

        Raises:
            OSError: The port is taken.
        """
        await self._server.start()

    async def stop(self) -> None:
        """Stops listening and closes every connection."""
        await self._server.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.stop()

    # -- routes --

    def _app(self) -> web.Application:
        from aiohttp import web

        app = web.Application(client_max_size=SHARED.whole_answer)
        app.router.add_get(ANY_PREFIX + "models", self._models)
        for name, dialect in self.dialects.items():
            app.router.add_post(dialect.route, partial(self._answer, name))
        app.router.add_route("*", "/{path:.*}", self._unknown)
        return app

    async def _receive(self, http: web.Request) -> MockRequest:
        raw = await read_body(http)
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        headers = {name.lower(): value for name, value in http.headers.items()}
        request = MockRequest(http.method, http.rel_url.raw_path, headers, raw, body, time.monotonic())
        self._received += 1
        if self._keeps_requests:
            self.requests.append(request)
        http.task.add_done_callback(request.close)  # the task serves the connection, and ends with it
        return request

    async def _models(self, http: web.Request) -> web.StreamResponse:
        request = await self._receive(http)
        return await _whole(http, request, to_json({"object": "list", "data": _MODELS}))

    async def _unknown(self, http: web.Request) -> web.StreamResponse:
        request = await self._receive(http)
        error = next(iter(self.dialects.values())).error
        message = f"The mock does not answer {request.method} {request.path}"
        return await _whole(http, request, to_json(error(404, message)), status=HTTPStatus.NOT_FOUND)

    async def _answer(self, dialect: str, http: web.Request) -> web.StreamResponse:
        request = await self._receive(http)
        kind = self.dialects[dialect]
        asked = kind.asked(request.body if isinstance(request.body, dict) else {}, http.match_info)
        missing = [key for key in kind.required if not asked.get(key)]
        if missing:
            message = f"The request is not valid: {', '.join(missing)} missing"
            return await _whole(http, request, to_json(kind.error(400, message)), status=HTTPStatus.BAD_REQUEST)
        fault = self.fault
        if fault is not None and fault.after is None and fault.kind in BEFORE_HEAD:
            return await _instead(http, request, kind, fault.kind)
        running = _Running(self, http, request, kind(asked, self._received), fault)
        return await (running.stream() if asked.get("stream") is True else running.once())


class _Running:
    """One answer to one request."""

    def __init__(
        self, mock: Mock, http: web.Request, request: MockRequest, answer: MockAnswer, fault: Fault | None
    ) -> None:
        self._mock = mock
        self._http = http
        self._request = request
        self._answer = answer
        self._fault = fault
        self._texts, self._cut_short = answer.texts(mock.deltas)

    async def stream(self) -> web.StreamResponse:
        """Writes the answer frame by frame."""
        from aiohttp import HttpVersion11, web

        answer, request = self._answer, self._request
        await self._until(0)
        share = f"{self._mock.note_share():.2f}"
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", MOCK_HEADER: share}
        response = web.StreamResponse(headers=headers)
        if self._http.version >= HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(self._http)
        breaks_at = None if self._fault is None else self._fault.after or 0
        if breaks_at == 0 and not await self._break(response, self._texts[0]):
            return response
        for frame in answer.opening():
            await response.write(frame)
        for index, text in enumerate(self._texts):
            if index:
                await self._until(index)
            await response.write(answer.delta(text))
            request.deltas += 1
            if request.deltas == breaks_at and not await self._break(response, text):
                return response
        for frame in answer.closing(len(self._texts), self._cut_short):
            await response.write(frame)
        return await _end(response, request)

    async def _break(self, response: web.StreamResponse, text: str) -> bool:
        """Breaks the running stream, and returns whether the answer continues."""
        self._http.writer.send_headers()
        kind = "" if self._fault is None else self._fault.kind
        match kind:
            case "malformed":
                frame = self._answer.delta(text)
                await response.write(frame[: len(frame) // 2] + b"\n\n")
                return True
            case "cut":
                cut(self._http)
                return False
            case "stall" | "silent":
                await _for_ever()
            case "reset" | "refuse":
                await reset(self._http)
                return False
            case "html":
                await response.write(_HTML + b"\n\n")
            case "json-error":
                await response.write(to_json(self._answer.error(500, _words(500))) + b"\n\n")
            case _:
                status = STATUSES.get(kind, 503)
                await response.write(self._answer.error_frame(status, _words(status)))
        await _end(response, self._request)
        return False

    async def once(self) -> web.StreamResponse:
        """Writes a whole answer for a request without streaming, at the time of its last delta."""
        from aiohttp import web

        await self._until(len(self._texts) - 1)
        http, request, fault = self._http, self._request, self._fault
        body = to_json(self._answer.whole(self._texts, self._cut_short))
        if fault is None:
            response = await _whole(http, request, body)
            request.deltas = len(self._texts)
            return response
        match fault.kind:
            case "malformed":
                return await _whole(http, request, body[: len(body) // 2])
            case "cut" | "stall" | "silent":
                response = web.StreamResponse(headers=_JSON)
                response.content_length = len(body)
                await response.prepare(http)
                await response.write(body[: len(body) // 2])
                if fault.kind != "cut":
                    await _for_ever()
                cut(http)
                return response
            case "reset" | "refuse":
                await reset(http)
                return web.Response()
            case "error-event":
                return await _instead(http, request, type(self._answer), "503")
            case kind:
                return await _instead(http, request, type(self._answer), kind)

    async def _until(self, delta: int) -> None:
        """Waits for the moment of a delta."""
        moment = self._request.at + self._mock.ttft + (delta / self._mock.rate if self._mock.rate else 0.0)
        # The schedule is absolute, so that delays do not add up. A loop, because uvloop counts whole milliseconds: a
        # sleep may end up to one millisecond early.
        while True:
            remaining = moment - time.monotonic()
            if remaining <= 0:
                return
            await asyncio.sleep(remaining)


_JSON: Final = {"content-type": "application/json"}


async def _instead(http: web.Request, request: MockRequest, kind: type[MockAnswer], fault: str) -> web.StreamResponse:
    """Executes a fault that replaces the answer."""
    match fault:
        case "silent":
            await _for_ever()
        case "html":
            return await _whole(http, request, _HTML, headers={"content-type": "text/html; charset=utf-8"})
        case "json-error":
            return await _whole(http, request, to_json(kind.error(500, _words(500))))
    status = HTTPStatus(STATUSES[fault])
    headers = {**_JSON, **({"retry-after": "1"} if status in (429, 503) else {})}
    return await _whole(http, request, to_json(kind.error(status, _words(status))), status=status, headers=headers)


async def _whole(
    http: web.Request,
    request: MockRequest,
    body: bytes,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] = _JSON,
) -> web.StreamResponse:
    from aiohttp import web

    response = web.Response(body=body, status=status, headers=headers)
    await response.prepare(http)
    return await _end(response, request)


async def _end(response: web.StreamResponse, request: MockRequest) -> web.StreamResponse:
    await response.write_eof()
    request.answered_at = time.monotonic()
    return response


async def _for_ever() -> None:
    """Waits until the client disconnects or the mock stops."""
    await asyncio.Event().wait()


def _words(status: int) -> str:
    return {
        429: "Rate limit reached: the mock fails as it was asked to",
        503: "Overloaded: the mock fails as it was asked to",
    }.get(status, "The mock fails as it was asked to")


def _fault(context: click.Context, parameter: click.Parameter, value: str | None) -> Fault | None:
    try:
        return None if value is None else Fault.parse(value)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def _say_busy(share: float) -> None:
    click.echo(f"this mock uses {share:.0%} of a core: what is measured through it may be its own", err=True)


@click.command()
@option("--port", type=WholeRange(0, 65535), default=9000, help="Port on 127.0.0.1; 0 chooses a free one.")
@option("--dialect", type=click.Choice(list(DIALECTS)), help="The only dialect to speak; by default all, by path.")
@option("--rate", type=FiniteRange(0), default=50.0, help="Text deltas a second; 0: no pause between them.")
@option("--ttft", type=FiniteRange(0), default=0.3, help="Seconds to the first frame.")
@option("--deltas", type=WholeRange(1), default=64, help="Text deltas of an answer.")
@option(
    "--fail",
    callback=_fault,
    metavar="KIND[@N]",
    help=f"Fail, after N text deltas if N is given. Kinds: {', '.join(FAULTS)}.",
)
def command(port: int, dialect: str | None, rate: float, ttft: float, deltas: int, fail: Fault | None) -> None:
    """A fake upstream with realistic timing and faults.

    Point an upstream's base_url at the URL it prints.
    """
    mock = Mock(
        dialect=dialect or "",
        rate=rate,
        ttft=ttft,
        deltas=deltas,
        fault=fail,
        port=port,
        keeps_requests=False,
        on_busy=_say_busy,
    )
    try:
        asyncio.run(run_until_signal(mock, lambda url: announce(f"mock upstream on {url}")))
    except OSError as problem:
        raise cannot_listen(f"127.0.0.1:{port}", problem) from None
