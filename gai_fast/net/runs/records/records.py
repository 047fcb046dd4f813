"""The records of runs: what a worker needs to go on with a run of another, and the decisions about its calls.

Owns how a run, its calls and its approvals are kept in records (`stores/backend.py`), and that only the owner of a run
changes it. Knows neither turns nor tools: it keeps bytes.

1. The head of a run names its owner's epoch, what is kept, and the calls that have begun. Each change is a swap of the
   head, so a worker that has lost the run finds out before it makes a call.
2. What is kept is cut into pieces. They are written before the head that names them, and the former ones are removed
   after it: a worker that is killed in between leaves the former state whole.
3. Each change writes the whole state again. Messages that a run has added to its conversation are written once.
4. The result of a call is a record of its own, under the key of the call. The worker that made the call may write it
   even after it has lost the run: the call was made. The head names the calls that the state has not ended: they alone
   have results, which go with the state that has them, and with the end of the run.
5. A call that has begun is on the disk before it is made, whatever `[store] sync` says.
6. An approval is decided by one swap: of two decisions at a time the second one finds the first. What shows its call
   to who decides goes with the decision.
7. The approvals that nobody has decided are listed in `limits.approval_lists` records, by a checksum of their streams.
   Those that a run has left to a later request (`leave`) are in no list: no run waits, and that request alone decides.
8. What is kept of a run counts among all that its store keeps (`CountKept`). A run without room counts as too large;
   a result or an approval without room is not kept.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from secrets import token_hex
from typing import Final, Literal, NamedTuple, Protocol
from zlib import crc32

import msgspec
from msgspec import Struct

from gai_fast.model.errors import Error, GaiFastError
from gai_fast.model.settings import ANONYMOUS, Settings
from gai_fast.net.limits import LIMITS
from gai_fast.runtime.clock import now_ms
from gai_fast.stores.backend import Records, StoreError

RUNS: Final = "run"
"""The kind of record that holds what is needed to go on with a run."""
CALLS: Final = "call"
"""The kind of record that holds results of calls."""
APPROVALS: Final = "approval"
"""The kind of record that holds approvals, and the lists of those that are not decided."""

_log: Final = logging.getLogger("gai_fast.tools")
_TRIES: Final = 32
"""Attempts to change a list: one fails if another process has changed it since it was read."""


class CountKept(Protocol):
    """Counts what is kept of a run: rule 8."""

    def __call__(self, stream_id: str, size: int, *, is_there: bool = False, part: str = "") -> bool:
        """Counts it; as `LogMemory.count_run`."""


def boundless(stream_id: str, size: int, *, is_there: bool = False, part: str = "") -> bool:
    """Counts nothing: for who begins and takes over no run."""
    return True


class LostRun(GaiFastError):
    """Another worker has the run."""

    def __init__(self) -> None:
        super().__init__("another worker has the run")


class _Head(Struct, array_like=True):
    """The head of a run.

    Attributes:
        epoch: The epoch of its owner.
        version: Rises with each state.
        size: Bytes of the state; -1 if the run is too large to be kept.
        writer: The epoch of the worker that wrote the state.
        added: What was added: for each, the epoch of its writer and its bytes.
        begun: How often each call was begun that the state has not ended, by its key.
        open: The keys of the calls that the state has not ended. Earlier releases write none.
    """

    epoch: int
    version: int
    size: int
    writer: int
    added: list[tuple[int, int]]
    begun: dict[str, int]
    open: list[str] = []


class KeptRun(NamedTuple):
    """A run as its last owner has left it.

    Attributes:
        state: Its last state.
        added: What it has added to its conversation, in order.
        begun: How often each call was begun since, by its key.
    """

    state: bytes
    added: Sequence[bytes]
    begun: dict[str, int]


class AskedApproval(Struct, array_like=True):
    """An approval that is asked for.

    Attributes:
        id: Its id.
        stream_id: The stream of the run.
        caller: The name of the run's caller.
        digest: What a decision must name.
        expires: Milliseconds since the epoch.
        call: The call, for who decides: JSON.
    """

    id: str
    stream_id: str
    caller: str
    digest: str
    expires: int
    call: bytes


class ApprovalDecision(Struct, array_like=True):
    """A decision about a call.

    Attributes:
        decision: What was decided.
        by: Who has decided; empty for the gateway.
        reason: Why; may be empty.
    """

    decision: Literal["approve", "deny"]
    by: str = ""
    reason: str = ""


ENDED: Final = ApprovalDecision("deny", "", "the run has ended")
"""The decision about a call whose run has ended."""


class _Approval(Struct, array_like=True):
    asked: AskedApproval  # without its call, which is in pieces
    size: int  # bytes of the call
    decision: ApprovalDecision | None = None
    is_left: bool = False  # to a later request


_HEADS: Final = msgspec.msgpack.Decoder(_Head)
_APPROVALS: Final = msgspec.msgpack.Decoder(_Approval)
_RESULTS: Final = msgspec.msgpack.Decoder(tuple[str, int])
_LISTS: Final = msgspec.msgpack.Decoder(dict[str, int])
_encode: Final = msgspec.msgpack.encode


def kept_for(settings: Settings) -> float:
    """Returns the seconds for which records of runs are kept: as long as a run may last, at least. What it has added is
    written once, and each of its turns may wait for an approval."""
    waits = settings.runs.approval_ttl
    longest = [model.run_timeout + (model.max_steps + 1) * waits for model in settings.models.values()]
    return max(settings.idempotency.ttl, waits, *longest)


async def any_decided(records: Records, approval_ids: Sequence[str]) -> bool:
    """Returns whether one of some approvals is decided. False also if the store does not say so.

    Args:
        records: The records of the store.
        approval_ids: The ids of the approvals.
    """
    kept = RunRecords(records, 0.0)
    try:
        return any(await asyncio.gather(*map(kept.is_decided, approval_ids)))
    except StoreError:
        return False


async def may_have_called(records: Records, stream_id: str) -> bool:
    """Returns whether a stream is a run that may have made calls that must not be made again.

    Args:
        records: The records of the store.
        stream_id: The stream.

    Raises:
        StoreError: The store fails.
    """
    raw = await records.get(RUNS, stream_id)
    if raw is None:
        return False
    try:
        head = _HEADS.decode(raw)
    except msgspec.MsgspecError:
        return True
    return head.version > 0 or bool(head.begun)


class RunRecords:
    """The records of all runs.

    Args:
        records: The records of the store.
        ttl: Seconds for which records are kept.
        clock_ms: Milliseconds since the epoch.
        room: Counts what is kept.
    """

    def __init__(
        self, records: Records, ttl: float, clock_ms: Callable[[], int] = now_ms, room: CountKept = boundless
    ) -> None:
        self._records = records
        self._room = room
        self._pieces = _Pieces(records, ttl)
        self._ttl = ttl
        self._clock_ms = clock_ms
        self._lists = [asyncio.Lock() for _ in range(LIMITS.approval_lists)]  # this process changes one after another

    # ---- runs

    async def begin(self, stream_id: str, caller: str, epoch: int, *, again: bool = False) -> OwnedRun:
        """Begins the record of a run.

        Args:
            stream_id: Its stream.
            caller: The name of its caller.
            epoch: The epoch of its owner.
            again: Whether this owner has tried before, without an answer of the store.

        Raises:
            LostRun: There is a record of this run, of another owner.
            StoreError: The store fails.
            Overloaded: There is no room for it in the memory of this process.
        """
        raw = _encode(_Head(epoch, 0, -1, epoch, [], {}))
        found = await self._records.swap(RUNS, stream_id, None, raw, self._ttl, caller)
        if found is not None and not (again and found == raw):
            raise LostRun
        return OwnedRun(self._records, self._pieces, self._ttl, stream_id, caller, raw, self._room)

    async def take_over(
        self, stream_id: str, caller: str, epoch: int, *, is_own: bool = False
    ) -> tuple[OwnedRun, KeptRun] | None:
        """Takes the record of a run over, and reads it.

        Args:
            stream_id: As for `begin`.
            caller: As for `begin`.
            epoch: The epoch of the new owner.
            is_own: Whether the record may be this worker's in its epoch: its own run has waited, or the store has
                failed as it was taken over.

        Returns:
            None if there is no record, or the run was too large to be kept.

        Raises:
            LostRun: Another worker has taken it over since.
            StoreError: The store fails, or the record is damaged.
        """
        claimed = await self._claim(stream_id, caller, epoch, is_own=is_own)
        if claimed is None:
            return None
        run, head = claimed
        await run.count()
        state = await self._pieces.read(RUNS, _state_name(stream_id, head), head.size)
        added = [
            await self._pieces.read(RUNS, _added_name(stream_id, writer, index), size)
            for index, (writer, size) in enumerate(head.added)
        ]
        return run, KeptRun(state, added, head.begun)

    async def _claim(
        self, stream_id: str, caller: str, epoch: int, *, is_own: bool, to_close: bool = False
    ) -> tuple[OwnedRun, _Head] | None:
        """Takes the record of a run over as `take_over`, which has what it raises, and returns its head.

        `to_close`: also of a run that was too large to be kept, if it may have results.
        """
        while True:
            raw = await self._records.get(RUNS, stream_id)
            head = None if raw is None else _read_head(raw)
            if raw is None or head is None:
                return None
            if head.size < 0 and not (to_close and (head.begun or head.open)):
                return None
            if head.epoch > epoch - (not is_own):
                raise LostRun
            head.epoch = epoch
            run = OwnedRun(self._records, self._pieces, self._ttl, stream_id, caller, raw, self._room)
            try:
                await run.swap(head)
            except LostRun:  # another worker has taken it, or its former owner has changed it since
                continue
            return run, head

    async def withdraw(self, stream_id: str, caller: str, epoch: int, *, is_own: bool = False) -> None:
        """Removes what is kept of a run whose stream has ended, and lists its approvals no longer. Does nothing for a
        stream that is no run.

        Args:
            stream_id: As for `begin`.
            caller: As for `begin`.
            epoch: The epoch of who has ended it.
            is_own: As for `take_over`.

        Raises:
            LostRun: As `take_over`.
            StoreError: The store fails. What is left expires.
        """
        claimed = await self._claim(stream_id, caller, epoch, is_own=is_own, to_close=True)
        for approval_id in await self.listed_of(stream_id):
            await self.decide(approval_id, ENDED)
        if claimed is not None:
            await claimed[0].close()

    async def go_on(
        self, stream_id: str, caller: str, epoch: int, *, is_own: bool = False
    ) -> tuple[OwnedRun, KeptRun] | None:
        """Takes a run over as `take_over`, or begins a new record if nothing of the run was kept.

        Returns:
            As `take_over`. A run of which nothing was kept has an empty state: none of its calls needed a record.
        """
        raw = await self._records.get(RUNS, stream_id)
        if raw is None:
            return await self.begin(stream_id, caller, epoch, again=is_own), KeptRun(b"", (), {})
        head = _read_head(raw)
        if head.version:
            return await self.take_over(stream_id, caller, epoch, is_own=is_own)
        if head.epoch > epoch - (not is_own):
            raise LostRun
        head.epoch = head.writer = epoch
        run = OwnedRun(self._records, self._pieces, self._ttl, stream_id, caller, raw, self._room)
        try:
            await run.swap(head)
        except LostRun:  # as in `take_over`
            return await self.go_on(stream_id, caller, epoch, is_own=is_own)
        return run, KeptRun(b"", (), head.begun)

    async def state_of(self, stream_id: str) -> bytes:
        """Returns the last state of a run, whoever owns it. Empty if none is kept, or it is damaged.

        Raises:
            StoreError: The store fails.
        """
        try:
            raw = await self._records.get(RUNS, stream_id)
            head = None if raw is None else _read_head(raw)
            if head is None or head.size < 0 or not head.version:
                return b""
            return await self._pieces.read(RUNS, _state_name(stream_id, head), head.size)
        except StoreError as problem:
            if problem.fault in ("damaged", "sealed"):  # it stays so, or its owner has just written another one
                return b""
            raise

    # ---- approvals

    async def ask(self, asked: AskedApproval, waiting: int) -> bool:
        """Keeps and lists an approval that is asked for.

        Args:
            asked: The approval.
            waiting: How many runs may wait, half of them of one caller with a name.

        Returns:
            Whether it is kept. If not, too many runs wait.

        Raises:
            StoreError: The store fails.
            Overloaded: There is no room for it in the memory of this process.
        """
        runs = await self._waiting()
        waits = asked.stream_id in runs
        if not waits and not _has_room(runs, asked, waiting):
            return False
        if not self._room(asked.stream_id, len(asked.call), part=asked.id):
            raise Error("overloaded", "there is no room for another approval", reason="store")
        await self._pieces.write(APPROVALS, asked.id, asked.call, asked.caller)
        value = _encode(_Approval(msgspec.structs.replace(asked, call=b""), len(asked.call)))
        await self._records.put(APPROVALS, asked.id, value, self._ttl, asked.caller)
        is_listed = await self._change_list(asked, is_open=True)
        if is_listed and not waits:
            runs = await self._waiting()  # others were listed at the same moment
            runs.pop(asked.stream_id, None)
            if not _has_room(runs, asked, waiting):
                await self._change_list(asked, is_open=False)
                is_listed = False
        if not is_listed:
            await self._records.delete(APPROVALS, asked.id)
            await self._pieces.drop(APPROVALS, asked.id, len(asked.call))
            self.passed(asked)
        return is_listed

    def waits_on(self, asked: AskedApproval) -> None:
        """Counts an approval that is kept already, and that this worker waits for from now on."""
        self._room(asked.stream_id, len(asked.call), is_there=True, part=asked.id)

    def passed(self, asked: AskedApproval) -> None:
        """Counts an approval no longer: its decision is used."""
        self._room(asked.stream_id, 0, part=asked.id)

    async def _waiting(self) -> dict[str, str]:
        """Returns the streams of the runs that wait, each with the tag of its caller."""
        return {_id_of(each).rpartition("-")[0]: each.partition("/")[2] for each in await self._entries()}

    async def leave(self, asked: AskedApproval) -> None:
        """Keeps an approval that a later request decides: rule 7. One that is kept already stays as it is.

        Args:
            asked: The approval.

        Raises:
            StoreError: The store fails.
            Overloaded: There is no room for it in the memory of this process.
        """
        await self._pieces.write(APPROVALS, asked.id, asked.call, asked.caller)
        approval = _Approval(msgspec.structs.replace(asked, call=b""), len(asked.call), is_left=True)
        await self._records.swap(APPROVALS, asked.id, None, _encode(approval), self._ttl, asked.caller)

    async def left(self, approval_id: str) -> tuple[AskedApproval, ApprovalDecision | None] | None:
        """Returns an approval that was left to a later request; otherwise as `asked`."""
        return await self._find(approval_id, is_left=True)

    async def give_back(self, approval_id: str) -> None:
        """Takes a decision back whose request has begun nothing.

        Raises:
            StoreError: The store fails: it stays decided.
        """
        raw = await self._records.get(APPROVALS, approval_id)
        if raw is not None:
            found = _read_approval(raw)
            found.decision = None
            await self._records.swap(APPROVALS, approval_id, raw, _encode(found), self._ttl, found.asked.caller)

    async def asked(self, approval_id: str) -> tuple[AskedApproval, ApprovalDecision | None] | None:
        """Returns an approval and its decision, if there is one; a decided one has no call. None if there is none.

        Raises:
            StoreError: The store fails, or the record is damaged.
        """
        return await self._find(approval_id, is_left=False)

    async def is_decided(self, approval_id: str) -> bool:
        """Returns whether an approval is decided; false if there is none.

        Raises:
            StoreError: As `asked`.
        """
        raw = await self._records.get(APPROVALS, approval_id)
        return raw is not None and _read_approval(raw).decision is not None

    async def _find(self, approval_id: str, *, is_left: bool) -> tuple[AskedApproval, ApprovalDecision | None] | None:
        raw = None if "/" in approval_id else await self._records.get(APPROVALS, approval_id)
        while raw is not None:
            found = _read_approval(raw)
            if found.is_left is not is_left:
                return None
            try:
                call = await self._pieces.read(APPROVALS, approval_id, found.size)
            except StoreError:
                former, raw = raw, await self._records.get(APPROVALS, approval_id)
                if raw == former:  # else it was decided meanwhile
                    raise
            else:
                return msgspec.structs.replace(found.asked, call=call), found.decision
        return None

    async def decide(
        self, approval_id: str, decision: ApprovalDecision, digest: str | None = None, *, is_left: bool = False
    ) -> ApprovalDecision | None:
        """Decides an approval, unless it is decided.

        Args:
            approval_id: Its id.
            decision: The decision.
            digest: The digest of the call that the decision is about: a turn that is asked again gives the id to
                another call. None for any call.
            is_left: Whether a later request decides it, to which it was left; rule 7.

        Returns:
            The decision that counts. None if there is no such approval.

        Raises:
            StoreError: The store fails, or the record is damaged.
        """
        raw = None if "/" in approval_id else await self._records.get(APPROVALS, approval_id)
        while raw is not None:
            found = _read_approval(raw)
            if found.is_left is not is_left or digest not in (None, found.asked.digest):
                return None
            if found.decision is not None:
                with suppress(StoreError):  # whoever has decided it may have been killed before this
                    await self._change_list(found.asked, is_open=False)
                return found.decision
            found.decision = decision
            size = found.size
            if not is_left:
                found.size = 0
            new = _encode(found)
            other = await self._records.swap(APPROVALS, approval_id, raw, new, self._ttl, found.asked.caller)
            if other == raw:
                if is_left:
                    return decision
                with suppress(StoreError):  # it is decided: the list forgets it when it would have expired
                    await self._change_list(found.asked, is_open=False)
                with suppress(StoreError):  # what shows the call expires
                    await self._pieces.drop(APPROVALS, approval_id, size)
                return decision
            raw = other
        return None

    async def listed(self) -> dict[str, int]:
        """Returns the approvals that nobody has decided, each with its last millisecond; those that have expired are
        left out.

        Raises:
            StoreError: The store fails.
        """
        return {_id_of(entry): expires for entry, expires in (await self._entries()).items()}

    async def _entries(self) -> dict[str, int]:
        """Returns what the lists have."""
        found: dict[str, int] = {}
        names = [_list_name(number) for number in range(LIMITS.approval_lists)]
        for raw in await asyncio.gather(*[self._records.get(APPROVALS, name) for name in names]):
            found.update(self._read_list(raw))
        return found

    async def listed_of(self, stream_id: str) -> list[str]:
        """Returns the approvals of a run that nobody has decided, as `listed`, from one record.

        Args:
            stream_id: As for `begin`.

        Raises:
            StoreError: The store fails.
        """
        listed = self._read_list(await self._records.get(APPROVALS, _list_name(_list_of(stream_id))))
        return [each for each in map(_id_of, listed) if each.rpartition("-")[0] == stream_id]

    async def _change_list(self, asked: AskedApproval, *, is_open: bool) -> bool:
        """Adds an approval to its list, or removes it; returns whether the list has room for it."""
        number = _list_of(asked.stream_id)
        async with self._lists[number]:
            return await self._change(_list_name(number), asked, is_open=is_open)

    async def _change(self, name: str, asked: AskedApproval, *, is_open: bool) -> bool:
        old = await self._records.get(APPROVALS, name)
        for _ in range(_TRIES):
            entries = self._read_list(old)
            if is_open:
                entries[_entry_of(asked)] = asked.expires
            elif entries.pop(_entry_of(asked), entries.pop(asked.id, None)) is None:  # that of a former release
                return True
            new = _encode(entries)
            if len(new) > LIMITS.record_piece:
                return False
            found = await self._records.swap(APPROVALS, name, old, new, self._ttl)
            if found == old:
                return True
            old = found
        raise StoreError("busy", "the list of approvals is changed by others all the time")

    def _read_list(self, raw: bytes | None) -> dict[str, int]:
        if raw is None:
            return {}
        now = self._clock_ms()
        try:
            entries = _LISTS.decode(raw)
        except msgspec.MsgspecError:  # it is written again; what it listed can be decided by whoever knows it
            _log.warning("a list of approvals in the store is damaged: what it had is listed no longer")
            return {}
        return {name: expires for name, expires in entries.items() if expires > now}


class OwnedRun:
    """The record of a run that this worker owns. Made by `RunRecords`.

    Args:
        records: The records of the store.
        pieces: Cuts what is large.
        ttl: Seconds for which records are kept.
        stream_id: The stream of the run.
        caller: The name of its caller.
        raw: Its head.
        room: Counts what is kept.
    """

    def __init__(
        self, records: Records, pieces: _Pieces, ttl: float, stream_id: str, caller: str, raw: bytes, room: CountKept
    ) -> None:
        self._records = records
        self._pieces = pieces
        self._ttl = ttl
        self._stream_id = stream_id
        self._caller = caller
        self._raw = raw
        self._unsure: set[bytes] = set()  # heads that the store may have written without an answer
        self._results: dict[str, int] = {}  # the bytes of the results that are kept, by key
        self._others: Collection[str] = ()  # keys of calls whose results a former owner may still write
        self._room = room
        self._turn = asyncio.Lock()  # one change at a time: each swaps the head that the last one has written

    async def save(self, state: bytes, added: bytes = b"", open_calls: Collection[str] = ()) -> None:
        """Keeps a state of the run.

        Args:
            state: The state.
            added: What the run has added to its conversation since the last state.
            open_calls: The keys of the calls that the state has not ended: rule 4.

        Raises:
            LostRun: Another worker has the run.
            StoreError: The store fails. The former state is kept.
            Overloaded: There is no room for it in the memory of this process.
        """
        async with self._turn:
            head = _read_head(self._raw)
            former = _read_head(self._raw)
            size = sum(each for _, each in head.added) + len(added) + len(state)
            head.version += 1
            head.writer = head.epoch
            head.begun = {key: times for key, times in head.begun.items() if key in open_calls}
            head.open = [*open_calls]
            passed = [key for key in self._results if key not in open_calls]
            freed = sum(self._results[key] for key in passed)
            if not self.is_whole or size > LIMITS.run or not self._has_room(size, -freed):
                head.size, head.added = -1, []
            else:
                head.size = len(state)
                if added:
                    name = _added_name(self._stream_id, head.epoch, len(head.added))
                    await self._pieces.write(RUNS, name, added, self._caller)
                    head.added.append((head.epoch, len(added)))
                await self._pieces.write(RUNS, _state_name(self._stream_id, head), state, self._caller)
            await self.swap(head)
            with suppress(StoreError):  # the state is kept; what is left of the former one expires
                await self._drop_state(former)
                if head.size < 0:
                    await self._drop_added(former)
                    passed = [*self._results]
                if passed:
                    await asyncio.gather(*map(self._drop_result, passed))
                self._has_room(_size_of(head), is_there=True)

    @property
    def is_whole(self) -> bool:
        """Whether its last state was not too large to be kept."""
        return _is_whole(_read_head(self._raw))

    async def started(self, key: str, attempt: int) -> None:
        """Notes that a call begins: rule 5.

        Args:
            key: The key of the call.
            attempt: How often it has begun, with this time.

        Raises:
            LostRun: Another worker has the run: the call must not be made.
            StoreError: The store fails: as above.
            Overloaded: As for `save`.
        """
        async with self._turn:
            head = _read_head(self._raw)
            head.begun[key] = attempt
            await self.swap(head, is_synced=True)

    async def ended(self, key: str, result: bytes) -> None:
        """Keeps the result of a call: rule 4.

        Args:
            key: The key of the call.
            result: Its result.

        Raises:
            StoreError: The store fails. A worker that continues the run does not know the outcome of the call.
            Overloaded: As for `save`.
        """
        name, writer = f"{self._stream_id}/{key}", token_hex(4)
        if not self._is_open(key):  # the next state has it, or its turn is asked again
            return
        if not self._has_room(_size_of(_read_head(self._raw)), len(result)):
            raise Error("overloaded", "there is no room for the result of another call", reason="store")
        self._results[key] = len(result)
        await self._pieces.write(CALLS, f"{name}/{writer}", result, self._caller)
        await self._records.put(CALLS, name, _encode((writer, len(result))), self._ttl, self._caller)
        if not self._is_open(key):  # since then
            await self._drop_result(key)

    def _is_open(self, key: str) -> bool:
        """Returns whether the state is kept and has not ended a call: rule 4."""
        head = _read_head(self._raw)
        return _is_whole(head) and (key in head.begun or key in head.open)

    async def count(self) -> None:
        """Counts what is kept already: it was taken over.

        Raises:
            StoreError: The store fails, or the record of a result is damaged.
        """
        head = _read_head(self._raw)
        self._others = {*head.begun, *head.open}
        for key in self._others:
            found = await self._find_result(key)
            if found is not None:
                self._results[key] = found[1]
        self._has_room(_size_of(head), is_there=True)

    def _has_room(self, size: int, more: int = 0, *, is_there: bool = False) -> bool:
        """Counts bytes of states, those of all results, and more: rule 8."""
        return self._room(self._stream_id, size + sum(self._results.values()) + more, is_there=is_there)

    async def result(self, key: str) -> bytes | None:
        """Returns the result of a call. None if there is none.

        Raises:
            StoreError: The store fails, or the record is damaged.
        """
        found = await self._find_result(key)
        if found is None:
            return None
        self._results[key] = found[1]
        return await self._pieces.read(CALLS, *found)

    async def _find_result(self, key: str) -> tuple[str, int] | None:
        """Returns the name of the pieces of a result, and its bytes. None if there is none."""
        name = f"{self._stream_id}/{key}"
        raw = await self._records.get(CALLS, name)
        if raw is None:
            return None
        try:
            writer, size = _RESULTS.decode(raw)
        except msgspec.MsgspecError:
            raise StoreError("damaged", f"the record of a call of stream {self._stream_id} is damaged") from None
        return f"{name}/{writer}", size

    async def end(self) -> None:
        """Removes what is kept of the run: it has ended. Its approvals expire.

        Raises:
            StoreError: The store fails. What is left expires.
        """
        async with self._turn:
            head = _read_head(self._raw)
            if await self._records.delete(RUNS, self._stream_id, self._raw):
                await self._drop_all(head)

    async def close(self) -> None:
        """Removes the run's state and results. Its head stays until it expires, and keeps other workers from continuing
        the run: the store may not have the end of its log yet.

        Raises:
            LostRun: Another worker has the run.
            StoreError: The store fails. What is left expires.
        """
        async with self._turn:
            former, head = _read_head(self._raw), _read_head(self._raw)
            head.version, head.size, head.added, head.begun, head.open = head.version + 1, -1, [], {}, []
            await self.swap(head)
            await self._drop_all(former)

    async def swap(self, head: _Head, *, is_synced: bool = False) -> None:
        """Writes a head in place of the last one.

        Raises:
            LostRun: The head is another worker's.
            StoreError: The store fails.
        """
        new = _encode(head)
        swap = partial(self._records.swap, RUNS, self._stream_id)
        try:
            found = await swap(self._raw, new, self._ttl, self._caller, is_synced=is_synced)
            if found != self._raw and found in self._unsure:
                self._raw = found
                found = await swap(found, new, self._ttl, self._caller, is_synced=is_synced)
        except StoreError:
            self._unsure.add(new)
            raise
        if found != self._raw:
            raise LostRun
        self._unsure.clear()
        self._raw = new

    async def _drop_all(self, head: _Head) -> None:
        await self._drop_state(head)
        await self._drop_added(head)
        for key in {*self._results, *self._others, *head.open, *head.begun}:
            await self._drop_result(key)

    async def _drop_result(self, key: str) -> None:
        found = await self._find_result(key)
        if found is not None:
            await self._records.delete(CALLS, f"{self._stream_id}/{key}")
            await self._pieces.drop(CALLS, *found)
        self._results.pop(key, None)

    async def _drop_state(self, head: _Head) -> None:
        if head.size >= 0:
            await self._pieces.drop(RUNS, _state_name(self._stream_id, head), head.size)

    async def _drop_added(self, head: _Head) -> None:
        for index, (writer, size) in enumerate(head.added):
            await self._pieces.drop(RUNS, _added_name(self._stream_id, writer, index), size)


class _Pieces:
    """Values that are larger than a record. Which ones there are stands elsewhere: their sizes are given.

    Args:
        records: The records of the store.
        ttl: Seconds for which records are kept.
    """

    def __init__(self, records: Records, ttl: float) -> None:
        self._records = records
        self._ttl = ttl

    async def write(self, kind: str, name: str, value: bytes, holder: str) -> None:
        for index, place in enumerate(_places(name, len(value))):
            at = index * LIMITS.record_piece
            await self._records.put(kind, place, value[at : at + LIMITS.record_piece], self._ttl, holder)

    async def read(self, kind: str, name: str, size: int) -> bytes:
        found = await asyncio.gather(*[self._records.get(kind, place) for place in _places(name, size)])
        value = b"".join([piece or b"" for piece in found])
        if len(value) != size:
            raise StoreError("damaged", f"a part of the {kind} record {name} is missing in the store")
        return value

    async def drop(self, kind: str, name: str, size: int) -> None:
        for place in _places(name, size):
            await self._records.delete(kind, place)


def _is_whole(head: _Head) -> bool:
    return head.size >= 0 or not head.version


def _size_of(head: _Head) -> int:
    """Returns the bytes of what is kept of a run, without results."""
    return max(head.size, 0) + sum(size for _, size in head.added)


def _places(name: str, size: int) -> list[str]:
    return [f"{name}/{index}" for index in range(math.ceil(size / LIMITS.record_piece))]


def _state_name(stream_id: str, head: _Head) -> str:
    """Returns the name of a state's pieces: two workers that write at the same time do not overwrite each other's."""
    return f"{stream_id}/s{head.writer}.{head.version}"


def _added_name(stream_id: str, writer: int, index: int) -> str:
    return f"{stream_id}/a{writer}.{index}"


def _list_of(stream_id: str) -> int:
    """Returns the number of the list that has the approvals of a run: rule 7."""
    return crc32(stream_id.encode()) % LIMITS.approval_lists


def _tag_of(caller: str) -> str:
    """Returns what stands for a caller in the lists. Empty for those without a name."""
    return "" if caller == ANONYMOUS else sha256(caller.encode()).hexdigest()[:8]


def _entry_of(asked: AskedApproval) -> str:
    """Returns the name of an approval in its list: its id, and the tag of its caller, if that has a name."""
    tag = _tag_of(asked.caller)
    return f"{asked.id}/{tag}" if tag else asked.id


def _id_of(entry: str) -> str:
    return entry.partition("/")[0]


def _has_room(runs: Mapping[str, str], asked: AskedApproval, waiting: int) -> bool:
    """Returns whether one more run may wait: a caller with a name has half of the room.

    Args:
        runs: The runs that wait, each with the tag of its caller.
        asked: What the run asks for.
        waiting: The room.
    """
    tag = _tag_of(asked.caller)
    own = sum(each == tag for each in runs.values()) if tag else 0
    return len(runs) < waiting and own < max(1, waiting // 2)


def _list_name(number: int) -> str:
    return f"list/{number}"


def _read_head(raw: bytes) -> _Head:
    try:
        return _HEADS.decode(raw)
    except msgspec.MsgspecError:
        raise StoreError("damaged", "the record of a run in the store is damaged") from None


def _read_approval(raw: bytes) -> _Approval:
    try:
        return _APPROVALS.decode(raw)
    except msgspec.MsgspecError:
        raise StoreError("damaged", "the record of an approval in the store is damaged") from None
