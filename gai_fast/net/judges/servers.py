"""Judges that are servers: moderations and web hooks, each over a pool of its own.

Owns the request and what of its response is read. It must not know time limits nor breakers (`judge.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, Peer
from gai_fast.model.upstream_errors import classify
from gai_fast.net.attempts.retry import is_fault_of_upstream, is_local_failure
from gai_fast.net.judges.dialects import NotAVerdict
from gai_fast.net.judges.judge import Answered, Way
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.net.upstream.http_request import Origin, encode_request
from gai_fast.net.upstream.pool import UpstreamPool
from gai_fast.runtime.timers import Timers

_OK: Final = 200
_KEY: Final = "base_url"
"""What messages of `net/upstream/` call the address of a server."""
_HEADERS: Final = (("content-type", "application/json"), ("accept", "application/json"))


class ServerWay(Way):
    """The way to a server.

    Args:
        peer: The server.
        path: The path of the requests below the peer's URL.
        headers: Headers besides those of JSON; they may hold a secret.
        write: Returns the body of a request.
        read: Returns the verdict in a body, or raises `NotAVerdict`.
        closing: Gets the tasks that close pools; they may outlive the way.
        timers: The loop's timers.
        loop: The running loop.
        key: The key of the configuration that has the server's address, for messages.

    Raises:
        ValueError: The peer's URL, its proxy, a TLS file, the path or a header is not acceptable. No text has the value
            of a header.
    """

    def __init__(
        self,
        peer: Peer,
        path: str,
        headers: Sequence[tuple[str, str]],
        write: Callable[[Question], bytes],
        read: Callable[[bytes, Question], JudgeVerdict],
        closing: set[asyncio.Task[None]],
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        key: str = _KEY,
    ) -> None:
        self.places = LIMITS.judge_requests
        own = {name.lower() for name, _ in headers}
        self._headers = (*[item for item in _HEADERS if item[0] not in own], *headers)
        encode_request(Origin.parse(peer.url), "POST", path, self._headers, b"")  # what is refused is refused here
        self._peer = peer
        self._path = path
        self._write = write
        self._read = read
        self._key = key
        self._timers = timers
        self._loop = loop
        self._calls: set[_Call] = set()
        self._is_retired = False
        self._closing = closing
        self._pool: UpstreamPool | None = self._make_pool()

    def ask(self, question: Question, answered: Answered, freed: Callable[[], None]) -> Callable[[], None]:
        """Sends a request; as `Way.ask`."""
        pool = self._pool
        if pool is None:
            pool = self._pool = self._make_pool()
        call = _Call(partial(self._ended, answered), partial(self._verdict, question), freed)
        self._calls.add(call)
        call.exchange = pool.open("POST", self._path, self._headers, self._write(question), call, ANONYMOUS)
        return partial(self._give_up, call)

    def retire(self) -> None:
        """Closes the pool now, and after each further question: as `Way.retire`."""
        self._is_retired = True
        self._close_pool()

    async def close(self) -> None:
        """As `Way.close`."""
        for call in tuple(self._calls):
            self._give_up(call)
        self.retire()
        await asyncio.gather(*self._closing)

    def _make_pool(self) -> UpstreamPool:
        return UpstreamPool(self._peer, timers=self._timers, max_connections=LIMITS.judge_requests, loop=self._loop)

    def _close_pool(self) -> None:
        pool = self._pool
        if pool is not None and self._is_retired and not self._calls:
            self._pool = None
            task = self._loop.create_task(pool.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _verdict(self, question: Question, body: bytes) -> JudgeVerdict | Failed:
        try:
            return self._read(body, question)
        except NotAVerdict as problem:
            return Failed("form", f"its answer {problem}")

    def _ended(self, answered: Answered, call: _Call, answer: JudgeVerdict | Failed) -> None:
        self._forget(call)
        if isinstance(answer, Failed) and self._key != _KEY:
            answer = replace(answer, text=answer.text.replace(_KEY, self._key))
        answered(answer)

    def _give_up(self, call: _Call) -> None:
        if call in self._calls:
            call.give_up()
            self._forget(call)

    def _forget(self, call: _Call) -> None:
        self._calls.discard(call)
        self._close_pool()
        call.freed()


class _Call(Receiver):
    """One request and its response.

    Args:
        ended: Called once with the call and its outcome.
        read: Returns the verdict in a whole body.
        freed: As for `Way.ask`.
    """

    def __init__(
        self,
        ended: Callable[[_Call, JudgeVerdict | Failed], None],
        read: Callable[[bytes], JudgeVerdict | Failed],
        freed: Callable[[], None],
    ) -> None:
        self.freed = freed
        self._ended = ended
        self._read = read
        self._body = bytearray()
        self.exchange: OpenExchange | None = None

    def give_up(self) -> None:
        """Aborts the request."""
        if self.exchange is not None:
            self.exchange.close()

    # -- as a receiver --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        length = headers.get("content-length", "")
        if status != _OK:
            # As of an upstream: a status of 4xx concerns this text, or our account there.
            counts = status < 400 or is_fault_of_upstream(Error(classify("", (), status)))
            self._fail(Failed("status", f"it answers with status {status}", counts))
        elif length.isdigit() and int(length) > LIMITS.judge_answer:
            self._fail_as_too_large()

    def body_received(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > LIMITS.judge_answer:
            self._fail_as_too_large()

    def exchange_ended(self, error: Error | None) -> None:
        if error is None:
            self._ended(self, self._read(bytes(self._body)))
        else:
            self._ended(self, Failed("network", str(error), not is_local_failure(error)))

    def _fail_as_too_large(self) -> None:
        self._fail(Failed("form", f"its answer has more than {LIMITS.judge_answer} bytes (limit judge_answer)"))

    def _fail(self, failed: Failed) -> None:
        self._body.clear()
        self.give_up()
        self._ended(self, failed)
