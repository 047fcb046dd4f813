"""The keys that admins make at run time, as one process of a server uses them.

Owns when they are read from the store, what happens while it cannot be read, and the end of a revoked key's streams.
`stores/stored_keys.py` has the records, `callers.py` the look-up.

1. The keys are in memory: no request asks the store. Every `limits.keys_poll` a task looks for changes; a change that
   is made here counts here at once.
2. While the store is out of reach, its keys count for `limits.keys_known`. Then they are refused with 503, never with
   401: they may be valid.
3. A name that the file has is the file's key. The store's key of that name is refused.
4. The first key closes the server: every caller needs a key from then on, also after the last one has gone.
5. If a key is revoked, its streams end, and those of its requests that are still on their way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from gai_fast.config.stored_keys import key_of
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import KeySettings, Settings, figure_label
from gai_fast.net.engine.takeover import KeyHome
from gai_fast.server.admission.callers import StoredCallers, end_ms
from gai_fast.server.limits import LIMITS
from gai_fast.stores.backend import StoreError
from gai_fast.stores.stored_keys import Edit, StoredKey, StoredKeys

_log: Final = logging.getLogger("gai_fast.server")
_OUT_OF_REACH: Final = ("slow", "unreachable", "refused", "busy")
"""The faults of a store that may hold keys and cannot be asked. After any other one the server starts, closed."""


class RunTimeKeys:
    """The keys of one store.

    Args:
        stored: The records.
        settings: The configuration.
        clock: Monotonic seconds.
        wall: Seconds since the epoch.

    Attributes:
        changed: Called after a change; `callers` and `keys` are new then.
        revoked: Called with the names of keys whose streams must end.
        keys: The keys that count, by name.
        callers: The same for the guards.
    """

    def __init__(
        self,
        stored: StoredKeys,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.revoked: Callable[[Collection[str]], None] = lambda names: None
        self.keys: Mapping[str, KeySettings] = {}
        self.callers = StoredCallers({}, (), stored.was_used)
        self._stored = stored
        self._settings = settings
        self._of_file = _names_of(settings)
        self._clock = clock
        self._wall = wall
        self._known: Mapping[str, StoredKey] = {}
        self._read_at = clock()
        self._is_lost = False
        self._is_blind = False  # whether the keys could not be read at the start
        self._is_sealed = False  # whether that, or `_is_lost`, is for want of a key of the store
        self._built: dict[str, tuple[StoredKey, KeySettings]] = {}  # keys whose values have been read
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()  # changes, and the ends of revoked keys' streams

    @property
    def end_with_server(self) -> bool:
        """Whether the keys are in memory, and end with the server."""
        return self._settings.store.url.startswith("memory:")

    def stored(self, name: str) -> StoredKey | None:
        """Returns the record of a key; None if there is none, or the file has the name."""
        return None if self.is_of_file(name) else self._known.get(name)

    def home_of(self, name: str) -> KeyHome:
        """Returns where the key of a caller is."""
        return "file" if self.is_of_file(figure_label(name)) else "store" if name in self._known else ""

    def is_of_file(self, name: str) -> bool:
        """Returns whether the file has a key or an issuer of this name."""
        return name in self._of_file

    async def open(self) -> None:
        """Reads the keys, and begins to look for changes.

        Raises:
            StoreError: The store is out of reach: a server that does not know its keys would be open, or refuse them.
        """
        try:
            await self._stored.refresh()
        except StoreError as problem:
            if problem.fault in _OUT_OF_REACH:
                raise
            self._is_blind, self._is_sealed = True, problem.fault == "sealed"
            _log.error("the keys of the store cannot be read, and are refused (503): %s", problem)
        self._read_at = self._clock()
        self._take()
        if self._stored.is_shared:
            self._begin()

    def close(self) -> None:
        """Ends the tasks."""
        follows, self._task = self._task, None
        for task in (follows, *self._tasks):
            if task is not None:
                task.cancel()

    def use(self, settings: Settings) -> None:
        """Uses another configuration from now on. Does not call `changed`."""
        if settings.key_defaults != self._settings.key_defaults:
            self._built.clear()
        self._settings = settings
        self._of_file = _names_of(settings)
        self._build()

    async def change(self, name: str, edit: Edit) -> StoredKey | None:
        """Changes a key, here at once; as `StoredKeys.change`. A client that leaves does not stop it half-way."""
        task = asyncio.get_running_loop().create_task(self._change(name, edit))
        self._tasks.add(task)
        task.add_done_callback(self._changed)
        return await asyncio.shield(task)

    # -- own --

    async def _change(self, name: str, edit: Edit) -> StoredKey | None:
        try:
            return await self._stored.change(name, edit)
        finally:  # a failure may have come after the change
            self._take()

    def _changed(self, task: asyncio.Task[StoredKey | None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the client may have left

    async def _follow(self) -> None:
        """Looks for changes until it is cancelled: rule 1."""
        while True:
            await asyncio.sleep(LIMITS.keys_poll)
            try:
                if await self._stored.refresh() or self._is_blind or self._is_lost:
                    self._is_blind = self._is_lost = self._is_sealed = False
                    self._take()
                self._read_at = self._clock()
            except StoreError as problem:
                self._note_failure(problem)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """Begins again after a bug: keys that are revoked elsewhere must still be noticed."""
        if task.cancelled() or self._task is not task:
            return
        _log.error("the keys of the store could not be read: a bug", exc_info=task.exception())
        self._note_failure(StoreError("unsuitable", "a bug of the gateway: see its log"))
        asyncio.get_running_loop().call_later(SHARED.store_retry, self._begin, task)

    def _begin(self, former: asyncio.Task[None] | None = None) -> None:
        if self._task is former:  # not closed during the wait
            self._task = asyncio.get_running_loop().create_task(self._follow())
            self._task.add_done_callback(self._stopped)

    def _note_failure(self, problem: StoreError) -> None:
        if not self._is_lost and self._clock() - self._read_at < LIMITS.keys_known:
            return
        is_sealed = problem.fault == "sealed"
        if self._is_lost and is_sealed == self._is_sealed:
            return
        if self._known and not self._is_lost:
            _log.warning("the keys of the store are refused (503) until it can be read: %s", problem)
        self._is_lost, self._is_sealed = True, is_sealed
        self._build()
        self.changed()

    def _take(self) -> None:
        """Takes the keys as the store has them now."""
        former, self._known = self._known, self._stored.all()
        self._built = {name: each for name, each in self._built.items() if name in self._known}
        self._build()
        self.changed()
        gone = {name for name, key in former.items() if name not in self._known or self._known[name].id != key.id}
        gone -= {key.name for key in self._settings.keys}
        if gone:
            self._end_streams(gone)

    def _end_streams(self, names: Collection[str]) -> None:
        """Ends the streams of revoked keys, now and for some seconds: rule 5."""
        self.revoked(names)
        task = asyncio.get_running_loop().create_task(self._sweep(set(names)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self, names: set[str]) -> None:
        for _ in range(LIMITS.revoked_sweeps):
            await asyncio.sleep(1.0)
            names -= self.keys.keys() | {key.name for key in self._settings.keys}  # such a name is in use again
            self.revoked(names)

    def _build(self) -> None:
        """Makes the keys and the callers: rules 2 to 4."""
        of_file = self._of_file
        keys: dict[str, KeySettings] = {}
        callers: dict[bytes, tuple[KeySettings, float]] = {}
        lost: set[bytes] = set()
        for name, stored in self._known.items():
            if name in of_file:
                continue
            try:
                key = keys[name] = self._key(stored)
            except ValueError as problem:
                _log.error("key %r of the store is refused (503): %s", name, problem)
                lost.update((stored.digest, stored.former))
                continue
            end = end_ms(key)
            callers[stored.digest] = key, end
            if stored.former and stored.former_until > self._wall():
                callers[stored.former] = key, min(end, stored.former_until * 1e3)
        if self._is_lost:
            lost.update(callers)
            callers = {}
        self.keys = keys
        is_closed = self._stored.was_used or self._is_blind
        self.callers = StoredCallers(callers, None if self._is_blind else lost - {b""}, is_closed, self._is_sealed)

    def _key(self, stored: StoredKey) -> KeySettings:
        """Returns a key; the same object as before if nothing of it has changed."""
        built = self._built.get(stored.name)
        if built is None or built[0] != stored:
            digests = (stored.digest, stored.former) if stored.former else (stored.digest,)
            built = self._built[stored.name] = stored, key_of(stored.name, digests, stored.values, self._settings)
        return built[1]


def _names_of(settings: Settings) -> frozenset[str]:
    """Returns the names of the keys and issuers of a configuration."""
    return frozenset([*[key.name for key in settings.keys], *[issuer.name for issuer in settings.issuers]])


def too_many_keys() -> Error:
    """Returns the error for a key above `limits.run_time_keys`."""
    text = f"the store has {LIMITS.run_time_keys} keys, which is as many as there may be: revoke some"
    return Error("invalid_request", text, reason="keys", status=409)
