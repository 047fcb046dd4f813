"""The sessions of one server of tools: whose client makes a call, and when a session ends.

1. A caller (`caller`), or a run (`run`), has a client of its own: what it does in its session, a page that it opens or
   a transaction, no other meets. The list of tools is read by the first client, which is everybody's.
2. A server on HTTP that gives no session's id has nothing to divide: the first client makes all calls.
3. There are at most `limits.sessions` of them. For one more, the one that is idle for the longest time ends. A caller
   with a name has at most half of them.
4. A session ends after `limits.session_idle` seconds without a call; that of a run also with its run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from gai_fast.model.settings import ANONYMOUS, SessionKind
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.rpc import ToolServerError
from gai_fast.net.tools.tool_client import ToolClient
from gai_fast.runtime.timers import Timer, Timers

Owner = tuple[str, str]
"""A caller, and its run if each run has a session of its own."""


class _Session:
    """The session of one owner."""

    __slots__ = ("calls", "client", "idle_since", "is_over", "owner")

    def __init__(self, owner: Owner, client: ToolClient) -> None:
        self.owner: Final = owner
        self.client: Final = client
        self.calls = 0
        self.idle_since = 0.0
        self.is_over = False  # its run has ended


class ToolSessions:
    """The clients of one server. Belongs to one loop. After use, `close` must be awaited.

    Args:
        kind: Who shares a session.
        make: Makes a client. The first one's way is that of all, but for processes.
        is_process: Whether the server is a process: each client has one.
        timers: The loop's timers.

    Attributes:
        first: The client that reads lists, and makes the calls that need no session of their own.
    """

    def __init__(self, kind: SessionKind, make: Callable[[], ToolClient], *, is_process: bool, timers: Timers) -> None:
        self.first: Final = make()
        self._kind = kind
        self._make = make
        self._is_process = is_process
        self._timers = timers
        self._sessions: dict[Owner, _Session] = {}  # those that were used last come last
        self._looks: Timer | None = None  # while there are sessions
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def client(self, caller: str, run: str) -> AsyncIterator[ToolClient]:
        """Has the client for a call.

        Args:
            caller: The name of the run's caller.
            run: The id of the run.

        Raises:
            ToolServerError: There is no room for one more session, or the server cannot be reached.
        """
        if not await self._are_apart():
            yield self.first
            return
        session = self._used(self._owner(caller, run))
        session.calls += 1
        try:
            yield session.client
        finally:
            session.calls -= 1
            session.idle_since = self._timers.clock()
            if self._sessions.get(session.owner) is session:
                self._used(session.owner)
                self._end_if_over(session)

    def run_ended(self, caller: str, run: str) -> None:
        """Ends the session of a run, once its calls have ended."""
        session = self._sessions.get(self._owner(caller, run)) if self._kind == "run" else None
        if session is not None:
            session.is_over = True
            self._end_if_over(session)

    async def close(self) -> None:
        """Ends all sessions and clients."""
        for session in tuple(self._sessions.values()):
            self._end(session)
        if self._looks is not None:
            self._looks.cancel()
        if self._ending:
            await asyncio.wait(self._ending, timeout=LIMITS.farewell)  # who still connects fails with the first client
        await self.first.close()
        await asyncio.gather(*self._ending)

    async def _are_apart(self) -> bool:
        if self._kind == "shared" or self._is_process:
            return self._kind != "shared"
        agreed = self.first.agreed or await self.first.connect()
        return agreed.session is not None

    def _owner(self, caller: str, run: str) -> Owner:
        return caller, run if self._kind == "run" else ""

    def _used(self, owner: Owner) -> _Session:
        """Returns the session of an owner as the one that was used last: rule 3."""
        session = self._sessions.pop(owner, None)
        if session is None:
            self._make_room(owner[0])
            session = _Session(owner, self._make())
        self._sessions[owner] = session
        if self._looks is None:
            self._looks = self._timers.schedule(self._timers.clock() + LIMITS.session_idle, self._look)
        return session

    def _make_room(self, caller: str) -> None:
        own = [each for each in self._sessions.values() if each.owner[0] == caller]
        has_half = caller != ANONYMOUS and len(own) >= LIMITS.sessions // 2
        if len(self._sessions) < LIMITS.sessions and not has_half:
            return
        idle = next((each for each in (own if has_half else self._sessions.values()) if not each.calls), None)
        if idle is None:
            text = f"{len(own) if has_half else LIMITS.sessions} of its sessions are in use (limit sessions)"
            raise ToolServerError(text, "wait")
        self._end(idle)

    def _end_if_over(self, session: _Session) -> None:
        if session.is_over and not session.calls:
            self._end(session)

    def _end(self, session: _Session) -> None:
        del self._sessions[session.owner]
        task = asyncio.get_running_loop().create_task(session.client.leave())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _look(self) -> None:
        """Ends what is idle: rule 4."""
        self._looks = None
        now = self._timers.clock()
        idle = [each for each in self._sessions.values() if not each.calls]
        for each in idle:
            if now - each.idle_since >= LIMITS.session_idle:
                self._end(each)
        if self._sessions:
            rested = [each.idle_since for each in self._sessions.values() if not each.calls]
            self._looks = self._timers.schedule(min(rested, default=now) + LIMITS.session_idle, self._look)
