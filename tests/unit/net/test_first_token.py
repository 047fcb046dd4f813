"""The time of a client's first token, which processors may hold back or leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.net.stream.session import Session
from gai_fast.processors import StreamInfo, make_chain, read_processor
from tests.unit.net.fakes import FakeOutput
from tests.unit.net.stream.test_session import DONE, SSE, Fixture, frame

pytestmark = pytest.mark.interpreted  # the clock is replaced

ROLE = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
THOUGHT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}\n\n'
LAST = frame("", "stop") + DONE


class Stream(Fixture):
    """A session whose every time is the fake one, the meter's too; asked at 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *processors: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        monkeypatch.setattr("gai_fast.net.stream.session.perf_counter", self.time.time)
        monkeypatch.setattr("gai_fast.net.stream.intake.perf_counter", self.time.time)
        monkeypatch.setattr("gai_fast.net.attempts.attempts.perf_counter", self.time.time)
        self.spec.chain = make_chain(map(read_processor, processors), StreamInfo())
        self.received: StreamMetrics | None = None
        self.runner.ended = self.ended

    def ended(self, session: Session, outcome: Any) -> None:
        self.received = session.measured(outcome)

    def begin(self) -> Stream:
        self.start()
        self.session.intake.head_received(200, SSE)
        return self

    def at(self, now: float, *frames: bytes) -> Stream:
        """Feeds frames at a time; without frames only the time advances."""
        self.time.advance(now - self.time.now)
        if frames and not self.received:
            self.session.intake.body_received(b"".join(frames))
        return self

    @property
    def first(self) -> tuple[float | None, float | None]:
        """The client's first token and the upstream's, once the stream has ended."""
        assert self.received is not None
        return self.received.time_to_first_token, self.received.upstream_time_to_first_token


def test_it_is_the_first_delta_not_the_role(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch).begin()
    stream.at(1.0, ROLE).at(2.0, frame()).at(3.0, frame()).at(4.0, LAST)
    assert stream.first == (2.0, 2.0)


def test_what_a_filter_leaves_out_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, {"use": "filter", "drop": ["text.delta"]}).begin()
    stream.at(1.0, ROLE).at(2.0, frame()).at(3.0, frame()).at(4.0, LAST)
    assert stream.first == (None, 2.0)


def test_the_first_that_a_filter_lets_pass_is_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, {"use": "filter", "drop": ["reasoning.delta"]}).begin()
    stream.at(1.0, THOUGHT).at(2.0, THOUGHT).at(3.0, frame()).at(4.0, LAST)
    assert stream.first == (3.0, 1.0)


def test_a_batch_is_it_when_it_is_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, {"use": "batch", "characters": 3}).begin()
    stream.at(1.0, frame()).at(2.0, frame()).at(3.0, frame()).at(4.0, LAST)
    assert stream.first == (3.0, 1.0)


def test_so_is_what_a_processor_gives_out_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, {"use": "batch", "characters": 100}).begin()
    stream.at(1.0, frame()).at(4.0, LAST)
    assert stream.first == (4.0, 1.0)


def test_or_before_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, {"use": "batch", "characters": 100}).begin()
    stream.at(1.0, frame()).at(4.0)
    stream.session.intake.exchange_ended(Error("network", "cut", reason="truncated"))
    assert b"<text.delta><error>" in stream.client.calls[-1][1]
    assert stream.first == (4.0, 1.0)


def test_what_the_timer_of_a_batch_gives_out_counts_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first delta of a batch is never held for a time; here a filter behind it leaves that one out."""
    entries = {"use": "batch", "milliseconds": 500}, {"use": "filter", "drop": ["reasoning.delta"]}
    stream = Stream(monkeypatch, *entries).begin()
    stream.at(1.0, THOUGHT).at(1.1, frame()).at(4.0, LAST)
    assert stream.first == (1.5, 1.0)


def test_output_that_is_gathered_counts_when_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, flush_interval=0.25, commit_after=0.5).begin()
    stream.at(1.0, frame()).at(4.0, LAST)
    assert stream.first == (1.25, 1.0)


def test_output_that_was_gathered_for_a_client_who_went_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, flush_interval=0.25).begin().at(1.0, frame()).at(1.1)
    stream.session.client_lost()
    assert stream.first == (None, 1.0)


def test_one_object_is_handed_over_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, hold=True).begin().at(1.0, frame()).at(2.0, frame()).at(4.0, LAST)
    assert stream.first == (4.0, 1.0)
    gone = Stream(monkeypatch, hold=True).begin().at(1.0, frame())
    gone.session.client_lost()
    assert gone.first == (None, 1.0)
    failed = Stream(monkeypatch, hold=True).begin().at(1.0, frame())
    failed.session.intake.exchange_ended(Error("network", "cut", reason="truncated"))
    assert failed.first == (None, 1.0)


def test_a_stream_that_is_cancelled_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch).begin().at(1.0, frame()).at(2.0)
    stream.session.cancel()
    assert stream.first == (1.0, 1.0)


class OnlyText(FakeOutput):
    """A format that has no word for anything else, as `simple`."""

    def event(self, event: Any) -> None:
        if event["type"] == "text.delta":
            super().event(event)


def test_what_a_format_has_no_word_for_is_none_nor_is_a_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, heartbeat=5)
    stream.output = stream.spec.output = OnlyText()
    stream.begin().at(1.0, THOUGHT).at(2.0, THOUGHT).at(12.0)
    assert b"<ping>" in stream.client.calls
    stream.at(13.0, frame()).at(14.0, LAST)
    assert stream.first == (13.0, 1.0)


@pytest.mark.parametrize("wish", ["continue", "restart"])
def test_a_mended_stream_has_had_its_first_token_before(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    stream = Stream(monkeypatch, retries=2, on_midstream_failure=wish).begin()
    stream.at(1.0, frame()).at(2.0)
    stream.session.intake.exchange_ended(Error("network", "cut", reason="truncated"))
    stream.at(5.0)
    stream.session.intake.head_received(200, SSE)
    stream.at(6.0, frame("xy")).at(7.0, LAST)
    assert stream.first == (1.0, 1.0)


def test_an_attempt_that_said_nothing_does_not_count_for_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(monkeypatch, retries=2, commit_after=10).begin().at(1.0, ROLE)
    stream.session.intake.exchange_ended(Error("network", "cut", reason="truncated"))
    stream.at(3.0)
    asked_again = stream.session.attempts.attempt.at
    assert 1.0 < asked_again < 3.0
    stream.session.intake.head_received(200, SSE)
    stream.at(4.0, frame()).at(5.0, LAST)
    assert stream.first == (4.0, pytest.approx(4.0 - asked_again))
