"""The answer to `GET /metrics`, written a slice in each turn of the loop.

Owns the pace: between two slices the loop serves streams. Scrapes that arrive while one of the same content type is
being written share its answer, so that many scrapers cost no more than one. `metrics.py` owns the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from gai_fast.model.errors import Error
from gai_fast.server.http.replies import Reply
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.observe.metrics import PrometheusSink

Answer = Callable[[bytes, str], Reply]
"""Makes the reply of one client from the body and its content type."""
Refuse = Callable[[Error], Reply]
"""Makes the reply of one client where the body cannot be written."""
Gather = Callable[[], Awaitable[PrometheusSink]]
"""Gives the counts of all workers."""


class Scrapes:
    """Answers scrapes.

    Args:
        sink: The counts to expose.
        high_water: Unsent bytes above which a client is slow.
        write_timeout: Seconds without a byte taken after which a client is given up.

    Attributes:
        gather: Gives the counts of all workers, or raises an `Error`; `None`: there is only this one.
    """

    def __init__(self, sink: PrometheusSink, *, high_water: int, write_timeout: float) -> None:
        self.gather: Gather | None = None
        self._sink = sink
        self._gathering: set[asyncio.Task[None]] = set()
        self._high_water = high_water
        self._write_timeout = write_timeout
        self._running: dict[str, _Scrape] = {}

    def begin(self, accept: str, client: ClientTransport, answer: Answer, refuse: Refuse) -> None:
        """Begins to answer one request.

        Args:
            accept: The request's `Accept`.
            client: The client's transport; the answer is one `send`.
            answer: Makes the reply.
            refuse: Makes the reply where a bug keeps the body from being written.
        """
        slices, content_type = self._sink.slices(accept)
        scrape = self._running.get(content_type)
        if scrape is None:
            scrape = self._running[content_type] = _Scrape(content_type, self._running)
            if self.gather is None:
                scrape.write(slices)
            else:
                task = asyncio.get_running_loop().create_task(self._write_all(self.gather, scrape, accept))
                self._gathering.add(task)
                task.add_done_callback(self._gathering.discard)
        waiting = _Waiting(scrape, client, answer, refuse)
        scrape.waiting[waiting] = None
        client.begin_stream(waiting, high_water=self._high_water, write_timeout=self._write_timeout)

    async def _write_all(self, gather: Gather, scrape: _Scrape, accept: str) -> None:
        refusal: Error | None = Error("internal", "the metrics cannot be gathered")
        try:
            slices = (await gather()).slices(accept)[0]
            refusal = None
        except Error as error:
            refusal = error
        finally:  # whatever happens: no client must wait for ever
            if refusal is not None:
                scrape.refuse(refusal)
        if refusal is None:
            scrape.write(slices)


class _Waiting:
    """One client that waits for the answer."""

    def __init__(self, scrape: _Scrape, client: ClientTransport, answer: Answer, refuse: Refuse) -> None:
        self._scrape = scrape
        self.client = client
        self.answer = answer
        self.refuse = refuse

    def connection_lost(self) -> None:
        """The client is gone."""
        self._scrape.waiting.pop(self, None)  # the answer may have been written since the client was lost

    def pause_writing(self) -> None:
        """Nothing is written before the end."""

    def resume_writing(self) -> None:
        """Nothing is written before the end."""


class _Scrape:
    """One answer that is being written, and the clients that get it."""

    def __init__(self, content_type: str, running: dict[str, _Scrape]) -> None:
        self.waiting: dict[_Waiting, None] = {}
        self._slices: Iterator[bytes] = iter(())
        self._content_type = content_type
        self._running = running
        self._body: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def write(self, slices: Iterator[bytes]) -> None:
        """Begins to write the body."""
        self._slices = slices
        self._loop.call_soon(self._next)

    def refuse(self, error: Error) -> None:
        """Answers with an error instead."""
        for each in self._end():
            each.client.send(each.refuse(error))

    def _next(self) -> None:
        if not self.waiting:  # all have left
            del self._running[self._content_type]
            return
        is_written = False
        try:
            text = next(self._slices, None)
            is_written = True
        finally:
            if not is_written:  # a bug of ours, which the loop logs; no client must wait for ever
                self.refuse(Error("internal", "the metrics cannot be written"))
        if text is not None:
            self._body.append(text)
            self._loop.call_soon(self._next)
            return
        body = b"".join(self._body)
        for each in self._end():
            each.client.send(each.answer(body, self._content_type))

    def _end(self) -> tuple[_Waiting, ...]:
        del self._running[self._content_type]
        waiting, self.waiting = self.waiting, {}
        return tuple(waiting)
