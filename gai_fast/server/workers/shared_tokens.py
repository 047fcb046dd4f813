"""The tokens of clouds that the workers of a server share, in the supervisor's memory.

Owns which worker fetches a token, and the answers to the others. The supervisor fetches nothing: it has no threads.

1. A worker asks for a token other than its last. It gets that, or must fetch it, or must wait for a worker that does.
2. A worker that fetches reports the grant, or why there is none. Workers that wait get the same.
3. If that worker ends, or takes too long, the next worker that asks must fetch.
4. A worker that does not reach the supervisor fetches for itself.
5. The supervisor does not read grants, and keeps those of the current configuration alone.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from hashlib import sha256
from typing import Any, Final

import msgspec

from gai_fast.model.errors import Error
from gai_fast.model.settings import IdentitySettings, Settings
from gai_fast.net.identity.fetch import fetch
from gai_fast.net.identity.grant import Grant, IdentityError
from gai_fast.net.identity.token_source import Fetch
from gai_fast.runtime.programs import Cancellation
from gai_fast.server.limits import LIMITS
from gai_fast.server.workers.peers import SupervisorQuestions

_ASKED: Final = "token"
_FETCHED: Final = "token_fetched"
_FAILED: Final = "token_failed"
QUESTIONS: Final = (_ASKED, _FETCHED, _FAILED)
"""The kinds of requests to the supervisor."""
_BUG: Final = ("fetching a token failed by a bug", "report it", False)


class _Shared:
    """The token of one identity.

    Attributes:
        number: The number of its last grant; 0 if there is none.
        grant: The grant, pickled.
        ends_at: The grant's end. None if that is unknown.
        fetched_at: When it was fetched.
        fetcher: The worker that fetches. None if none does.
        until: When that worker counts as hanging.
        problem: Why the last fetch failed: the arguments of `IdentityError`.
        failed_at: When it failed.
    """

    __slots__ = ("ends_at", "failed_at", "fetched_at", "fetcher", "grant", "number", "problem", "until")

    def __init__(self) -> None:
        self.number = 0
        self.grant = b""
        self.ends_at: float | None = None
        self.fetched_at = self.until = 0.0
        self.fetcher: int | None = None
        self.problem: Sequence[Any] = ()
        self.failed_at = 0.0


class TokenHome:
    """The tokens in the supervisor.

    Args:
        settings: The configuration.
        clock: Monotonic seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_number = 0
        self._shared: dict[str, _Shared] = {}
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Replaces the configuration. Keeps only tokens that it still uses: rule 5."""
        names = {name_of(each.identity) for each in settings.upstreams.values() if each.identity is not None}
        self._shared = {name: self._shared.get(name) or _Shared() for name in names}

    def answer(self, kind: str, items: Sequence[Any]) -> Any:
        """Answers a worker's request.

        Args:
            kind: One of `QUESTIONS`.
            items: The arguments that `SupervisorTokens` sends.
        """
        name, worker, *rest = items
        shared, now = self._shared.get(name), self._clock()
        if shared is None:  # of a former configuration
            return ("fetch",) if kind == _ASKED else 0
        if kind == _ASKED:
            return self._asked(shared, worker, rest[0], now)
        if shared.fetcher == worker:
            shared.fetcher = None
        if kind == _FAILED:
            shared.problem, shared.failed_at = rest, now
            return 0
        grant, seconds = rest
        self._last_number += 1
        shared.number, shared.grant, shared.fetched_at, shared.problem = self._last_number, grant, now, ()
        shared.ends_at = None if seconds is None else now + seconds
        return shared.number

    def _asked(self, shared: _Shared, worker: int, number: int, now: float) -> tuple[Any, ...]:
        if shared.number not in (0, number):
            left = None if shared.ends_at is None else shared.ends_at - now
            if now - shared.fetched_at < LIMITS.token_shared if left is None else left > LIMITS.token_shared:
                return "grant", shared.number, shared.grant, left
        if shared.fetcher is not None and now < shared.until:
            return ("wait",)
        if shared.problem and now - shared.failed_at < LIMITS.token_failure:
            return "failed", *shared.problem
        shared.fetcher, shared.until = worker, now + LIMITS.token_claim
        return ("fetch",)

    def forget(self, worker: int) -> None:
        """Notes that a worker is gone: rule 3."""
        for shared in self._shared.values():
            if shared.fetcher == worker:
                shared.fetcher = None


class SupervisorTokens:
    """A worker's tokens. `fetch` is called in threads.

    Args:
        supervisor: Has the tokens.
        number: The number of this worker.
        loop: The worker's loop.
        fetch: Fetches a token.
    """

    def __init__(
        self, supervisor: SupervisorQuestions, number: int, loop: asyncio.AbstractEventLoop, fetch: Fetch = fetch
    ) -> None:
        self._supervisor = supervisor
        self._number = number
        self._loop = loop
        self._fetch = fetch
        self._last: dict[str, int] = {}  # the numbers of the last grants

    def fetch(self, identity: IdentitySettings, cancellation: Cancellation) -> Grant:
        """Returns a grant that another worker has fetched, or fetches one; as `net.identity.fetch.fetch`."""
        if identity.token is not None:  # nothing is fetched for it, and this is called by the loop
            return self._fetch(identity, cancellation)
        name = name_of(identity)
        while True:
            answer = self._ask(_ASKED, name, self._last.get(name, 0)) or ("alone",)
            kind, *items = answer
            if kind == "grant":
                self._last[name], pickled, seconds = items
                grant: Grant = pickle.loads(pickled)  # from a worker of this server
                grant.seconds = seconds
                return grant
            if kind == "failed":
                text, fix, is_final = items
                raise IdentityError(text, fix, is_final=is_final)
            if kind == "alone":  # rule 4
                return self._fetch(identity, cancellation)
            if kind == "fetch":
                return self._fetch_for_all(name, identity, cancellation)
            if cancellation.wait(LIMITS.token_pause):
                raise IdentityError("no token has come in time", "check what fetches it", is_final=False)

    def _fetch_for_all(self, name: str, identity: IdentitySettings, cancellation: Cancellation) -> Grant:
        """Fetches a grant and reports it: rule 2."""
        report: tuple[Any, ...] = (_FAILED, name, *_BUG)
        try:
            grant = self._fetch(identity, cancellation)
            report = _FETCHED, name, pickle.dumps(grant), grant.seconds
        except IdentityError as problem:
            report = _FAILED, name, str(problem), problem.fix, problem.is_final
            raise
        finally:
            number = self._ask(*report)
        self._last[name] = number or 0
        return grant

    def _ask(self, kind: str, name: str, *items: Any) -> Any:
        """Asks the supervisor from a thread; returns its answer. None if there is none."""
        question = self._supervisor.ask(kind, name, self._number, *items)
        try:
            return asyncio.run_coroutine_threadsafe(question, self._loop).result(LIMITS.token_answer)
        except RuntimeError:  # the loop is closed
            question.close()
        except (Error, TimeoutError, asyncio.CancelledError):
            pass
        return None


def name_of(identity: IdentitySettings) -> str:
    """Returns the name of an identity, equal in all workers, which reveals nothing of it."""
    values = [getattr(identity, each.name) for each in fields(identity) if each.name != "token"]
    return sha256(msgspec.msgpack.encode(values)).hexdigest()
