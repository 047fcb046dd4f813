"""Counts what a durable stream of a dialect's route costs, beside the same stream of the native route.

The log of both is in the format `gai`, and their client gets the dialect's: only reading the request and beginning the
answer may differ. The requests have idempotency keys, each its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.instructions.bounds import Ratio
from benchmarks.instructions.path import (
    CHAT,
    FEW,
    MANY,
    MESSAGES,
    NATIVE,
    REQUESTS,
    ROUNDS,
    WARM_UP,
    Server,
    at_once,
    one_by_one,
)

PROVIDER: Final = "openai-compatible"
MOST: Final = 1.02
"""What a durable stream of a dialect's route may cost, divided by its native twin."""
ANSWERED: Final = 30
"""Answers whose events alone are counted, of which the smallest count is the cost: on a machine with other work, twelve
once made a difference of 11 % where there is none."""
_ROUTES: Final = {"chat": (CHAT, "openai"), "messages": (MESSAGES, "anthropic")}
_TOKEN: Final = b" tok"


def measure_durable(folder: Path, *, alone: bool = True) -> dict[str, Ratio]:
    """Returns the instructions of durable streams of dialects' routes, beside those of their native twins.

    Args:
        folder: An empty folder.
        alone: Whether events that come alone are counted too.

    Raises:
        RuntimeError: As `measure_path`.
    """
    found: dict[str, Ratio] = {}
    with ExitStack() as stack:
        server = _Server(stack, folder, {PROVIDER})
        for name, (path, form) in _ROUTES.items():
            twin = f"{NATIVE}?format={form}"
            event, request = server.cost_of_an_event, server.cost_of_a_request
            if alone:
                found[f"{name}, a durable event that comes alone"] = Ratio(event(path), event(twin), MOST)
            found[f"{name}, a durable request of 100 deltas"] = Ratio(request(path), request(twin), MOST)
    return found


class _Server(Server):
    """A server that is asked for durable streams. Arguments as for `Server`."""

    _keys = count(1_000_000)

    def cost_of_a_request(self, path: str) -> float:
        """Returns the instructions of a request, of the cheapest round."""
        pieces, counts = at_once(PROVIDER), []
        for _ in range(WARM_UP):
            self._answer(path, pieces)
        self.begin()
        self._answer(path, pieces)
        self.counted()
        for _ in range(ROUNDS):
            for _ in range(REQUESTS):
                self._answer(path, pieces)
            counts.append(self.counted().without_libc)
        return min(counts) / REQUESTS

    def cost_of_an_event(self, path: str) -> float:
        """Returns the instructions of an event that is the only one of its read."""
        few, many = (self._cost_of_events(path, one_by_one(PROVIDER, number)) for number in (FEW, MANY))
        return (many - few) / (MANY - FEW)

    def _cost_of_events(self, path: str, pieces: Sequence[bytes]) -> int:
        for _ in range(WARM_UP):
            self._answer(path, pieces)
        self.begin()
        counts = []
        for _ in range(ANSWERED):
            found: list[int] = []
            self._answer(path, pieces, lambda found=found: found.append(self.counted().without_libc))
            counts.append(found[1])
        return min(counts)

    def _answer(self, path: str, pieces: Sequence[bytes], mark: Callable[[], None] | None = None) -> None:
        """One exchange; arguments as for `ask`."""
        body = {"model": PROVIDER, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
        head += f"Idempotency-Key: {next(self._keys)}\r\nContent-Length: {len(data)}\r\n\r\n"
        with self.connected() as client:
            answer = self.exchange(client, head.encode() + data, pieces, mark, delta=_TOKEN, before=1)
        if not answer.startswith(b"HTTP/1.1 200 ") or b"\nid: " not in answer:
            raise RuntimeError(f"the answer is not what it must be:\n{answer[:2000].decode(errors='replace')}")
