"""A simulation of the targets of one model: requests that come by chance, targets with times to first token by chance.

Drives `net/attempts/balance.py` alone, on a clock of its own, so that its figures are the same on every machine.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from gai_fast.core.session import session_digest
from gai_fast.model.settings import Balance, ModelSettings, TargetSettings, UpstreamSettings
from gai_fast.net.attempts.balance import Balancer, TargetKey, TargetRequest, target_key
from tests.limits import LIMITS


def upstream(name: str, **more: Any) -> UpstreamSettings:
    return UpstreamSettings(name, "openai-compatible", f"http://{name}", **more)


def model(balance: Balance, **weights: int) -> ModelSettings:
    """Returns a model with a target for each keyword: the upstream's name and the target's weight."""
    targets = tuple(TargetSettings(upstream(name), "m", weight) for name, weight in weights.items())
    return ModelSettings("m", targets[0].upstream, "m", targets=targets, balance=balance)


def never(_: UpstreamSettings) -> float:
    """Returns the wait of breakers that are closed."""
    return 0.0


class Simulation:
    """Streams over one model.

    Args:
        balance: The rule.
        first_token: By target: the seconds to first token, about.
        rate: Requests a second.
        tokens: Seconds from the first token to the end of a stream.
        seed: Of everything that is random.
        workers: Each has a balancer of its own, and gets requests by chance.
    """

    def __init__(
        self,
        balance: Balance,
        first_token: Mapping[str, float],
        *,
        rate: float,
        tokens: float = 1.0,
        seed: int = 1,
        workers: int = 1,
    ) -> None:
        self.chance = random.Random(seed)
        targets = model(balance, **dict.fromkeys(first_token, 1))
        self.balancers = [Balancer(targets, random.Random(seed + 1 + worker)) for worker in range(workers)]
        self.first_token = dict(first_token)
        self.rate = rate
        self.tokens = tokens
        self.now = 1000.0
        self.waits: list[float] = []
        self.asked: Counter[str] = Counter()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, time: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (time, self._number, act))

    def run(self, requests: int, prefix: Callable[[int], str] = lambda _: "", before: Any = None) -> list[str]:
        """Makes requests; returns the target of each."""
        places: list[str] = []
        arrival = self.now
        for number in range(requests):
            arrival += self.chance.expovariate(self.rate)
            self.at(
                arrival, lambda number=number, came=arrival: self._come(number, prefix(number), before, came, places)
            )
        while self._due:
            self.now, _, act = heapq.heappop(self._due)
            act()
        return places

    def _come(self, number: int, prefix: str, before: Any, came: float, places: list[str]) -> None:
        if before is not None:
            before(number)
        balancer = self.balancers[0] if len(self.balancers) == 1 else self.chance.choice(self.balancers)
        self._ask(balancer, prefix, came, places)

    def _ask(self, balancer: Balancer, prefix: str, came: float, places: list[str]) -> None:
        """Asks as `Attempts.waits` and `Attempts.first` do."""
        placed = balancer.choose(session_digest(prefix, "anna") if prefix else "", self.now, never)
        assert placed is not None
        if self.now < came + LIMITS.unmeasured_wait and balancer.is_premature(placed, self.now, never):
            self.at(self.now + LIMITS.unmeasured_check, lambda: self._ask(balancer, prefix, came, places))
            return
        target_request = balancer.begin(placed, self.now)
        assert isinstance(target_request, TargetRequest)
        name = placed.upstream.name
        wait = self.first_token[name] * self.chance.uniform(0.7, 1.3)
        self.asked[name] += 1
        self.waits.append(self.now - came + wait)
        self.at(self.now + wait, lambda: target_request.answered(self.now))
        self.at(self.now + wait + self.tokens, lambda: target_request.end(self.now))
        places.append(name)

    def percentile(self, part: float) -> float:
        """Returns the time to first token that a part of the requests did not exceed."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(part * len(self.waits)))]


def place(name: str) -> TargetKey:
    """Returns the place of a simulated target."""
    return target_key(ModelSettings("m", upstream(name), "m"))
