"""A request that waits for a token stands for the exchange that it becomes."""

from __future__ import annotations

from gai_fast.model.errors import Error
from gai_fast.model.settings import UpstreamSettings
from gai_fast.net.identity.grant import Bearer, Grant
from gai_fast.net.identity.waiting_exchange import WaitingExchange
from tests.unit.net.conftest import Recorder
from tests.unit.net.fakes import FakeExchange

UPSTREAM = UpstreamSettings("up", "openai", "http://x")
GRANT = Bearer("one", None)


class Asked:
    """A request, its place among those that wait, and what its sending leads to."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.receiver = Recorder()
        self.real = FakeExchange()
        self.others: dict[WaitingExchange, None] = {}
        self.exchange = WaitingExchange(UPSTREAM, self.receiver, self._send, self.others)

    def _send(self, grant: Grant) -> FakeExchange:
        assert grant is GRANT
        if self.problem is not None:
            raise self.problem
        return self.real


def test_it_becomes_the_exchange() -> None:
    asked = Asked()
    exchange = asked.exchange
    assert list(asked.others) == [exchange]
    exchange.pause_reading()
    exchange.go_on(GRANT)
    assert (asked.others, asked.real.calls) == ({}, ["pause"])
    exchange.resume_reading()
    exchange.pause_reading()
    exchange.close()
    assert asked.real.calls == ["pause", "resume", "pause", "close"]
    assert (exchange.sent, exchange.resent, exchange.is_complete) == (True, False, False)
    assert asked.receiver.calls == []


def test_reading_that_was_resumed_meanwhile_is_not_paused() -> None:
    asked = Asked()
    asked.exchange.pause_reading()
    asked.exchange.resume_reading()
    asked.exchange.go_on(GRANT)
    assert asked.real.calls == []


def test_a_request_that_cannot_be_sent_fails() -> None:
    asked = Asked(Error("network", "no such file", reason="tls"))
    asked.exchange.go_on(GRANT)
    assert asked.receiver.ends == [asked.problem]


def test_a_wait_that_ends_without_a_token_is_a_failure() -> None:
    asked, error = Asked(), Error("provider_unavailable", "no token")
    asked.exchange.fail(error)
    assert (asked.receiver.ends, asked.others) == ([error], {})
