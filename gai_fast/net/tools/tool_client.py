"""A client of one server of tools: agrees on a protocol, lists tools and calls them.

Owns the order of requests, and which of them are sent again:

1. What server and client have agreed on counts until the session, or the process, has ended.
2. A refusal may mean that the session is lost (`protocol`): the next request begins a new one. A request that may be
   repeated, or that cannot have run, is sent again itself, once. To connect is a part of a request: `timeout` holds for
   both. Requests that need a connection share one attempt.
3. After a call's error that does not name the session, the next request asks by `ping` whether it is still there:
   tools of some servers fail by such errors.
4. A call that the server refuses because headers are missing or wrong is sent again, once, by a new list: the tool's
   schema has changed (2026-07-28, "Client Behavior"). No call that may have run is ever sent again.
5. A list whose further page is refused is begun again, once: it has changed in between.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from gai_fast.kernels import encode_json
from gai_fast.model.limits import SHARED
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.message_reader import sized_work
from gai_fast.net.tools.param_headers import header_text, values_for
from gai_fast.net.tools.protocol import (
    STATELESS,
    Agreement,
    RefusedRequest,
    after_discovery,
    after_initialize,
    after_refusal,
    cannot_have_run,
    initialize_params,
    is_doubtful,
    is_older,
    may_be_over,
    meta_of_stateless,
    refusal_in,
)
from gai_fast.net.tools.rpc import CODES, ServerReply, ToolServerError, depth_of, error_of
from gai_fast.net.tools.tool_list import OfferedTool, ToolList, ToolListReader
from gai_fast.net.tools.tool_results import ToolResult, check_complete, read_result
from gai_fast.net.tools.wire import OnProgress, ToolRequest, Wire, within

_CALL: Final = "tools/call"
_DISCOVER: Final = "server/discover"
_END: Final = object()
_NO_META: Final[Mapping[str, Any]] = {}


class ToolClient:
    """A client of one server. Belongs to one loop. After use, `close` must be awaited.

    Args:
        wire: The way to the server.
        timeout: Seconds for each answer, from its request or the last notice of progress.
        max_result: Bytes that are kept of a result.
    """

    def __init__(
        self, wire: Wire, *, timeout: float = SHARED.tool_timeout, max_result: int = SHARED.tool_result
    ) -> None:
        self._wire = wire
        self._timeout = timeout
        self._max_result = max_result
        self._ids = itertools.count(1)
        self._agreed: Agreement | None = None
        self._doubted: Agreement | None = None  # rule 3
        self._connecting: asyncio.Task[Agreement] | None = None
        self._newest: tuple[float, ToolList] | None = None  # read for rule 4

    async def connect(self) -> Agreement:
        """Returns what was agreed on with the server; asks it if nothing was.

        Raises:
            ToolServerError: The server cannot be reached, or speaks no protocol of this client.
        """
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add_done_callback(_noted)
        return await asyncio.shield(self._connecting)  # who leaves does not end it for the others

    async def list_tools(self) -> ToolList:
        """Returns the server's tools.

        Raises:
            ToolServerError: There is no list.
        """
        seconds = self._timeout * LIMITS.list_answers
        try:
            async with asyncio.timeout(seconds):
                return await self._listed()
        except TimeoutError:
            raise ToolServerError(f"its list of tools is not there within {seconds:g} s", "late") from None

    async def _listed(self) -> ToolList:
        agreed = await self.connect()
        reader, cursor, is_again = ToolListReader(self._repeats_arguments(agreed)), "", False
        while True:
            try:
                answered = await self._asked("tools/list", {"cursor": cursor} if cursor else {})
            except ToolServerError as problem:
                if problem.fault != "refused" or not cursor or is_again:
                    raise
                reader, cursor, is_again = ToolListReader(self._repeats_arguments(agreed)), "", True  # rule 5
                continue
            page = answered.result or {}
            check_complete(page)
            some = partial(next, reader.turns(page), _END)
            while await sized_work(self._wire.beside, answered.size, "", some) is not _END:
                pass
            if reader.cursor is None:
                return reader.read()
            cursor = reader.cursor

    async def call(
        self,
        tool: OfferedTool,
        arguments: Mapping[str, Any],
        *,
        meta: Mapping[str, Any] = _NO_META,
        on_progress: OnProgress | None = None,
        caller: str = "",
    ) -> ToolResult:
        """Calls a tool. If the call is cancelled, the server is told.

        Args:
            tool: A tool of the list.
            arguments: Its arguments.
            meta: Further members of `_meta`.
            on_progress: Called for each notice of progress, `limits.tool_progress` times at most.
            caller: The name of the caller that it is for.

        Raises:
            ToolServerError: There is no result; `may_have_run` says whether the tool may have run.
        """
        if depth_of(arguments) > SHARED.tool_depth:
            text = f"the arguments are nested deeper than {SHARED.tool_depth} levels (limit tool_depth)"
            raise ToolServerError(text, "argument")
        if len(encode_json(arguments)) > SHARED.tool_arguments:
            text = f"the arguments have more than {SHARED.tool_arguments} bytes (limit tool_arguments)"
            raise ToolServerError(text, "argument")
        try:
            return await self._called(tool, arguments, meta, on_progress, caller)
        except ToolServerError as problem:
            if problem.code != CODES["header"]:
                raise
            changed = (await self._list_again()).tools.get(tool.name)
            if changed is None or changed.headers == tool.headers:
                raise
        return await self._called(changed, arguments, meta, on_progress, caller)

    def end_pause(self) -> None:
        """Ends the pause that the server has asked for."""
        self._wire.end_pause()

    async def _list_again(self) -> ToolList:
        """Returns a list that is at most `limits.list_ttl_least` seconds old: a server may refuse every call so."""
        now = asyncio.get_running_loop().time()
        if self._newest is None or now - self._newest[0] >= LIMITS.list_ttl_least:
            self._newest = now, await self.list_tools()
        return self._newest[1]

    @property
    def agreed(self) -> Agreement | None:
        """What was agreed on with the server. None if nothing is, or it does not count any more."""
        return self._agreed

    async def leave(self) -> None:
        """Ends the session, and the process if the server is one. Others may share the way to the server."""
        if self._connecting is not None and self._wire.has_headers:
            await asyncio.wait((self._connecting,))  # the session that it begins ends as well
        agreed, self._agreed = self._agreed, None
        await self._wire.leave(agreed)

    async def close(self) -> None:
        """Ends running requests, the session, and the process if the server is one. Returns when they have ended."""
        agreed, self._agreed = self._agreed, None
        await self._wire.close(agreed)
        if self._connecting is not None:
            await asyncio.wait((self._connecting,))  # it has failed with its wire

    # ---- the protocol

    async def _connect(self) -> Agreement:
        if await self._wire.start():
            self._agreed = None
        doubted = self._doubted
        if doubted is not None and doubted is self._agreed and not await self._lives(doubted):
            self._forget(doubted)
        self._doubted = None
        if self._agreed is None:
            self._agreed = await self._discovered() or await self._initialized()
        return self._agreed

    async def _lives(self, agreed: Agreement) -> bool:
        """Returns whether the server still has a session: rule 3.

        Raises:
            ToolServerError: The server cannot be asked now, which says nothing of the session.
        """
        request = self._request("ping", {})
        try:
            reply = await within(min(LIMITS.ping, self._timeout), request, partial(self._wire.ask, request, agreed))
        except ToolServerError as problem:
            if problem.fault in ("wait", "unreachable"):
                raise
            return False
        return reply.result is not None

    async def _discovered(self) -> Agreement | None:
        """Returns what was agreed on without a session. None: a session must be begun."""
        is_process = not self._wire.has_headers
        seconds = min(LIMITS.discovery, self._timeout) if is_process else self._timeout
        for is_last in (False, True):
            params = {"_meta": meta_of_stateless()}
            request = self._request(_DISCOVER, params, () if is_process else _headers_of(_DISCOVER))
            try:
                reply = await within(seconds, request, partial(self._wire.ask, request, None))
                if reply.result is not None:
                    return after_discovery(reply.result)
                if after_refusal(error_of(reply, self._wire.secrets), is_last=is_last) is None:
                    return None
            except ToolServerError as problem:
                if not is_older(problem, is_process=is_process):
                    raise
                return None
        return None

    async def _initialized(self) -> Agreement:
        """Begins a session."""
        request = self._request("initialize", initialize_params())
        agreed = await within(self._timeout, request, partial(self._begin_session, request))
        if isinstance(agreed, Agreement):
            return agreed
        # A process that was slow to start may be of today after all.
        discovered = None if self._wire.has_headers else await self._discovered()
        if discovered is None:
            raise agreed
        return discovered

    async def _begin_session(self, request: ToolRequest) -> Agreement | ToolServerError:
        """Returns what was agreed on, or the server's refusal."""
        reply = await self._wire.ask(request, None)
        if reply.result is None:
            return error_of(reply, self._wire.secrets)
        agreed = after_initialize(reply.result, reply.session)
        await self._wire.tell("notifications/initialized", agreed)
        return agreed

    # ---- requests

    def _repeats_arguments(self, agreed: Agreement) -> bool:
        """Whether headers of requests repeat what is in their bodies."""
        return self._wire.has_headers and agreed.is_stateless

    def _request(
        self,
        method: str,
        params: Mapping[str, Any],
        headers: Sequence[tuple[str, str]] = (),
        on_progress: OnProgress | None = None,
        caller: str = "",
    ) -> ToolRequest:
        number = next(self._ids)
        return ToolRequest(
            number, method, params, headers, is_repeatable=method != _CALL, on_progress=on_progress, caller=caller
        )

    async def _called(
        self,
        tool: OfferedTool,
        arguments: Mapping[str, Any],
        meta: Mapping[str, Any],
        on_progress: OnProgress | None,
        caller: str,
    ) -> ToolResult:
        params = {"name": tool.name, "arguments": arguments, "_meta": {**meta}}
        try:
            headers = [("mcp-name", header_text(tool.name)), *values_for(tool.headers, arguments)]
        except ValueError as problem:
            raise ToolServerError(str(problem), "argument") from None
        answered = await self._asked(_CALL, params, headers, on_progress, caller)
        found = answered.result or {}
        is_error = found.get("isError") is True
        secrets = self._wire.secrets if is_error else self._wire.credentials  # a tool may quote what it was sent
        read = partial(read_result, found, self._max_result, secrets)
        result = await sized_work(self._wire.beside, answered.size, caller, read)
        return replace(result, parts=()) if is_error else result

    async def _asked(
        self,
        method: str,
        params: Mapping[str, Any],
        headers: Sequence[tuple[str, str]] = (),
        on_progress: OnProgress | None = None,
        caller: str = "",
    ) -> ServerReply:
        """Returns the answer to a request, which is a result."""
        request = self._request(method, params, on_progress=on_progress, caller=caller)
        reply = await within(self._timeout, request, partial(self._answered, request, params, headers))
        if reply.result is None:
            raise error_of(reply, self._wire.secrets)
        return reply

    async def _answered(
        self, request: ToolRequest, params: Mapping[str, Any], headers: Sequence[tuple[str, str]]
    ) -> ServerReply:
        """Connects, if need be, and returns the answer to a request: rule 2."""
        outcome, is_again = await self._attempted(request, params, headers)
        if is_again:
            outcome, _ = await self._attempted(request, params, headers)
        if isinstance(outcome, ToolServerError):
            raise outcome
        return outcome

    async def _attempted(
        self, request: ToolRequest, params: Mapping[str, Any], headers: Sequence[tuple[str, str]]
    ) -> tuple[ServerReply | ToolServerError, bool]:
        """Returns the outcome of a request, and whether it may be sent again: rule 2."""
        agreed: Agreement | None = None
        outcome: ServerReply | ToolServerError
        try:
            agreed = await self.connect()
            meta = {
                **params.get("_meta", {}),
                **(meta_of_stateless() if agreed.is_stateless else {}),
                **({"progressToken": request.id} if request.method == _CALL else {}),
            }
            request.params = {**params, "_meta": meta} if meta else params
            request.headers = [*_headers_of(request.method), *headers] if self._repeats_arguments(agreed) else []
            reply = await self._wire.ask(request, agreed)
            if reply.error is None:
                return reply, False
            outcome, refused, may_have_run = reply, refusal_in(reply), False
        except ToolServerError as problem:
            if problem.fault == "session":
                self._forget(agreed)
                return problem, True
            if agreed is None or problem.status is None:
                return problem, False
            outcome, refused, may_have_run = problem, RefusedRequest(problem.status), problem.may_have_run
        if not may_be_over(agreed, refused):
            return outcome, False
        if request.method == _CALL and is_doubtful(agreed, refused):
            self._doubted = agreed
            return outcome, False
        self._forget(agreed)
        is_unhandled = request.is_repeatable or (not may_have_run and cannot_have_run(refused))
        return outcome, agreed.session is not None and is_unhandled

    def _forget(self, agreed: Agreement | None) -> None:
        if self._agreed is agreed:  # another request may have begun a new session
            self._agreed = None


def _noted(attempt: asyncio.Task[Agreement]) -> None:
    """Takes the failure of an attempt for which nothing waits any more; it is no bug."""
    if not attempt.cancelled():
        attempt.exception()


def _headers_of(method: str) -> list[tuple[str, str]]:
    """Returns the headers that a request without a session has (2026-07-28, "Request Metadata")."""
    return [("mcp-protocol-version", STATELESS), ("mcp-method", method)]
