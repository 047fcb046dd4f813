"""The life of an upstream that speaks TLS, while streams run: certificates, idle times, addresses and ports change.

After each change a request must reach the upstream as it is then. Nothing may reach one whose certificate is wrong.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from tests.integration.certificates import Authority
from tests.soak.gateway import Gateway
from tests.soak.upstream import Idle, Upstream

NAME: Final = "upstream.soak.test"
"""The name of the upstream, which the gateway looks up."""
ADDRESSES: Final = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
WRONG: Final = ("elsewhere", "own", "expired")
"""Certificates of `Authority` for another name, by an unknown authority, and whose time is over."""
IDLE: Final = (Idle(2, is_announced=True), Idle(3), Idle(5, is_announced=True), Idle())
BY_ALL: Final = 10
"""Requests of which each worker has sent some: the system chooses a worker for each connection of a client."""
BACK: Final = 40.0
"""Seconds after a change until which a request must have come: the gateway uses an answer of the DNS for 30."""


def issue(authority: Authority) -> None:
    """Makes the certificates of the upstream, including the successor of the first."""
    for name in ("first", "second"):
        authority.issue(name, f"DNS:{NAME}")


class Moves:
    """A series of changes, at times that follow from the seed.

    Args:
        gateway: The server.
        upstream: Its upstream.
        authority: Has the certificates.
        seed: Of the order and the times.
        seconds: How long it lasts; each change comes once at least.

    Attributes:
        made: The changes, by kind.
        took: The most seconds between a change and the first request to the upstream as it is then, by kind.
        missing: The changes after which no request has come.
    """

    def __init__(
        self, gateway: Gateway, upstream: Upstream, authority: Authority, *, seed: int, seconds: float
    ) -> None:
        self.made: Counter[str] = Counter()
        self.took: dict[str, float] = {}
        self.missing: list[str] = []
        self._gateway = gateway
        self._upstream = upstream
        self._authority = authority
        self._random = Random(f"moves {seed}")
        self._acts: dict[str, Callable[[], Awaitable[None]]] = {
            "certificate renewed": self._renew,
            "wrong certificate": self._be_wrong,
            "idle time": self._change_idle,
            "address": self._change_address,
            "another's address": self._leave_address,
            "port": self._change_port,
            "DNS fails": self._lose_name,
        }
        self._wait = min(20.0, seconds / (len(self._acts) + 2))
        self._end = time.monotonic() + seconds
        self._names = ["first", "second"]
        self._address = 0

    async def run(self) -> None:
        """Runs until the end of its time."""
        while True:
            for kind in self._random.sample(sorted(self._acts), len(self._acts)):
                await asyncio.sleep(self._wait * self._random.uniform(0.4, 0.8))
                if len(self.made) == len(self._acts) and time.monotonic() > self._end:
                    return
                await self._acts[kind]()
                self.made[kind] += 1
                await self._came_back(kind)

    async def _came_back(self, kind: str) -> None:
        began = time.monotonic()
        number = self._upstream.identity.number
        while self._upstream.served_by < number:
            self._upstream.troubles()
            if time.monotonic() > began + BACK:
                self.missing.append(kind)
                return
            await asyncio.sleep(0.01)
        self.took[kind] = max(self.took.get(kind, 0.0), time.monotonic() - began)

    def _brief(self) -> float:
        """Seconds of a state that passes."""
        return self._wait * self._random.uniform(0.1, 0.2)

    def _context(self) -> ssl.SSLContext:
        return self._authority.server(self._names[0])

    async def _renew(self) -> None:
        self._names.reverse()
        self._upstream.show(self._context(), is_trusted=True)

    async def _be_wrong(self) -> None:
        """A wrong certificate, until the gateway has refused one at least."""
        refused, began = self._upstream.refused, time.monotonic()
        self._upstream.show(self._authority.server(self._random.choice(WRONG)), is_trusted=False)
        await asyncio.sleep(self._brief())
        while self._upstream.refused == refused and time.monotonic() < began + BACK:
            self._upstream.troubles()
            await asyncio.sleep(0.01)
        self._upstream.show(self._context(), is_trusted=True)

    async def _change_idle(self) -> None:
        self._upstream.idle = self._random.choice([each for each in IDLE if each != self._upstream.idle])

    async def _change_address(self) -> None:
        """The name leads to another address; the former refuses at once."""
        former = await self._upstream.move(self._next_address(), self._upstream.place[1])
        self._gateway.resolve(NAME, self._upstream.place[0])
        await self._upstream.close(former)
        self._upstream.troubles()

    async def _leave_address(self) -> None:
        """The name leads to another address; at the former somebody else is, with a certificate of their own."""
        former = await self._upstream.move(self._next_address(), self._upstream.place[1])
        self._upstream.take_over(former, self._authority.server("elsewhere"))
        self._gateway.resolve(NAME, self._upstream.place[0])
        self._upstream.troubles()
        await self._came_back("another's address")
        await self._upstream.close(former)

    async def _change_port(self) -> None:
        """The configuration names another port, and is loaded again."""
        former = await self._upstream.move(self._upstream.place[0], 0)
        self._gateway.reload(self._upstream.url)
        await self._came_back("port")
        await self._upstream.close(former)
        self._upstream.troubles()

    async def _lose_name(self) -> None:
        """Nobody answers for the name, and idle connections are closed: the last answer must do.

        A worker that has reached the upstream nowhere since it moved has no answer that leads there. One that is never
        killed is among those that have.
        """
        end, calls = time.monotonic() + BACK, self._upstream.calls_made
        while self._upstream.calls_made < calls + BY_ALL:
            await asyncio.sleep(0.01)
            if time.monotonic() > end:
                break
        self._gateway.resolve(NAME, None)
        self._upstream.show(self._context(), is_trusted=True)
        await self._came_back("DNS fails")
        self._gateway.resolve(NAME, self._upstream.place[0])

    def _next_address(self) -> str:
        self._address = (self._address + 1) % len(ADDRESSES)
        return ADDRESSES[self._address]
