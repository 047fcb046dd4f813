"""`[[tool]]` with a `url`: a tool of the operator's on HTTP. Its arguments are posted, the body is its result.

1. A call is one POST; no connection sends it again.
2. Headers say which call it is: `Idempotency-Key`, `X-Request-Id`, `X-Gai-Call-Id`, `X-Gai-Attempt`, `traceparent`.
3. JSON is the value, everything else is text; a body without `Content-Type` is JSON if it can be read as that.
   Credentials are cut out, and what is longer than `max_result`; of JSON, as it is written without blanks.
4. Of a status that is no success, the status alone is seen: a body may hold what is not for models. No redirect is
   followed: the headers of the configuration are for its own address. `Retry-After` is respected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import Secret, ToolSettings
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.attempts.recording import Censor
from gai_fast.net.toolbox.server_source import peer_of
from gai_fast.net.toolbox.tool_source import GatewayTool, SourceList, ToolSource
from gai_fast.net.tools.http_wire import failure_of, tool_server_address
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.message_reader import Beside, sized_work
from gai_fast.net.tools.param_headers import header_text
from gai_fast.net.tools.pause import Pause
from gai_fast.net.tools.result_redaction import credentials_of
from gai_fast.net.tools.rpc import ToolServerError, read_json
from gai_fast.net.tools.tool_list import OfferedTool
from gai_fast.net.tools.tool_results import ToolResult, read_value
from gai_fast.net.tools.wire import OnProgress
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.net.upstream.http_request import Origin, encode_request
from gai_fast.net.upstream.pool import UpstreamPool
from gai_fast.runtime.timers import Timers

_HEADERS: Final = (("content-type", "application/json"), ("accept", "application/json, text/plain;q=0.9, */*;q=0.8"))


def own_tool(settings: ToolSettings) -> GatewayTool:
    """Returns a tool of the gateway's own as runs see it."""
    size = len(encode_json(settings.parameters))
    sent = None if "properties" in settings.parameters else {**settings.parameters, "properties": {}}
    offered = OfferedTool(settings.name, settings.description, settings.parameters, size, sent=sent)
    return GatewayTool("", offered, settings.approve, settings.idempotent)


class HTTPTool(ToolSource):
    """A tool on HTTP.

    Args:
        settings: The tool.
        url: Its URL.
        timers: The loop's timers.
        loop: The running loop.
        beside: Reads large results. None if all are read at once.

    Raises:
        ValueError: Its URL or a header is not acceptable. No text has the value of a header.
    """

    def __init__(
        self,
        settings: ToolSettings,
        url: Secret,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        beside: Beside | None = None,
    ) -> None:
        super().__init__(settings.name, settings.max_calls)
        self._beside = beside
        self._settings = settings
        host, self._path = tool_server_address(url.reveal())
        self._headers = (*_HEADERS, *((name, value.reveal()) for name, value in settings.headers.items()))
        encode_request(Origin.parse(host), "POST", self._path, self._headers, b"")  # what is refused is refused here
        self._credentials = credentials_of(settings.headers, settings.plain, self._path)
        self._pause = Pause(timers)
        self._pool = UpstreamPool(
            peer_of(host, settings.timeout, SHARED.tool_connect),
            timers=timers,
            max_connections=settings.max_calls,
            pool_wait=SHARED.tool_connect,
            loop=loop,
        )

    async def list_tools(self) -> SourceList:
        """As `ToolSource.list_tools`: the tool itself."""
        return SourceList((own_tool(self._settings),))

    async def close(self) -> None:
        """As `ToolSource.close`."""
        await self._pool.close()

    def _check_pause(self) -> None:
        self._pause.check()

    def _end_pause(self) -> None:
        self._pause.end()

    async def _called(
        self,
        tool: GatewayTool,
        arguments: Mapping[str, Any],
        meta: ToolMeta,
        on_progress: OnProgress | None,
        caller: str,
    ) -> ToolResult:
        loop, seconds = asyncio.get_running_loop(), self._settings.timeout
        most = self._settings.max_result
        response = _Response(loop.create_future(), self._pause, most, self._credentials)
        headers, body = [*self._headers, *_headers_of(meta)], encode_json(arguments)
        late = loop.call_later(seconds, response.time_over, seconds)  # `asyncio.timeout` costs 22,000 instructions more
        try:
            begin = self._pool.open_once
            response.exchange = begin("POST", self._path, headers, body, response, caller, None, -1, False)
            found = await response.outcome
        finally:
            late.cancel()
            response.give_up()
        if isinstance(found, ToolResult):
            return found
        if len(found) <= LIMITS.list_turn:  # as `sized_work`: a coroutine costs as much as reading
            return _read_json(found, most, self._credentials, response.has_type)
        work = partial(_read_json, found, most, self._credentials, response.has_type)
        return await sized_work(self._beside, len(found), caller, work)


def _headers_of(meta: ToolMeta) -> list[tuple[str, str]]:
    """Returns the headers of a call: rule 2. An id of a provider's may have other characters than a header."""
    named = (
        ("idempotency-key", meta.idempotency_key),
        ("x-request-id", meta.request_id and header_text(meta.request_id)),
        ("x-gai-call-id", meta.call_id and header_text(meta.call_id)),
        ("x-gai-attempt", str(meta.attempt)),
        ("traceparent", meta.traceparent),
    )
    return [header for header in named if header[1]]


def _read_json(body: bytes, most: int, secrets: Collection[bytes], has_type: bool) -> ToolResult:
    """Reads a body that is JSON, or may be. It may work beside the loop.

    Raises:
        ToolServerError: It is called JSON, and cannot be read.
    """
    try:
        return read_value(read_json(body, SHARED.tool_depth), most, secrets)
    except Error as problem:
        if not has_type:
            return _cut(body, most)
        why = "nested too deep" if problem.reason == "depth" else "too large" if problem.reason == "items" else ""
        text = f"its result is JSON that is {why}" if why else "its result is called JSON, and is none"
        raise ToolServerError(text, "form", may_have_run=True) from None


def _cut(body: bytes, most: int) -> ToolResult:
    """Returns the text of a body, cut at a character."""
    kept = body[:most]
    is_cut = len(kept) < len(body)
    return ToolResult(kept.decode("utf-8", "ignore" if is_cut else "replace"), is_truncated=is_cut)


class _Response(Receiver):
    """The response to a call.

    Args:
        outcome: Gets the result, or a body that is JSON, or may be.
        pause: Notes `Retry-After`.
        most: Bytes to keep of a text.
        secrets: Texts that are cut out: rule 3.

    Attributes:
        has_type: Whether the body's type is known.
    """

    def __init__(
        self, outcome: asyncio.Future[ToolResult | bytes], pause: Pause, most: int, secrets: Collection[bytes]
    ) -> None:
        self.outcome = outcome
        self.exchange: OpenExchange | None = None
        self._pause = pause
        self._most = most
        self._secrets = secrets
        self._censor = Censor(secrets)
        self._body = bytearray()
        self._is_json = False
        self.has_type = True

    @property
    def was_sent(self) -> bool:
        """Whether the server may have got the call."""
        return self.exchange is not None and self.exchange.sent

    def time_over(self, seconds: float) -> None:
        """Ends the call: it has had its time."""
        self._fail(ToolServerError(f"it does not answer within {seconds:g} s", "late", may_have_run=self.was_sent))

    def give_up(self) -> None:
        """Aborts, unless it has ended."""
        if self.exchange is not None and not self.exchange.is_complete:
            self.exchange.close()

    # -- as a receiver --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        if not 200 <= status < 300:
            self._pause.note(status, headers)
            text = f"it answers with status {status}"
            self._fail(ToolServerError(text, "status", status=status, may_have_run=status >= 500))
            return
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        self.has_type = bool(media_type)
        self._is_json = media_type == "application/json" or media_type.endswith("+json")

    def body_received(self, data: bytes) -> None:
        if self.outcome.done():
            return
        self._body += data if self._is_json else self._censor.feed(data)
        if self._is_json and len(self._body) > LIMITS.tool_message:
            text = f"its result has more than {LIMITS.tool_message} bytes (limit tool_message)"
            self._fail(ToolServerError(text, "form", may_have_run=True))
        elif not self._is_json and len(self._body) > self._most:
            self._finish(_cut(bytes(self._body), self._most))
            self.give_up()

    def exchange_ended(self, error: Error | None) -> None:
        if self.outcome.done():
            return
        if error is not None:
            self._fail(failure_of(error, was_sent=self.was_sent))
        elif self._is_json:
            self._finish(bytes(self._body))
        elif self.has_type:
            self._finish(_cut(bytes(self._body) + self._censor.rest(), self._most))
        else:
            self._finish(bytes(self._body) + self._censor.rest())

    def _finish(self, result: ToolResult | bytes) -> None:
        if not self.outcome.done():
            self.outcome.set_result(result)

    def _fail(self, problem: ToolServerError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(problem)
            self.give_up()
