"""The idempotency keys of `memory://`, and how many keys this process may hold in any store.

Owns both bounds. Knows no store outside the process.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Final

from gai_fast.model.errors import Error
from gai_fast.stores._base import Claim
from gai_fast.stores.limits import LIMITS

_STEPS: Final = 256
"""Steps in which the time of keys is counted: a key counts for at most one step longer than it is taken."""


def no_room() -> Error:
    """The refusal of one key more."""
    return Error("overloaded", "there is no room for another idempotency key", reason="store")


class ClaimBudget:
    """The number of keys that this process has taken and that are still taken, by caller.

    A caller may hold as many as are free, so that none takes the room of the others: alone it has half of all, beside
    one that has its half a quarter, and both come to a third as keys expire.

    Args:
        ttl: Seconds for which a key is taken.
        clock: Monotonic seconds.
    """

    def __init__(self, ttl: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.use(ttl)
        self._taken: deque[tuple[float, Counter[str]]] = deque()  # until when, and how many: one for each step of time
        self._held: Counter[str] = Counter()
        self._count = 0

    def use(self, ttl: float) -> None:
        """Counts the keys that are taken from now on for so many seconds; those before keep their time."""
        self._ttl = ttl
        self._step = ttl / _STEPS

    def take(self, caller: str) -> None:
        """Counts one more key.

        Args:
            caller: The caller that holds it.

        Raises:
            Overloaded: The caller holds as many as are free.
        """
        now = self._clock()
        while self._taken and self._taken[0][0] <= now:
            for holder, count in self._taken.popleft()[1].items():
                _lower(self._held, holder, count)
                self._count -= count
        if self._held[caller] >= LIMITS.claims - self._count:
            raise no_room()
        due = now + self._ttl
        if not self._taken or due - self._taken[-1][0] >= self._step:
            self._taken.append((due + self._step, Counter()))
        self._taken[-1][1][caller] += 1
        self._held[caller] += 1
        self._count += 1

    def give_back(self, caller: str) -> None:
        """Counts one key less, as if it were the one that was taken last.

        Args:
            caller: The caller that held it.
        """
        for _, taken in reversed(self._taken):
            if taken[caller]:
                _lower(taken, caller, 1)
                _lower(self._held, caller, 1)
                self._count -= 1
                return


def _lower(counts: Counter[str], caller: str, count: int) -> None:
    counts[caller] -= count
    if not counts[caller]:
        del counts[caller]


class MemoryClaims:
    """The keys of one process, gone with it.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._claims: OrderedDict[str, tuple[Claim, float]] = OrderedDict()  # in the order in which they were taken

    def __len__(self) -> int:
        return len(self._claims)

    def claim(self, key: str, claim: Claim, ttl: float) -> Claim | None:
        """Takes a key.

        Args:
            key: A digest.
            claim: The stream that takes it.
            ttl: Seconds for which it is taken.

        Returns:
            The claim that stands. None if the key was free or already belongs to this claim.
        """
        now = self._clock()
        while self._claims:
            first = next(iter(self._claims))
            if self._claims[first][1] > now:
                break
            del self._claims[first]
        if key in self._claims and self._claims[key][1] <= now:  # the time to live has been shortened
            del self._claims[key]
        standing = self._claims.setdefault(key, (claim, now + ttl))[0]
        return None if standing == claim else standing

    def standing(self, key: str) -> Claim | None:
        """Returns the claim that has a key. None if the key is free."""
        standing = self._claims.get(key)
        return None if standing is None or standing[1] <= self._clock() else standing[0]

    def release(self, key: str, stream_id: str) -> bool:
        """Frees a key if this stream has it; returns whether it had."""
        standing = self._claims.get(key)
        if standing is None or standing[0].stream_id != stream_id:
            return False
        del self._claims[key]
        return True
