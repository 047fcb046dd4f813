"""The tokens of one identity in one process: fetched in a thread before the former ends, used by every request.

Owns when a token is fetched, who gets it, and what a refused one leads to. `fetch.py` fetches; `waiting_exchange.py` is
a request that waits.

1. A token is fetched as soon as a configuration names its identity, and again some minutes before its end. The former
   one is used until its end, whatever happens to the next.
2. A failed fetch is repeated after a pause, which doubles. Until then, requests are refused if there is no token.
3. A request that finds no token, and no failure, waits for the fetch under way.
4. A token that an upstream refuses (401) is dropped, and another one is fetched at once: the request is repeated with
   it. If that one is refused too, it is set aside for a minute. What a refusal concerns is in `standing.py`: if it may
   be the request alone, that waits for the other token, and all others go on with the former one.
5. A fetch without a result is given up after a while. Its thread may hang, so the number of threads is limited.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ANONYMOUS, IdentitySettings, Secret, UpstreamSettings
from gai_fast.net.attempts.key_ring import Keys
from gai_fast.net.attempts.recording import secrets_of
from gai_fast.net.attempts.retry import NO_TOKEN, REFUSED_IDENTITY
from gai_fast.net.attempts.standing import Aside, Standing, is_refusal
from gai_fast.net.identity.fetch import fetch
from gai_fast.net.identity.grant import Grant, IdentityError
from gai_fast.net.identity.waiting_exchange import Send, WaitingExchange
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.runtime.programs import Cancellation

_log: Final = logging.getLogger("gai_fast.upstream")

Fetch = Callable[[IdentitySettings, Cancellation], Grant]


class TokenSource(Keys):
    """The tokens of one identity.

    Args:
        identity: Where they come from.
        loop: The loop.
        fetch: Fetches one; runs in a thread.

    Attributes:
        problem: Why there is no newer token. None if the last fetch succeeded, or none has ended.
    """

    def __init__(self, identity: IdentitySettings, loop: asyncio.AbstractEventLoop, fetch: Fetch = fetch) -> None:
        self.problem: IdentityError | None = None
        self._identity = identity
        self._loop = loop
        self._fetch = fetch
        self._grant: Grant | None = None
        self._ends_at = math.inf
        self._aside = Aside()  # rule 4
        self._standing = Standing()  # of the identity: its tokens have the same scopes
        self._doubted: set[tuple[str, str]] = set()  # places and callers whose requests wait for another token
        self._replaced_at = -math.inf  # when a token came in place of a refused one
        self._is_replacing = False
        self._failures = 0
        self._retry_at = -math.inf
        self._warn_at = -math.inf
        self._running: Cancellation | None = None  # the fetch under way
        self._threads: set[Cancellation] = set()
        self._timer: asyncio.TimerHandle | None = None  # the next fetch, or the time to give up the one under way
        self._waiting: dict[WaitingExchange, None] = {}
        self._secrets: deque[frozenset[bytes]] = deque(maxlen=LIMITS.token_secrets)
        self._is_closed = False
        self._begin()

    def close(self) -> None:
        """Fetches no further token, and ends a program that runs for one. Requests that wait get one if it comes."""
        self._is_closed = True
        self._set_timer(None)
        if not self._waiting:
            for each in self._threads:
                each.cancel()

    # -- requests --

    def next(
        self, now: float, place: str = "", caller: str = ANONYMOUS, session: str = "", after: Secret | None = None
    ) -> Secret | None:
        grant = self._current(now, place, caller)
        return None if grant is None else grant.secret

    def standing(self, key: Secret | None) -> Standing:
        return self._standing

    def open(
        self,
        upstream: UpstreamSettings,
        receiver: Receiver,
        send: Send,
        place: str = "",
        caller: str = ANONYMOUS,
    ) -> OpenExchange:
        """Sends a request with a token, or lets it wait for one.

        Args:
            upstream: The upstream.
            receiver: Gets the response.
            send: Sends the request.
            place: As for `next`.
            caller: As for `next`.

        Raises:
            Error: As `send`.
        """
        grant = self._current(self._loop.time(), place, caller)
        if grant is not None:
            return send(grant)
        patience = LIMITS.token_wait
        if not isinstance(upstream.first_event_timeout, str):
            patience = min(patience, upstream.first_event_timeout * LIMITS.token_wait_share)
        waiting = WaitingExchange(upstream, receiver, send, self._waiting)
        waiting.wait(self._loop, patience, self._error(upstream, _SLOW, patience))
        return waiting

    def failed(
        self, key: Secret | None, error: Error, now: float, place: str = "", caller: str = ANONYMOUS
    ) -> float | None:
        """Replaces a token that an upstream refuses: rule 4."""
        if self._is_used_instead(key, error):
            return 0.0
        if not is_refusal(error):
            return None
        if self._is_former(key):
            return 0.0
        if self._is_the_other(now):
            self._aside.put(place, now + LIMITS.refused_key, is_limited=False)
            self._fetch_later(LIMITS.refused_key)
            return LIMITS.refused_key
        self._grant, self._is_replacing = None, True
        self._begin()
        return 0.0

    def doubted(self, key: Secret | None, error: Error, now: float, place: str, caller: str) -> float | None:
        """Lets the request wait for another token. Other requests use the current token until then: rule 4."""
        if self._is_used_instead(key, error) or self._is_former(key):
            return 0.0
        if (place, caller) in self._doubted:
            return 0.0
        if self._is_the_other(now) or len(self._doubted) >= LIMITS.known_places:
            return None
        self._doubted.add((place, caller))
        self._is_replacing = True
        self._begin()
        return 0.0

    def _is_used_instead(self, key: Secret | None, error: Error) -> bool:
        """Returns whether another form of the credential is used from now on: the upstream does not take this one."""
        grant = self._grant
        if grant is None or not (key is None or key == grant.secret) or error.code not in ("unauthorized", "forbidden"):
            return False
        other = grant.instead(error)
        if other is not None:
            self._use(other)
        return other is not None

    def _is_former(self, key: Secret | None) -> bool:
        """Returns whether a refused token is no longer used."""
        return self._grant is None or (key is not None and key != self._grant.secret)

    def _is_the_other(self, now: float) -> bool:
        """Returns whether there is no other token now: the current one is fixed, or has just replaced a refused one."""
        return self._identity.token is not None or now < self._replaced_at + LIMITS.refused_key

    def wait(self, now: float, place: str = "") -> float:
        if self._current(now, place) is not None:
            return 0.0
        aside = self._aside.at(place)[0]
        until = aside if self.problem is None else max(aside, self._retry_at)
        return max(until - now, LIMITS.retry_first)

    def refusal(self, upstream: UpstreamSettings, now: float, place: str = "") -> Error | None:
        if now < self._aside.at(place)[0]:
            return self._error(upstream, _REFUSED, 0.0)
        return None if self.problem is None else self._error(upstream, self.problem, self._retry_at - now)

    @property
    def secrets(self) -> frozenset[bytes]:
        """The texts of the last tokens, which no answer may hold."""
        return frozenset().union(*self._secrets)

    def _current(self, now: float, place: str = "", caller: str = ANONYMOUS) -> Grant | None:
        if self._doubted and (place, caller) in self._doubted:
            return None
        return None if now >= self._ends_at or now < self._aside.at(place)[0] else self._grant

    # -- fetches --

    def _begin(self) -> None:
        if self._running is not None or self._is_closed:
            return
        if self._identity.token is not None:
            self._fetch_now()
            return
        if len(self._threads) >= LIMITS.token_threads:
            self._failed(_SLOW)
            return
        self._running = cancellation = Cancellation()
        self._threads.add(cancellation)
        self._set_timer(self._loop.call_later(LIMITS.token_fetch, self._give_up))
        start_fetch(self._identity, cancellation, partial(self._deliver, cancellation), self._fetch)

    def _fetch_now(self) -> None:
        """Uses the token of the environment, which needs no thread."""
        try:
            self._came(self._fetch(self._identity, Cancellation()))
        except IdentityError as problem:
            self._failed(problem)

    def _deliver(self, cancellation: Cancellation, result: Grant | IdentityError) -> None:
        """Called in the thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._fetched, cancellation, result)

    def _fetched(self, cancellation: Cancellation, result: Grant | IdentityError) -> None:
        self._threads.discard(cancellation)
        is_running = cancellation is self._running
        if is_running:
            self._running = None
            self._set_timer(None)
        if isinstance(result, Grant):
            if is_running or self._grant is None:
                self._came(result)
        elif is_running:
            self._failed(result)

    def _give_up(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = None
        self._failed(_SLOW)

    def _came(self, grant: Grant) -> None:
        now = self._loop.time()
        self._failures, self.problem, self._aside = 0, None, Aside()
        self._doubted.clear()
        if self._is_replacing:
            self._replaced_at, self._is_replacing = now, False
        self._ends_at = math.inf if grant.seconds is None else now + grant.seconds - LIMITS.token_least
        self._use(grant)
        if grant.seconds is not None:
            self._fetch_later(max(1.0, grant.seconds - min(LIMITS.token_early, grant.seconds / 4)))
        elif self._identity.token is None:
            self._fetch_later(LIMITS.token_unknown)
        for waiting in list(self._waiting):
            waiting.go_on(grant)

    def _use(self, grant: Grant) -> None:
        self._grant = grant
        self._secrets.append(secrets_of(grant.secret.reveal(), {}))

    def _failed(self, problem: IdentityError) -> None:
        now = self._loop.time()
        self.problem = problem
        self._doubted.clear()
        pause = min(LIMITS.token_retry * 2.0**self._failures, LIMITS.token_retry_most)
        self._failures += 1
        self._retry_at = now + pause
        self._fetch_later(pause)
        if now >= self._warn_at and not self._is_closed:
            self._warn_at = now + SHARED.warning_interval
            _log.warning("`%s`: %s: %s", self._identity.key, problem, problem.fix)
        for waiting in list(self._waiting):
            waiting.fail(self._error(waiting.upstream, problem, pause))

    def _fetch_later(self, seconds: float) -> None:
        if not self._is_closed and self._running is None:
            self._set_timer(self._loop.call_later(seconds, self._begin))

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _error(self, upstream: UpstreamSettings, problem: IdentityError, seconds: float) -> Error:
        """Returns the error for a request without a token. What is wrong stands in the log, for operators.

        Args:
            upstream: The upstream.
            problem: Why there is none.
            seconds: Seconds until the next attempt to get one.
        """
        check = f"the operator should check `{self._identity.key}` of this [[upstream]]"
        if problem.is_final:
            return Error(
                "provider_unavailable",
                f"no token for upstream {upstream.name!r}: its identity is refused: {check}",
                reason=REFUSED_IDENTITY,
                temporary=False,
                phase="connect",
                provider=upstream.provider,
                status=502,
            )
        wait = max(1, math.ceil(seconds * 1000))
        return Error(
            "provider_unavailable",
            f"no token for upstream {upstream.name!r}: its identity does not answer: {check}",
            reason=NO_TOKEN,
            retry_after_ms=min(wait, SHARED.retry_after_ms),
            phase="connect",
            provider=upstream.provider,
        )


_SLOW: Final = IdentityError("no token has come in time", "check what it asks, and the network", is_final=False)
_REFUSED: Final = IdentityError("the upstream refuses the tokens", "check what the identity may do")


def start_fetch(
    identity: IdentitySettings,
    cancellation: Cancellation,
    deliver: Callable[[Grant | IdentityError], None],
    fetch: Fetch = fetch,
) -> None:
    """Fetches a grant in a thread.

    Args:
        identity: Where from.
        cancellation: Ends a program that runs for it.
        deliver: Called in the thread with the result.
        fetch: As for `TokenSource`.
    """
    work = partial(_work, fetch, identity, cancellation, deliver)
    # A daemon: a library that hangs must not keep the process from ending, as a pool's thread would.
    threading.Thread(target=work, name="gai-fast-identity", daemon=True).start()


def _work(
    fetch: Fetch,
    identity: IdentitySettings,
    cancellation: Cancellation,
    deliver: Callable[[Grant | IdentityError], None],
) -> None:
    """Fetches a grant, and delivers the result, even if a bug ends the thread."""
    result: Grant | IdentityError = IdentityError("fetching a token failed by a bug", "report it", is_final=False)
    try:
        result = fetch(identity, cancellation)
    except IdentityError as problem:
        result = problem
    finally:
        deliver(result)
