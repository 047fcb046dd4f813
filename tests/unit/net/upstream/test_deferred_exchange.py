"""A request that is sent later stands for the exchange that it becomes."""

from __future__ import annotations

from gai_fast.model.errors import Error
from gai_fast.net.upstream.deferred_exchange import DeferredExchange
from tests.unit.net.conftest import Recorder
from tests.unit.net.fakes import FakeExchange


def test_it_becomes_an_exchange_that_is_paused_if_it_was() -> None:
    exchange, real = DeferredExchange(Recorder()), FakeExchange()
    assert (exchange.sent, exchange.resent, exchange.is_complete, exchange.is_waiting) == (False, False, False, False)
    exchange.pause_reading()
    exchange.become(lambda: real)
    assert real.calls == ["pause"]
    exchange.resume_reading()
    exchange.close()
    assert real.calls == ["pause", "resume", "close"]
    assert exchange.sent


def test_a_failure_before_and_while_it_is_sent_goes_to_the_receiver() -> None:
    receiver, error = Recorder(), Error("network", "no such file", reason="tls")
    DeferredExchange(receiver).fail(error)

    def send() -> FakeExchange:
        raise error

    DeferredExchange(receiver).become(send)
    assert receiver.ends == [error, error]


def test_what_is_closed_before_it_is_sent_tells_nothing() -> None:
    receiver = Recorder()
    exchange = DeferredExchange(receiver)
    exchange.pause_reading()
    exchange.resume_reading()
    exchange.close()
    assert receiver.ends == []


def test_a_limit_of_silence_that_is_set_before_it_is_sent_holds_afterwards() -> None:
    exchange, real = DeferredExchange(Recorder()), FakeExchange()
    exchange.limit_silence(60.0)
    exchange.become(lambda: real)
    exchange.limit_silence(30.0)
    assert real.calls == ["silence 60", "silence 30"]
