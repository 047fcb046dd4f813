"""The answers that streams share: `[cache]`.

Owns which requests are equal, which caller may get which answer, and how long answers are kept. `shared_call.py` has
the calls and their logs. A separate `Store` has the logs and finds the logs of other processes; its size does not count
against `[store]`.

1. The key of a request is a digest of everything that affects the answer: the caller (unless `scope = "all"`), the
   model with its upstream, and the request to the upstream. Labels of a request (`LABELS`) are not included.
2. A stream joins a running call, or reads a kept answer; otherwise it starts its own call. Attempts after a failure do
   this too, so streams that failed together share the next call.
3. In a store that processes share, a call belongs to the process that has claimed its key. Other processes find the
   call in the store.
4. If anything here fails (the store, a log that is too long, no room), the stream makes its own call. It never gets an
   error.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Final, Protocol

import msgspec

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import Charge
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, CacheSettings, StoreSettings, UpstreamSettings
from gai_fast.net.attempts.error_redaction import ErrorRedaction
from gai_fast.net.attempts.spec import Clock, OpenedAttempt, Sharing, StreamSpec
from gai_fast.net.limits import LIMITS
from gai_fast.net.sharing.remainder import Remainder, remainder_spec
from gai_fast.net.sharing.shared_call import SharedCall, SharedReader, first_line, is_whole, last_line
from gai_fast.net.upstream.connection import OpenExchange, Receiver
from gai_fast.providers import Adapter, get_provider
from gai_fast.runtime.timers import Timers
from gai_fast.stores import ANSWERS, Claim, LogHeader, Seals, Store, StoreError, StreamLog, open_store
from gai_fast.stores._base import CALLS
from gai_fast.stores.alive import IsGone
from gai_fast.stores.backend import Backend

LABELS: Final = ("metadata", "user", "safety_identifier", "prompt_cache_key")
"""Members of a request that identify its user or its accounting; answers do not depend on them."""
_NEUTRAL: Final[dict[str, Any]] = {
    "model": msgspec.UNSET,
    "metadata": {},
    "json_snapshots": msgspec.UNSET,
    "stream": True,
    "resumable": False,
    "request_id": msgspec.UNSET,
    "idempotency_key": msgspec.UNSET,
    "gateway_tools": msgspec.UNSET,
    "max_steps": msgspec.UNSET,
    "approvals": msgspec.UNSET,
}
"""Members of a native request that do not affect the upstream's answer, each with one value for all requests. `model`
is one of them, because the key contains the resolved model."""
_TRIES: Final = 3
"""The number of times that a request frees a key whose answer is unusable."""
_SPARE: Final = 64
"""Keys of dropped answers that may be kept before a check removes them."""


class SharingHome(Protocol):
    """The part of the engine that the answers use."""

    @property
    def timers(self) -> Timers:
        """The loop's timers."""

    def tokens(self, upstream: UpstreamSettings) -> Collection[bytes]:
        """Returns the texts of the tokens that an upstream with an identity was sent."""

    def look_in(self, store: Store, log: StreamLog, found: Callable[[float], None]) -> None:
        """Finds out when a log was last followed in another process."""

    def read_on(self, spec: StreamSpec, stream_id: str, clock: Clock) -> None:
        """Starts a stream without a client."""


class SharedAnswers:
    """The shared answers of one process.

    Args:
        home: The engine.
        settings: `[cache]`.
        store: `[store]`: the store to use, and the maximum size of an answer.
        loop: The loop.
        memory: As for `open_store`.
        is_gone: As for `Store.know_workers`.
        seals: As for `open_store`.
        now_ms: Returns milliseconds since the epoch.
        longest_call: As for `use`.

    Attributes:
        store: Has the logs.
        settings: `[cache]`.
        loop: The loop.
        home: The engine.
    """

    def __init__(
        self,
        home: SharingHome,
        settings: CacheSettings,
        store: StoreSettings,
        loop: asyncio.AbstractEventLoop,
        now_ms: Callable[[], int],
        memory: Backend | None = None,
        is_gone: IsGone | None = None,
        seals: Seals | None = None,
        longest_call: float = LIMITS.shared_call,
    ) -> None:
        self.settings = settings
        self.loop = loop
        self.now_ms = now_ms
        own = replace(store, ttl=settings.ttl, max_bytes=settings.max_bytes, sync="batched")
        beside = None if memory is None else memory.beside()
        ttl = _claim_ttl(settings, longest_call)
        self.store = open_store(own, home.timers, claim_ttl=ttl, claims=ANSWERS, memory=beside, seals=seals)
        self.home = home
        self._is_gone = is_gone
        self._calls: dict[str, SharedCall] = {}  # by key: calls that may be joined
        self._running: set[SharedCall] = set()  # calls whose logs have not ended
        self._kept: dict[str, StreamLog] = {}  # by key
        self._claimed: dict[str, str] = {}  # by stream id: the claimed keys of calls
        self._opening: asyncio.Task[None] | None = None
        self._open_again = -math.inf

    def use(self, settings: CacheSettings, longest_call: float) -> None:
        """Uses other settings from now on.

        Args:
            settings: `[cache]`.
            longest_call: The longest `total_timeout` of an upstream.
        """
        self.settings = settings
        self.store.use(_claim_ttl(settings, longest_call))
        self.store.keep(settings.ttl, settings.max_bytes)

    async def close(self) -> None:
        """Drops every answer. All streams have ended before."""
        for call in tuple(self._running):  # streams of other processes may still read them
            call.cancel()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        self._calls.clear()
        self._kept.clear()
        await self.store.close()

    # -- of this process --

    def find(self, key: str) -> tuple[StreamLog, SharedCall | None] | None:
        """Returns the log of a kept or running answer of this process, and the call if it runs here."""
        call = self._calls.get(key)
        if call is not None:
            return None if call.log.lost else (call.log, call)
        log = self._kept.get(key)
        if log is None:
            return None
        if self.store.find_here(log.header.stream_id) is log and not log.lost:
            return log, None
        del self._kept[key]
        return None

    def begin(self, key: str, header: LogHeader) -> SharedCall:
        """Makes a call that other streams may join.

        Raises:
            Error: There is no room.
        """
        call = SharedCall(self, key, self.store.create(header), self.loop)
        self._calls[key] = call
        self._running.add(call)
        return call

    def claimed(self, key: str, stream_id: str) -> None:
        """Records that the key of a call is claimed in the store. The key is freed if the call fails."""
        self._claimed[stream_id] = key

    def read_on(self, spec: StreamSpec, stream_id: str) -> None:
        """Starts a stream without a client; as `Engine.read_on`."""
        self.home.read_on(spec, stream_id, Clock(self.now_ms))

    # -- calls (`CallRunner`) --

    @property
    def timers(self) -> Timers:
        """The loop's timers."""
        return self.home.timers

    @property
    def is_shared(self) -> bool:
        """Whether other processes may read calls of this process."""
        return self.store.is_shared

    def look_elsewhere(self, log: StreamLog, found: Callable[[float], None]) -> None:
        """Finds out when a call was last read in another process."""
        self.home.look_in(self.store, log, found)

    def may_drain(self) -> bool:
        """Returns false: a call exists only for its readers."""
        return False

    def drained(self) -> None:
        """Does nothing: see `may_drain`."""

    def failed(self, call: SharedCall) -> None:
        """Removes a call: no further stream may join it."""
        if self._calls.get(call.key) is call:
            del self._calls[call.key]
        key = self._claimed.pop(call.log.header.stream_id, None)
        if key is not None:
            self.store.abandon(key, call.log.header.stream_id)

    def ended(self, call: SharedCall) -> None:
        """Removes a call whose log has ended."""
        self._running.discard(call)

    def kept(self, call: SharedCall) -> None:
        """Keeps a call's answer from now on."""
        self._claimed.pop(call.log.header.stream_id, None)
        if self._calls.get(call.key) is not call:
            return
        del self._calls[call.key]
        self._kept[call.key] = call.log
        if len(self._kept) > 2 * len(self.store.memory) + _SPARE:
            find = self.store.find_here
            self._kept = {key: log for key, log in self._kept.items() if find(log.header.stream_id) is log}

    # -- of other processes --

    async def claim(self, key: str, stream_id: str) -> StreamLog | None:
        """Claims a key, unless another process has a usable answer.

        Returns:
            The answer's log. None if the key is now claimed for `stream_id`.

        Raises:
            Error: The store is out of reach, or too many other requests claim this key.
            StoreError: The store cannot be opened.
        """
        await self._open()
        claim = Claim(stream_id, "", self.now_ms())
        for _ in range(_TRIES):
            standing = await self.store.claim(key, claim)
            if standing is None:
                return None
            log = await self._found(standing.stream_id)
            if log is not None:
                return log
            await self.store.release(key, standing.stream_id)
        raise Error("overloaded", "other requests claim this answer at the same time", reason="store")

    async def _found(self, stream_id: str) -> StreamLog | None:
        try:
            log = await self.store.find(stream_id)
        except Error as error:
            if error.reason not in ("worker_lost", "log_damaged"):
                raise
            return None
        return log if log is not None and self._is_of_use(log) else None

    def _is_of_use(self, log: StreamLog) -> bool:
        """Returns whether an answer of another process is readable and not too old: its log may have arrived late."""
        if log.lost or not log.last_seq or log.broken is not None or log.header.format != CALLS:
            return False
        if log.ending is not None and log.ending.state != "finished":
            return False
        try:
            first = first_line(log)
            get_provider(first.provider)
            age = (self.now_ms() - first.began_ms) / 1e3 - last_line(log).at
        except ValueError:  # written by another release, or a damaged copy
            return False
        return log.ending is None or age < self.settings.ttl

    async def _open(self) -> None:
        """Opens the store once. After a failure, refuses further tries for `limits.store_retry`."""
        now = self.loop.time()
        if self._opening is None:
            if now < self._open_again:
                raise Error("overloaded", "the store is out of reach", reason="store")
            self._opening = asyncio.ensure_future(self.store.open())
        try:
            await asyncio.shield(self._opening)
        except StoreError:
            self._opening, self._open_again = None, now + SHARED.store_retry
            raise
        if self._is_gone is not None:
            self.store.know_workers(self._is_gone)


class SharedAnswer(Sharing):
    """The access of one stream to the answers that it may share.

    Args:
        answers: The answers.
        caller: The name of the stream's key.
        new_id: Makes ids of logs, which are stream ids.

    Attributes:
        role: The source of the current attempt's answer.
        upstream: The name of the upstream that gave this answer.
    """

    def __init__(self, answers: SharedAnswers, caller: str, new_id: Callable[[], str]) -> None:
        self.role = "miss"
        self.upstream = ""
        self._answers = answers
        self._owner = "" if answers.settings.scope == "all" else caller
        self._is_paced = answers.settings.pace == "recorded"
        self._new_id = new_id
        self._key: tuple[StreamSpec, str] | None = None  # the last attempt's spec and key
        self._found: tuple[str, StreamLog] | None = None  # key and log of an answer of another process
        self._claimed: tuple[str, str] | None = None  # a key, and the id of the call's log
        self._reader: SharedReader | None = None

    def must_claim(self, spec: StreamSpec) -> bool:
        """Returns whether `claim` must be awaited before the stream starts: other processes may have an answer."""
        return self._answers.store.is_shared and self._answers.find(self._key_of(spec)) is None

    async def claim(self, spec: StreamSpec) -> None:
        """Looks for an answer in other processes, or claims the key."""
        key, stream_id = self._key_of(spec), self._new_id()
        try:
            log = await self._answers.claim(key, stream_id)
        except (Error, StoreError):
            return  # rule 4
        if log is None:
            self._claimed = key, stream_id
        else:
            self._found = key, log

    def release(self) -> None:
        """Releases the key claimed by `claim`, if no attempt has used it."""
        claimed, self._claimed = self._claimed, None
        if claimed is not None:
            self._answers.store.abandon(*claimed)

    # -- `Sharing` --

    def finds(self, spec: StreamSpec) -> bool:
        """Returns whether there is an answer, so that no request to the upstream is needed."""
        return self._find(self._key_of(spec)) is not None

    def open(self, spec: StreamSpec, receiver: Receiver, ask: Callable[[Receiver], OpenedAttempt]) -> OpenedAttempt:
        """Makes an attempt: rule 2."""
        key = self._key_of(spec)
        found = self._find(key)
        claimed, self._claimed = self._claimed, None
        if claimed is not None and (found is not None or claimed[0] != key):
            self._answers.store.abandon(*claimed)
            claimed = None
        if found is None:
            return self._begin(key, spec, receiver, ask, claimed)
        log, call = found
        is_kept = is_whole(log)
        self.role = "hit" if is_kept else "joined"
        is_paced = is_kept and self._is_paced
        reader = SharedReader(log, receiver, call, self._answers.loop, is_paced=is_paced, is_stale=is_kept)
        self._reader = reader
        self.upstream = first_line(log).upstream
        return *_parts(log, spec, self._answers.home), reader

    def ended(self, spec: StreamSpec, metrics: StreamMetrics, earlier: tuple[Charge, ...]) -> StreamMetrics | None:
        """Handles the end of the stream. A finished answer may be kept. An abandoned call may get a `Remainder`.

        Returns:
            The metrics to record. None if the remainder's stream records them.
        """
        reader = self._reader
        if reader is None or reader.call is None:
            return metrics
        call = reader.call
        usage = metrics.usage or {}
        is_cut = usage.get("source") == "partial"  # a limit of spend ended the stream: as if its client had left
        if metrics.outcome == "finished" and not is_cut:
            call.approve()
        elif self.role == "miss" and call.goes_on:
            others = call.publication.followers - (not reader.is_over)
            if others > 0 or self._answers.is_shared:
                return self._read_remainder(call, spec, metrics, earlier)
        return metrics

    # -- own --

    def _begin(
        self,
        key: str,
        spec: StreamSpec,
        receiver: Receiver,
        ask: Callable[[Receiver], OpenedAttempt],
        claimed: tuple[str, str] | None,
    ) -> OpenedAttempt:
        """Starts a call."""
        self.role, self._reader = "miss", None
        answers, upstream = self._answers, spec.model.upstream
        self.upstream = upstream.name
        stream_id = self._new_id() if claimed is None else claimed[1]
        try:
            call = answers.begin(key, LogHeader(stream_id, _log_caller(self._owner), spec.model.name, CALLS, "ndjson"))
        except Error:  # no room: rule 4
            if claimed is not None:
                answers.store.abandon(*claimed)
            return ask(receiver)
        if claimed is not None:
            answers.claimed(*claimed)
        asked: list[OpenedAttempt] = []

        def open_exchange(receiver: Receiver) -> OpenExchange:
            asked.append(ask(receiver))
            return asked[0][2]

        is_open = False
        try:
            about = {"provider": upstream.provider, "upstream": upstream.name, "id": spec.model.id}
            call.open({**about, "began_ms": answers.now_ms()}, open_exchange)
            is_open = True
        finally:
            if not is_open:
                answers.failed(call)
                answers.ended(call)
        self._reader = SharedReader(call.log, receiver, call, answers.loop, is_first=True)
        return asked[0][0], asked[0][1], self._reader

    def _read_remainder(
        self, call: SharedCall, spec: StreamSpec, metrics: StreamMetrics, earlier: tuple[Charge, ...]
    ) -> StreamMetrics | None:
        """Starts a stream that reads the rest of a call. The caller of this stream pays for the call."""
        answers = self._answers

        def read(receiver: Receiver) -> OpenedAttempt:
            reader = SharedReader(call.log, receiver, call, answers.loop, counts=False)
            return *_parts(call.log, spec, answers.home), reader

        remainder = Remainder(call, metrics, earlier, read)
        try:
            answers.read_on(remainder_spec(spec, remainder), self._new_id())
        except Error:
            return metrics
        return None

    def _find(self, key: str) -> tuple[StreamLog, SharedCall | None] | None:
        """Returns the answer for a key. None if there is none, or an earlier attempt has failed with it."""
        found = self._answers.find(key)
        if found is None and self._found is not None and self._found[0] == key and not self._found[1].lost:
            found = self._found[1], None
        if found is not None and self._reader is not None and found[0] is self._reader.log:
            return None
        return found

    def _key_of(self, spec: StreamSpec) -> str:
        if self._key is None or self._key[0] is not spec:
            self._key = spec, key_of(spec, self._owner)
        return self._key[1]


def key_of(spec: StreamSpec, owner: str) -> str:
    """Returns the key of an attempt: rule 1.

    Args:
        spec: The attempt.
        owner: The caller. Empty if all callers share the answer.
    """
    model, upstream, request = spec.model, spec.model.upstream, spec.request
    target: list[Any] = [upstream.name, upstream.provider, upstream.base_url, model.id]
    if model.targets:  # any target of this API may answer for the model
        target = [upstream.provider, [[each.upstream.name, each.upstream.base_url, each.id] for each in model.targets]]
    about = [owner, model.name, target, spec.on_unsupported, [*spec.left_out], sorted(spec.headers.items())]
    asked: Any
    if isinstance(request, Request):
        asked = msgspec.structs.replace(request, **_NEUTRAL)
    else:
        asked = {name: value for name, value in request.items() if name not in LABELS}
    digest = blake2b(encode_json(about), digest_size=32, person=b"gai-fast answer")
    digest.update(b"\n")
    # JSON inside a native request, such as a tool's schema, is sent unchanged: its white space matters.
    digest.update(msgspec.json.format(msgspec.json.encode(asked, order="sorted"), indent=-1))
    return f"answer {digest.hexdigest()}"


def _parts(log: StreamLog, spec: StreamSpec, home: SharingHome) -> tuple[Adapter, Callable[[Error, bytes], Error]]:
    """Returns the adapter for a log's answer, and the redaction of its errors. The log may be of any process."""
    first = first_line(log)
    api = get_provider(first.provider)
    upstreams = (spec.model.upstream, *(each.upstream for each in spec.model.targets))  # another may have answered
    tags = {each.name: each.reasoning_tags for each in upstreams}
    adapter = api.adapter_for(spec.request, first.id, tags.get(first.upstream))
    return adapter, ErrorRedaction(
        first.upstream,
        upstreams,
        api.dialect == spec.dialect,
        shows_addresses=spec.caller == ANONYMOUS,
        tokens=home.tokens,
    )


def _log_caller(owner: str) -> str:
    """Returns the `caller` of a log's header, in place of a key's name.

    It contains a space, so it equals no caller's name, and no caller can follow the log.
    """
    return f"answers {owner}"


def _claim_ttl(settings: CacheSettings, longest_call: float) -> float:
    """Returns the seconds for which a key is claimed: the longest call, and the time to live of its answer."""
    return settings.ttl + min(longest_call, LIMITS.shared_call)
