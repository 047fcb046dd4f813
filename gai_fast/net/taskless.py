"""Coroutines of an event loop that are run without a task.

A loop makes a transport in a coroutine, which awaits one future: that its protocol has been told. A task for it costs
more than the coroutine: it is registered, has a context of its own, and each of its steps is a turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object], done: Callable[[Exception | None], None]
) -> None:
    """Runs a coroutine that awaits nothing but futures of the loop, and does not ask for its task.

    Its first step is made at once. It cannot be cancelled.

    Args:
        loop: The running loop.
        coroutine: The coroutine.
        done: Called when it has ended, in a later turn of the loop: with the exception that ended it, or `None`. A
            future that the loop has cancelled ends it with a `ConnectionAbortedError`.
    """
    _Run(loop, coroutine, done).begin()


class _Run:
    __slots__ = ("_coroutine", "_done", "_loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, object],
        done: Callable[[Exception | None], None],
    ) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._done = done

    def begin(self) -> None:
        try:
            awaited: asyncio.Future[Any] = self._coroutine.send(None)
        except StopIteration:
            self._loop.call_soon(self._done, None)
        except asyncio.CancelledError:
            self._loop.call_soon(self._done, ConnectionAbortedError())
        except Exception as problem:  # noqa: BLE001  # it is whoever's who waits for the end
            self._loop.call_soon(self._done, problem)
        else:
            awaited.add_done_callback(self._step)

    def _step(self, _: asyncio.Future[Any]) -> None:
        """Goes on: what was awaited is there, or has failed, which the coroutine itself finds."""
        try:
            awaited: asyncio.Future[Any] = self._coroutine.send(None)
        except StopIteration:
            self._done(None)
        except asyncio.CancelledError:  # whoever waits for the end would wait for ever
            self._done(ConnectionAbortedError())
        except Exception as problem:  # noqa: BLE001  # as above
            self._done(problem)
        else:
            awaited.add_done_callback(self._step)
