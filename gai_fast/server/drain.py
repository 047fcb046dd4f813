"""The shutdown of a server: answers all clients that it can within `grace`, and then ends the other streams.

Owns the order:

1. `/readyz` answers 503. Requests are answered as before; the response to the last request that a connection has sent
   is its last one (RFC 9112, 9.6: a request after a response with `connection: close` would get no response).
2. Running responses continue. The server ends when no connection is open, no stream runs, and no client waits to be
   accepted.
3. The server accepts connections until `limits.drain_idle` before the end of `grace`: each accepted connection has this
   time to send its request, and is answered. Later connections wait in the kernel for a successor on the same socket.
4. After `grace`, the clients of durable streams are cut off, and other workers go on with these streams if they can:
   see `Engine.let_go`. All other streams are ended: see `Engine.close`. Their clients have `limits.closing` seconds to
   read their last bytes.
5. A second signal to end applies rule 4 at once.
6. Runs that wait for approvals, which may take hours, are let go as by rule 4 as soon as they wait.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from gai_fast.server.edge.listening import Listener
from gai_fast.server.limits import LIMITS

_log = logging.getLogger("gai_fast.server")


def seconds_without_accepting(grace: float) -> float:
    """Returns the seconds at the end of a drain in which no connection is accepted: rule 3.

    Args:
        grace: Seconds that the drain may take.
    """
    return min(LIMITS.drain_idle, grace / 2)


class DrainingServer(Protocol):
    """The part of a server that a drain uses."""

    def begin_drain(self) -> None:
        """Closes each connection after its current requests."""

    @property
    def unanswered(self) -> int:
        """The number of open connections, or of streams that run without one."""


async def drain(server: DrainingServer, listener: Listener, *, grace: float, hurry: asyncio.Event) -> bool:
    """Waits until a server has answered all clients: rules 1 and 2.

    Args:
        server: The server.
        listener: The source of its connections; closed only if the server has answered all clients.
        grace: The maximum wait, in seconds.
        hurry: Set to end the wait at once.

    Returns:
        Whether all clients have been answered.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + grace
    taken_until = until - seconds_without_accepting(grace)
    server.begin_drain()
    listener.begin_drain()
    if server.unanswered:
        text = "draining: connections and streams (%d) have up to %g s; a second signal ends the server at once"
        _log.info(text, server.unanswered, grace)
    while True:
        if loop.time() < taken_until:
            await listener.accept_waiting()
        else:
            listener.stop_taking()
        if not server.unanswered and await listener.close_if_empty():
            return True
        remaining = until - loop.time()
        if hurry.is_set() or remaining <= 0:
            _log.warning("draining: %d connections and streams did not end by themselves", server.unanswered)
            return False
        try:
            async with asyncio.timeout(min(LIMITS.drain_check, remaining)):
                await hurry.wait()
        except TimeoutError:
            pass
