"""The response to `GET /metrics`, written one slice per iteration of the loop.

Owns the pace: between two slices the loop serves streams. If a scrape arrives while a response of the same content type
is being written, it shares this response, so that many scrapers cost no more than one. `metrics.py` owns the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from gai_fast.model.errors import Error
from gai_fast.server.http.replies import Reply
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.observe.metrics import PrometheusSink

Answer = Callable[[bytes, str], Reply]
"""Makes the reply to one client from the body and its content type."""
Refuse = Callable[[Error], Reply]
"""Makes the reply to one client if the body cannot be written."""
Gather = Callable[[], Awaitable[PrometheusSink]]
"""Returns the counts of all workers."""


class Scrapes:
    """Responds to scrapes.

    Args:
        sink: The counts to expose.
        high_water: Unsent bytes above which a client is slow.
        write_timeout: Seconds without progress after which the connection of a client is aborted.

    Attributes:
        gather: Returns the counts of all workers, or raises an `Error`. `None` if this process is the only worker.
    """

    def __init__(self, sink: PrometheusSink, *, high_water: int, write_timeout: float) -> None:
        self.gather: Gather | None = None
        self._sink = sink
        self._gathering: set[asyncio.Task[None]] = set()
        self._high_water = high_water
        self._write_timeout = write_timeout
        self._running: dict[str, _Scrape] = {}

    def begin(self, accept: str, client: ClientTransport, answer: Answer, refuse: Refuse) -> None:
        """Begins the response to one request.

        Args:
            accept: The request's `Accept`.
            client: The client's transport; the response is one `send`.
            answer: Makes the reply.
            refuse: Makes the reply if the body cannot be written.
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
        finally:  # after any exception: no client may wait forever
            if refusal is not None:
                scrape.refuse(refusal)
        if refusal is None:
            scrape.write(slices)


class _Waiting:
    """One client that waits for the response."""

    def __init__(self, scrape: _Scrape, client: ClientTransport, answer: Answer, refuse: Refuse) -> None:
        self._scrape = scrape
        self.client = client
        self.answer = answer
        self.refuse = refuse

    def connection_lost(self) -> None:
        """Stops waiting: the client has disconnected."""
        self._scrape.waiting.pop(self, None)  # the response may have been sent since the connection was lost

    def pause_writing(self) -> None:
        """Does nothing: the response is written at once, at the end."""

    def resume_writing(self) -> None:
        """Does nothing: the response is written at once, at the end."""


class _Scrape:
    """One response that is being written, and the clients that wait for it."""

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
        """Responds to all waiting clients with an error."""
        for each in self._end():
            each.client.send(each.refuse(error))

    def _next(self) -> None:
        if not self.waiting:  # all clients have disconnected
            del self._running[self._content_type]
            return
        is_written = False
        try:
            text = next(self._slices, None)
            is_written = True
        finally:
            if not is_written:  # our bug; the loop logs it, and no client may wait forever
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
