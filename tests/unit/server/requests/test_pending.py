"""`server/requests/pending.py`: an answer that waits is given once, and its client is heard of all the while."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import StreamSettings
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.pending import PendingAnswers
from gai_fast.server.requests.stream_response import StreamResponse
from tests.unit.server.incoming_requests import http, incoming
from tests.unit.server.requests.test_stream_response import FakeConnection
from tests.waiting import until


class Waiting:
    """An answer that waits for `go`."""

    def __init__(self, outcome: Reply | Exception | None) -> None:
        self.connection = FakeConnection()
        self.go = asyncio.Event()
        self.is_cancelled = False
        self.answers = PendingAnswers()
        asked = incoming(http("GET", "/", client=self.connection))
        response = StreamResponse(asked, "sid", "", StreamSettings(), whole=False)
        self.answers.add(asked, response, self._work(outcome))

    async def _work(self, outcome: Reply | Exception | None) -> Reply | None:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def over(self) -> None:
        await until(lambda: not len(self.answers))


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Reply(202), 202), (Error("not_found", "nothing"), 404), (RuntimeError("a bug"), 500)],
)
async def test_the_outcome_of_the_work_is_the_answer(
    outcome: Reply | Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Waiting(outcome)
    await asyncio.sleep(0)
    waiting.connection.stream.pause_writing()
    waiting.connection.stream.resume_writing()
    assert (waiting.connection.ends, len(waiting.answers)) == ([], 1)
    waiting.go.set()
    await waiting.over()
    (reply,) = waiting.connection.ends
    assert reply.status == status
    assert reply.close == (status == 500)
    assert ("could not be handled" in caplog.text) == (status == 500)


async def test_work_that_began_a_stream_leaves_the_answer_to_it() -> None:
    waiting = Waiting(None)
    waiting.go.set()
    await waiting.over()
    assert waiting.connection.ends == []


async def test_a_client_that_leaves_before_the_work_has_begun_leaves_nothing() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        waiting = Waiting(Reply(202))
        waiting.connection.stream.connection_lost()
        await waiting.over()
        gc.collect()
    assert (warned, waiting.connection.ends) == ([], [])


async def test_a_client_that_leaves_ends_the_work() -> None:
    waiting = Waiting(Reply(202))
    await asyncio.sleep(0)
    waiting.connection.stream.connection_lost()
    await waiting.over()
    assert waiting.is_cancelled
    assert waiting.connection.ends == []
