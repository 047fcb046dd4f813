"""The keys of one issuer in one process: fetched beside the requests, which never wait for them.

Owns when they are fetched, and how long they are used.

1. They are fetched as soon as a configuration names the issuer, and then each `limits.issuer_fresh` seconds.
2. A token that names an unknown key causes a fetch, at most one in `limits.issuer_refresh` seconds.
3. A failed fetch is repeated after a pause, which doubles. Until then the last keys are used, for at most
   `limits.issuer_kept` seconds after they came.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

from gai_fast.model.limits import SHARED
from gai_fast.net.issuers.fetching import IssuerError, fetch_keys
from gai_fast.net.issuers.key_set import KeySet
from gai_fast.net.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")

_MOST_FAILURES: Final = 16
"""Failures in a row that are counted: the pause has reached its limit by then."""

Fetch = Callable[[str], Awaitable[KeySet]]


class KeySource:
    """The keys of one issuer, on the running loop.

    Args:
        url: Its URL.
        fetch: Fetches them; raises an `IssuerError`.
    """

    def __init__(self, url: str, fetch: Fetch = fetch_keys) -> None:
        self._url = url
        self._fetch = fetch
        self._loop = asyncio.get_running_loop()
        self._keys: KeySet | None = None
        self._came_at = -math.inf
        self._refreshed_at = -math.inf  # the last fetch that an unknown key has caused
        self._is_closed = False
        self._failures = 0
        self._warn_at = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def close(self) -> None:
        """Fetches nothing any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def keys(self) -> KeySet | None:
        """Returns the keys. None if there are none, or if they came too long ago.

        As long as a fetch brings nothing new, this is the same object.
        """
        return self._keys if self._loop.time() - self._came_at <= LIMITS.issuer_kept else None

    def may_have_more(self) -> bool:
        """Returns whether keys are being fetched, after a token has named an unknown one; begins a fetch: rule 2."""
        now = self._loop.time()
        if self._task is None and now - self._refreshed_at >= LIMITS.issuer_refresh:
            self._refreshed_at = now
            self._begin()
        return self._task is not None

    @property
    def is_failing(self) -> bool:
        """Whether the last fetch has failed: an unknown key may be a new one."""
        return self._failures > 0

    async def fetched(self, seconds: float) -> None:
        """Waits for the end of the fetch under way.

        Args:
            seconds: The longest wait.
        """
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        pause = LIMITS.issuer_retry_most  # after a bug of ours, which the loop reports
        try:
            keys = await self._fetch(self._url)
        except IssuerError as problem:
            pause = min(LIMITS.issuer_retry * 2.0**self._failures, LIMITS.issuer_retry_most)
            self._failures = min(self._failures + 1, _MOST_FAILURES)
            self._warn(problem)
        else:
            pause = LIMITS.issuer_fresh
            self._failures, self._came_at = 0, self._loop.time()
            if keys != self._keys:
                self._keys = keys
                if keys.left_out:
                    text = (
                        "the issuer %s has %d keys, of which the first %d are used: tokens of the other %d are refused"
                    )
                    _log.warning(text, self._url, len(keys) + keys.left_out, len(keys), keys.left_out)
        finally:
            self._task = None
            if not self._is_closed:
                self._timer = self._loop.call_later(pause, self._begin)

    def _warn(self, problem: IssuerError) -> None:
        now = self._loop.time()
        if now >= self._warn_at:
            self._warn_at = now + SHARED.warning_interval
            _log.warning("the keys of the issuer %s cannot be fetched: %s", self._url, problem)
