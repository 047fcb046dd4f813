"""A large request is sent once it is written."""

from __future__ import annotations

import asyncio

import pytest

from gai_fast.model.errors import Error, Unsupported
from gai_fast.net.engine.written_exchange import WrittenExchange
from gai_fast.providers import UpstreamRequest
from tests.unit.net.conftest import Recorder
from tests.unit.net.fakes import FakeExchange

REQUEST = UpstreamRequest("/v1", b"{}")


class Asked:
    """A request that is being written, and what its sending leads to."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.receiver = Recorder()
        self.real = FakeExchange()
        self.request: asyncio.Future[UpstreamRequest] = asyncio.get_running_loop().create_future()
        self.exchange = WrittenExchange(self.receiver, self.request, self._send, "up")

    def _send(self, request: UpstreamRequest) -> FakeExchange:
        assert request is REQUEST
        if self.problem is not None:
            raise self.problem
        return self.real


async def test_it_is_sent_once_it_is_written() -> None:
    asked = Asked()
    assert not asked.exchange.sent
    asked.request.set_result(REQUEST)
    await asyncio.sleep(0)
    assert asked.exchange.sent
    assert asked.receiver.calls == []


@pytest.mark.parametrize(
    ("problem", "code"), [(Unsupported(message="no images"), "unsupported"), (KeyError("a bug"), "internal")]
)
async def test_a_request_that_cannot_be_written_or_sent_fails(problem: Exception, code: str) -> None:
    unwritten, unsent = Asked(), Asked(problem)
    unwritten.request.set_exception(problem)
    unsent.request.set_result(REQUEST)
    await asyncio.sleep(0)
    for asked in (unwritten, unsent):
        (error,) = asked.receiver.ends
        assert isinstance(error, Error)
        assert error.code == code


async def test_a_request_that_is_given_up_is_not_sent() -> None:
    asked = Asked()
    asked.exchange.close()
    await asyncio.sleep(0)
    assert asked.request.cancelled()
    assert (asked.receiver.ends, asked.real.calls) == ([], [])
