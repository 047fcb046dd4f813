"""Counts what a session's home costs a request: `gai-fast serve` with three targets of three keys each.

A request of a named session, whose target and key are its home, is compared with one whose target and key come in turn.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.instructions.bounds import Ratio
from benchmarks.instructions.path import BODY_END, CHAT, NATIVE, Server, at_once

PROVIDER: Final = "openai-compatible"
NAME: Final = "agent"
"""The model, whose targets are three."""
MOST: Final = 1.02
"""What a request of a named session may cost, divided by one whose target and key come in turn."""
WARM_UP: Final = 60
"""Requests before the counted ones: each of nine keys has been asked for, and a connection is open to each target."""
REQUESTS: Final = 18
"""Requests of a round: in turn, each key has two of them."""
ROUNDS: Final = 5
"""Counts of so many requests, of which the smallest one counts."""
_SESSION: Final = b"\r\nx-gai-session: "
_TARGETS: Final = ("east", "west", "north")
_KEYS: Final = ("ONE_KEY", "ANOTHER_KEY", "THIRD_KEY")


def measure_sessions(folder: Path) -> dict[str, Ratio]:
    """Returns the instructions of a request of a named session, beside one whose target and key come in turn.

    Args:
        folder: An empty folder.

    Raises:
        RuntimeError: As `measure_path`.
    """
    return {
        f"a named session, {name}": Ratio(
            _cost(folder / f"{name}-named", "auto", "session", path, "X-Session-Id: session-1\r\n"),
            _cost(folder / f"{name}-in-turn", "weighted", "turn", path),
            MOST,
        )
        for name, path in (("native", NATIVE), ("chat, passed through", CHAT))
    }


def _cost(folder: Path, balance: str, key_by: str, path: str, header: str = "") -> float:
    """Returns the instructions of one request."""
    folder.mkdir()
    body = json.dumps({"model": NAME, "stream": True, "messages": [{"role": "user", "content": "hi"}]})
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{header}"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    with ExitStack() as stack:
        return _Server(stack, folder, balance, key_by).least(request, is_named=bool(header))


class _Server(Server):
    """A server whose model has three targets with three keys each.

    Args:
        stack: As for `Server`.
        folder: As for `Server`.
        balance: How a target is chosen.
        key_by: How a key is chosen.
    """

    def __init__(self, stack: ExitStack, folder: Path, balance: str, key_by: str) -> None:
        self._balance = balance
        self._key_by = key_by
        super().__init__(stack, folder, {PROVIDER}, variables={name: name for name in _KEYS})

    def _configuration(self, providers: set[str]) -> str:
        keys = ", ".join(f'"env:{name}"' for name in _KEYS)
        (provider,) = providers
        upstreams = [
            f'[[upstream]]\nname = "{name}"\nprovider = "{provider}"\nbase_url = "{self.upstream_url}"\n'
            f'api_key = [{keys}]\nkey_by = "{self._key_by}"\n'
            for name in _TARGETS
        ]
        targets = ", ".join(f'{{upstream = "{name}"}}' for name in _TARGETS)
        model = f'[[model]]\nname = "{NAME}"\nbalance = "{self._balance}"\ntargets = [{targets}]\n'
        return "".join(["[server]\nport = 0\naccess_log = false\n", *upstreams, model])

    def least(self, request: bytes, *, is_named: bool) -> float:
        """Returns the instructions of one request, of the cheapest round.

        Args:
            request: The request.
            is_named: Whether its session has a name, which the answer then tells.
        """
        (piece,) = at_once(PROVIDER)
        counts = []
        with self.connected() as client:
            for number in range(WARM_UP + 1 + ROUNDS * REQUESTS):
                if number == WARM_UP:
                    self.begin()
                client.sendall(request)
                self.asked_upstream(client).sendall(piece)
                answer = b""
                while not answer.endswith(BODY_END):
                    answer += self.receive(client)
                is_well = answer.startswith(b"HTTP/1.1 200 ") and b" tok" in answer
                if not is_well or (_SESSION in answer.lower()) is not is_named:
                    raise RuntimeError(f"the answer is not what it must be:\n{answer[:2000].decode(errors='replace')}")
                if number >= WARM_UP and (number - WARM_UP) % REQUESTS == 0:
                    counts.append(self.counted().without_libc)
        return min(counts[1:]) / REQUESTS
