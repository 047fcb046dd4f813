"""The list of one source as runs use it: read before the first run that needs it, and again once it no longer holds.

1. Runs that come while a first list is read wait for it together, for `patience` seconds at most; reading goes on.
   While it is read again, they wait for `limits.list_again` from its beginning on: most servers have answered by then,
   and one that hangs holds nobody up.
2. If it cannot be read, or not in time, the former list is used. Without one, the source offers nothing.
3. After a failure it is not read again for `limits.list_ttl` seconds: no run waits for it.
4. A run keeps the list that it has got. A list that is read again and is the same stays the same object: nothing that
   was found out about it is found out again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final

from gai_fast.model.limits import SHARED
from gai_fast.net.toolbox.tool_source import SourceList, ToolSource
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.rpc import ToolServerError

_log: Final = logging.getLogger("gai_fast.tools")
_ONCE: Final = {"once": math.inf}
"""Of records that each worker has: `server/observe/said_once.py`."""
_NONE: Final = SourceList(())


class KnownList:
    """The list of one source. Belongs to one loop. After use, `close` must be awaited.

    Args:
        source: The source.
        patience: Seconds that a run waits for the list.
    """

    def __init__(self, source: ToolSource, patience: float) -> None:
        self._source = source
        self._patience = patience
        self._list = _NONE
        self._ends_at = -math.inf
        self._reading: asyncio.Task[None] | None = None
        self._began_at = -math.inf  # the reading

    @property
    def read(self) -> SourceList | None:
        """The list that was read last. None if none was: what the source offers is not known."""
        return None if self._list is _NONE else self._list

    def known(self) -> SourceList | None:
        """Returns the list for a run. None if it must wait for `current`."""
        if self._reading is None and self._ends_at == math.inf:
            return self._list
        now = asyncio.get_running_loop().time()
        waits = self._wait(now) > 0 if self._reading is not None else now >= self._ends_at
        return None if waits else self._list

    async def current(self) -> SourceList:
        """Returns the list for a run: rules 1 to 3."""
        loop = asyncio.get_running_loop()
        if self._reading is None and loop.time() >= self._ends_at:
            self._reading = loop.create_task(self._read())
            self._began_at = loop.time()
        if self._reading is not None:
            await asyncio.wait((self._reading,), timeout=self._wait(loop.time()))
        return self._list

    def _wait(self, now: float) -> float:
        """Returns the seconds that a run waits for the list that is being read."""
        return self._patience if self._list is _NONE else max(self._began_at + LIMITS.list_again - now, 0.0)

    async def close(self) -> None:
        """Ends the reading of the list, if it is read."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        holds = LIMITS.list_ttl
        try:
            listed = await self._source.list_tools()
        except ToolServerError as problem:
            kept = f"the {len(self._list.tools)} tools of before are used" if self._list.tools else "it offers nothing"
            text = "tools %r: there is no list: %s: %s"
            _log.warning(text, self._source.name, problem, kept, extra={"once": SHARED.warning_interval})
        else:
            new = sorted({*listed.left_out} - {*self._list.left_out})
            for name, reason in new[: LIMITS.list_warnings]:
                _log.warning("tools %r: left out: %s: %s", self._source.name, name, reason, extra=_ONCE)
            if len(new) > LIMITS.list_warnings:
                more = len(new) - LIMITS.list_warnings
                _log.warning("tools %r: left out: %d more", self._source.name, more, extra=_ONCE)
            if not listed.digest or listed.digest != self._list.digest:
                self._list = listed
            holds = math.inf if listed.ttl is None else listed.ttl
        finally:
            self._reading = None
            self._ends_at = asyncio.get_running_loop().time() + holds
