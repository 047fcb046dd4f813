"""When tokens are fetched, who gets them, and what refused, slow and missing ones lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import IdentitySettings, Secret, UpstreamSettings
from gai_fast.net.identity import token_source as module
from gai_fast.net.identity.grant import Bearer, Grant, IdentityError
from gai_fast.net.identity.token_source import TokenSource
from gai_fast.runtime.programs import Cancellation
from tests.limits import LIMITS
from tests.unit.net.conftest import Recorder
from tests.unit.net.fakes import FakeExchange, FakeTime

IDENTITY = IdentitySettings("google")
UPSTREAM = UpstreamSettings("up", "openai", "http://x", identity=IDENTITY)
REFUSED = Error("unauthorized", "no such token", status=401)
DOWN = IdentityError("it is down", "start it", is_final=False)
WRONG = IdentityError("it says no", "ask it")


class Threads:
    """Fetches that end when the test says so, and the clock of the loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, identity: IdentitySettings = IDENTITY, *results: Grant) -> None:
        self.time = FakeTime()
        self.time.call_soon_threadsafe = lambda callback, *given: callback(*given)  # type: ignore[attr-defined]  # a fake
        call_later = self.time.call_later
        self.time.call_later = lambda delay, callback, *given: call_later(delay, lambda: callback(*given))  # type: ignore[method-assign, misc, assignment]  # likewise
        self.started: list[Callable[[], None]] = []
        self.results: list[Grant | IdentityError] = [*results]
        self.cancelled: list[Cancellation] = []
        self.sent: list[str] = []
        monkeypatch.setattr(module.threading, "Thread", self._thread)
        self.source = TokenSource(identity, self.time, self._fetch)  # type: ignore[arg-type]  # a fake

    def _thread(self, *, target: Callable[[], None], name: str, daemon: bool) -> Any:
        assert daemon
        threads = self

        class Thread:
            def start(self) -> None:
                threads.started.append(target)

        return Thread()

    def _fetch(self, identity: IdentitySettings, cancellation: Cancellation) -> Grant:
        result = self.results.pop(0)
        if isinstance(result, IdentityError):
            raise result
        return result

    def end(self, result: Grant | IdentityError, number: int = 0) -> None:
        """Ends a fetch that has been started."""
        self.results.append(result)
        self.started.pop(number)()

    @property
    def now(self) -> float:
        return self.time.now

    def token(self) -> str | None:
        found = self.source.next(self.now)
        return None if found is None else found.reveal()

    def ask(self) -> tuple[Recorder, Any]:
        receiver = Recorder()

        def send(grant: Grant) -> FakeExchange:
            self.sent.append(grant.secret.reveal())
            return FakeExchange()

        return receiver, self.source.open(UPSTREAM, receiver, send)  # type: ignore[arg-type]  # a fake

    def refusal(self) -> Error:
        found = self.source.refusal(UPSTREAM, self.now)
        assert found is not None
        return found


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


def hour(text: str = "one") -> Bearer:
    return Bearer(text, 3600.0)


def test_a_token_is_fetched_before_anybody_asks_and_again_before_its_end(threads: Threads) -> None:
    assert (len(threads.started), threads.token()) == (1, None)
    threads.end(hour())
    assert (threads.token(), threads.source.wait(0.0)) == ("one", 0.0)
    threads.time.advance(3600 - LIMITS.token_early - 1)
    assert threads.started == []
    threads.time.advance(1)
    assert (len(threads.started), threads.token()) == (1, "one"), "the former is used meanwhile"
    threads.end(hour("two"))
    assert threads.token() == "two"
    assert threads.time.armed == 1


def test_a_short_token_is_replaced_in_the_last_quarter_of_its_life(threads: Threads) -> None:
    threads.end(Bearer("one", 60.0))
    threads.time.advance(44)
    assert threads.started == []
    threads.time.advance(1)
    assert len(threads.started) == 1
    threads.time.advance(15 - LIMITS.token_least)
    assert threads.token() is None, "a request must arrive with it"


def test_a_token_whose_end_is_not_known_is_used_until_the_next_one(threads: Threads) -> None:
    threads.end(Bearer("one", None))
    threads.time.advance(LIMITS.token_unknown)
    threads.end(DOWN)
    threads.time.advance(10 * LIMITS.token_unknown)
    assert threads.token() == "one"


def test_a_failed_fetch_is_repeated_ever_more_rarely_and_the_former_token_used_until_its_end(
    threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    threads.end(hour())
    threads.time.advance(3600 - LIMITS.token_early)
    pauses = []
    for _ in range(8):
        threads.end(DOWN)
        before = threads.now
        while not threads.started:
            threads.time.advance(0.5)
        pauses.append(threads.now - before)
        if threads.now < 3600 - LIMITS.token_least:
            assert threads.token() == "one"
            assert threads.source.wait(threads.now) == 0.0
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    result = "`auth`: it is down: start it"
    assert set(caplog.messages) == {result}
    assert len(caplog.messages) < 8, "once a minute"
    threads.end(hour("two"))
    assert threads.token() == "two"


def test_a_request_waits_for_the_first_token(threads: Threads) -> None:
    receiver, exchange = threads.ask()
    assert (exchange.sent, exchange.is_complete, exchange.resent, exchange.is_waiting) == (False,) * 4
    threads.end(hour())
    assert threads.sent == ["one"]
    assert receiver.calls == []
    threads.time.advance(60)
    assert receiver.calls == []


def test_a_request_waits_no_longer_than_its_limit(threads: Threads) -> None:
    receiver, _ = threads.ask()
    threads.time.advance(LIMITS.token_wait - 0.1)
    assert receiver.calls == []
    threads.time.advance(0.2)
    (error,) = receiver.ends
    assert error is not None
    assert (error.code, error.reason, error.phase, error.is_temporary) == (
        "provider_unavailable",
        "upstream_token",
        "connect",
        True,
    )
    assert "'up'" in error.message
    assert "`auth`" in error.message
    threads.end(hour())
    assert threads.sent == []


def test_a_request_whose_client_leaves_waits_no_more(threads: Threads) -> None:
    receiver, exchange = threads.ask()
    exchange.close()
    exchange.close()
    threads.end(hour())
    threads.time.advance(LIMITS.token_wait)
    assert (threads.sent, receiver.calls) == ([], [])


@pytest.mark.parametrize(
    ("problem", "status", "reason", "temporary"),
    [(DOWN, 503, "upstream_token", True), (WRONG, 502, "upstream_credentials", False)],
)
def test_a_failure_ends_all_waits_and_refuses_requests_until_a_token_comes(
    threads: Threads, problem: IdentityError, status: int, reason: str, temporary: bool
) -> None:
    waiting = [threads.ask()[0] for _ in range(3)]
    threads.end(problem)
    for error in [*(each.ends[0] for each in waiting), threads.refusal()]:
        assert error is not None
        assert (error.status, error.reason, error.is_temporary) == (status, reason, temporary)
        assert str(problem) not in error.message, "that is for operators"
    assert threads.source.wait(0.0) == 1.0
    threads.time.advance(1)
    threads.end(hour())
    assert (threads.source.refusal(UPSTREAM, threads.now), threads.token()) == (None, "one")


def test_a_refused_token_is_replaced_once_for_all_requests_that_had_it(threads: Threads) -> None:
    threads.end(hour())
    first = Secret("one")
    assert [threads.source.failed(first, REFUSED, 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert (len(threads.started), threads.token()) == (1, None)
    threads.ask()
    threads.end(hour("two"))
    assert threads.sent == ["two"]
    assert threads.source.failed(first, REFUSED, threads.now) == 0.0, "a late one"
    assert (threads.started, threads.token()) == ([], "two")


def test_a_token_that_is_refused_in_place_of_a_refused_one_is_set_aside(threads: Threads) -> None:
    threads.end(hour())
    threads.source.failed(Secret("one"), REFUSED, 0.0)
    threads.end(hour("two"))
    assert threads.source.failed(Secret("two"), REFUSED, threads.now) == LIMITS.refused_key
    error = threads.refusal()
    assert (error.reason, error.status, error.is_temporary) == ("upstream_credentials", 502, False)
    assert threads.started == []
    threads.time.advance(LIMITS.refused_key)
    assert len(threads.started) == 1, "another is fetched"
    threads.end(hour("three"))
    assert threads.token() == "three"


def test_a_request_that_has_waited_has_had_the_current_token(threads: Threads) -> None:
    threads.ask()
    threads.end(hour())
    assert threads.source.failed(None, REFUSED, 0.0) == 0.0
    assert len(threads.started) == 1


@pytest.mark.parametrize(
    ("error", "is_its"),
    [
        (Error("forbidden", "The security token included in the request is expired", status=403), True),
        (Error("forbidden", "you may not use this model", status=403), False),
        (Error("rate_limited", "slow down", retry_after_ms=1000), False),
        (Error("network", "cut"), False),
        (Error("provider_unavailable", "no token", reason="upstream_token", phase="connect"), False),
    ],
)
def test_other_failures_are_not_the_tokens(threads: Threads, error: Error, is_its: bool) -> None:
    threads.end(hour())
    assert threads.source.failed(Secret("one"), error, 0.0) == (0.0 if is_its else None)
    assert len(threads.started) == is_its


def test_a_token_that_an_account_forbids_gives_way_to_another_without_a_fetch(threads: Threads) -> None:
    class Made(Bearer):
        def instead(self, error: Error) -> Grant | None:
            return hour("other") if "CallWithBearerToken" in error.message else None

    threads.end(Made("one", 3600.0))
    denied = Error("forbidden", "not authorized to perform: bedrock:CallWithBearerToken", status=403)
    assert threads.source.failed(Secret("one"), denied, 0.0) == 0.0
    assert (threads.token(), threads.started) == ("other", [])
    assert {b"one", b"other"} <= threads.source.secrets


def test_a_fetch_that_hangs_is_given_up_and_threads_are_limited(threads: Threads) -> None:
    for _ in range(30):
        threads.time.advance(LIMITS.token_fetch + LIMITS.token_retry_most)
    assert len(threads.started) == LIMITS.token_threads
    assert threads.refusal().reason == "upstream_token"
    threads.end(hour("late"))
    assert threads.token() == "late", "a late one is welcome"
    threads.end(DOWN)
    assert threads.token() == "late"


def test_a_late_token_does_not_replace_a_newer_one(threads: Threads) -> None:
    threads.time.advance(LIMITS.token_fetch)
    threads.time.advance(LIMITS.token_retry)
    assert len(threads.started) == 2
    threads.end(hour("new"), 1)
    threads.end(hour("old"))
    assert threads.token() == "new"


def test_a_bug_in_a_fetch_is_a_failure(threads: Threads) -> None:
    (work,) = threads.started
    with pytest.raises(IndexError):
        work()  # there is no result
    assert threads.refusal().reason == "upstream_token"


def test_the_token_of_the_environment_needs_no_thread_and_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = Bearer("fixed", None)
    threads = Threads(monkeypatch, IdentitySettings("aws", token=Secret("fixed")), fixed, fixed)
    assert (threads.token(), threads.started, threads.time.armed) == ("fixed", [], 0)
    assert threads.source.failed(Secret("fixed"), REFUSED, 0.0) == LIMITS.refused_key
    assert threads.token() is None
    threads.time.advance(LIMITS.refused_key)
    assert threads.token() == "fixed"


def test_a_closed_source_fetches_no_more_and_ends_programs(threads: Threads) -> None:
    threads.end(hour())
    threads.source.close()
    assert threads.time.armed == 0
    threads.time.advance(7200)
    assert threads.started == []


def test_the_last_tokens_are_known_as_secrets(threads: Threads) -> None:
    for number in range(6):
        threads.end(hour(f"tok-{number}"))
        threads.time.advance(3600 - LIMITS.token_early)
    assert threads.source.secrets == {f"tok-{number}".encode() for number in range(2, 6)}


def test_a_refusal_that_may_be_of_a_request_alone_leaves_the_token_to_all_others(threads: Threads) -> None:
    threads.end(hour())
    assert threads.source.doubted(Secret("one"), REFUSED, 0.0, "m", "hostile") == 0.0
    assert threads.source.doubted(Secret("one"), REFUSED, 0.0, "m", "hostile") == 0.0, "of another request"
    assert threads.source.next(0.0, "m", "hostile") is None
    assert [threads.source.next(0.0, "m", "b"), threads.source.next(0.0, "other", "hostile")] == [Secret("one")] * 2
    assert (len(threads.started), threads.source.wait(0.0, "m")) == (1, 0.0)
    threads.end(hour("two"))
    assert threads.source.next(0.0, "m", "hostile") == Secret("two")
    assert threads.source.doubted(Secret("two"), REFUSED, 1.0, "m", "hostile") is None, "another token does no better"
    assert (threads.token(), threads.started) == ("two", [])


def test_a_request_that_waits_for_another_token_goes_on_with_the_current_one_if_none_comes(threads: Threads) -> None:
    threads.end(hour())
    threads.source.doubted(Secret("one"), REFUSED, 0.0, "m", "hostile")
    threads.end(DOWN)
    assert threads.source.next(0.0, "m", "hostile") == Secret("one")
    assert threads.source.refusal(UPSTREAM, 0.0) is not None
    assert threads.token() == "one", "and nobody is refused"


def test_a_model_out_of_an_identitys_scope_is_refused_alone(threads: Threads) -> None:
    threads.end(hour())
    threads.source.doubted(Secret("one"), REFUSED, 0.0, "m", "hostile")
    threads.end(hour("two"))
    assert threads.source.failed(Secret("two"), REFUSED, 0.0, "m") == LIMITS.refused_key
    assert threads.source.next(0.0, "m") is None
    assert threads.source.refusal(UPSTREAM, 0.0, "m") is not None
    assert (threads.source.next(0.0, "other"), threads.source.refusal(UPSTREAM, 0.0, "other")) == (Secret("two"), None)
    standing = threads.source.standing(Secret("two"))
    assert standing is threads.source.standing(None), "the scopes of all its tokens are the same"
