"""The interface of a store outside this process: a file or a server that keeps copies of logs, and records.

Owns the interface of every such store, and the kinds of failures. Knows no loop, no client, and nothing of the bytes of
a log or a record.

1. A copy of a log consists of its header, its records in order, the text of the dropped events, and its end. A record
   names the event that it begins after, so a reader detects a hole.
2. Every change can be written again after a failure: parts that are written already stay as they are.
3. A copy has one owner: a worker and an epoch. The owner runs the stream, writes the copy, and holds a lease. If it is
   gone (`alive.py`), another worker may take the copy over: the epoch rises by one. An owner that stops may let it go:
   the owner is an empty name at the same epoch then.
4. The store itself refuses each change of a worker that does not own the copy. If the store has lost a copy, its owner
   writes it again; of two that do so, the higher epoch wins, and at one epoch the first.
5. A record is a small value that processes share, by kind and name. Outside this process it has a checksum over its
   value and place. A damaged record is a `StoreError`, never a value.
6. Errors are `StoreError` with a text of the gateway's own. The text contains no password of a URL, and nothing of
   another program's error message.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec
import orjson

from gai_fast.model.errors import GaiFastError
from gai_fast.model.settings import SealSettings
from gai_fast.stores._base import Claim, Ending, LogHeader
from gai_fast.stores.limits import LIMITS

CLAIMS: Final = "claim"
"""The kind of record that maps an idempotency key, or a chat, to its stream."""
ANSWERS: Final = "answer"
"""The kind of record that maps a request to the stream of its shared answer."""
IDS: Final = "ids"
"""The kind of record that holds ids of what upstreams store for a caller."""
SEAL: Final = "seal"
"""The kind of record that holds what a sealed store needs itself (`sealed.py`)."""
RESPONSES: Final = "response"
"""The kind of kept responses (`responses.py`), which have methods of their own."""
KEYS: Final = "keys"
"""The kind of record that holds keys made at run time (`stored_keys.py`). Such a record is kept until it is deleted."""
CANCEL: Final = "cancel"
"""The message that cancels a stream."""
DECIDED: Final = "decided"
"""The message that a call of a stream's run was decided."""
DROP: Final = "drop"
"""The message that drops the log of a stream that has ended."""

Value = TypeVar("Value")

Unwritten = Literal["missing", "refused"]
"""Why a change was not written: the store has lost the copy, or the copy has another owner."""

Fault = Literal["slow", "unreachable", "refused", "read_only", "full", "busy", "damaged", "sealed", "unsuitable"]


class StoreError(GaiFastError):
    """The store cannot be used. At start the server refuses to run; later it goes on without the store.

    Args:
        fault: The kind of failure, in the order of `Fault`: the store does not answer a request in time, does not
            answer at all, refuses access, cannot be written, has no room, is loading or locked, is damaged, is sealed
            with a key that this process lacks, or is no store of this program.
        text: One line for the operator, without a secret.
    """

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault: Fault = fault


class SealError(StoreError):
    """The keys of `[store.encryption]` cannot be used, or do not fit the store. The text says what to do about it."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """Successive pieces of a log, joined.

    Args:
        after: The number of the last event of the previous record. 0 if there is none.
        last_seq: The number of the last event in the record.
        piece: Whole frames.
    """

    after: int
    last_seq: int
    piece: bytes


class Gap(NamedTuple):
    """The dropped beginning of a log.

    Args:
        lost: The number of the last dropped event.
        text: The visible text since the previous gap, or of all dropped events. None if it is lost.
        is_whole: Whether `text` covers all dropped events.
        after: The number of the last event of the gap that this one continues. 0 if there is none.
    """

    lost: int
    text: str | None
    is_whole: bool
    after: int = 0


class CopyChange(msgspec.Struct, frozen=True, gc=False):
    """A change of one stream's copy. A part that is None stays as it is.

    Args:
        stream_id: The stream's id.
        header: Begins the copy. Its text, if it is sealed.
        worker: The name of the worker that writes the copy: its owner.
        epoch: The owner's epoch, from 1. 0 for a removal that no owner asks for.
        records: Records to add, in order.
        gap: Drops the records up to `gap.lost`.
        ending: Ends the copy. Its text, if it is sealed.
        last_seq: The number of the last event; set with `ending`.
        keep: Seconds from now for which the copy is kept; always set with `header`.
        is_dropped: Removes the copy. Only `worker` and `epoch` may be set too.
        caller: The caller of the stream, as in its header.
        is_sealed: Whether the records are sealed, so that a store needs no checksum to find a damaged one.
        request: What a new owner of the stream needs to go on: begun with `header`, and gone with the end. Without
            `header`, an empty value says that the copy has one. None if it has none.
    """

    stream_id: str
    header: LogHeader | bytes | None = None
    worker: str = ""
    records: Sequence[Record] = ()
    gap: Gap | None = None
    ending: Ending | bytes | None = None
    last_seq: int = 0
    keep: float | None = None
    is_dropped: bool = False
    caller: str = ""
    is_sealed: bool = False
    epoch: int = 0
    request: bytes | None = None


LAST_EPOCH: Final = 1 << 53
"""The least number that is no epoch: a script of Redis counts to it."""


class Owner(NamedTuple):
    """The owner of a copy.

    Args:
        worker: The name of the worker. Empty if it has let the copy go, or if `epoch` is 0.
        epoch: How often the copy was begun or taken over. 0 if an earlier release wrote it: it has no epochs.
    """

    worker: str
    epoch: int


class CopyTail(NamedTuple):
    """The part of a copy after an event.

    Args:
        records: Records in order, perhaps not all.
        ending: The end of the stream. None before its last record.
        is_damaged: Whether the part after the records cannot be read.
        has_more: Whether there may be more records already.
        is_sealed: Whether the part after the records cannot be read because its key is missing.
    """

    records: list[Record]
    ending: Ending | None = None
    is_damaged: bool = False
    has_more: bool = False
    is_sealed: bool = False


class LogCopy(NamedTuple):
    """The durable copy of a log.

    Args:
        header: Describes the stream.
        worker: The name of the worker that writes the copy.
        lost: The number of the last dropped event. 0 if there is none.
        text: The visible text up to `lost`. None if it is lost.
        news: The part after `lost`.
        epoch: As in `Owner`.
    """

    header: LogHeader
    worker: str
    lost: int
    text: str | None
    news: CopyTail
    epoch: int = 0


class ResponseRecord(NamedTuple, Generic[Value]):
    """A kept response as a store has it.

    Args:
        name: The digest of its caller and id.
        caller: The digest of its caller.
        parent: The name of the response before it. Empty if there is none.
        value: Its content.
        size: The bytes that it counts for.
        items: The digests of the caller and the id of each of its items, to find it by.
    """

    name: str
    caller: str
    parent: str
    value: Value
    size: int
    items: Sequence[str] = ()


class ResponseBudget(NamedTuple):
    """The bytes of all kept responses of one caller, and of all callers."""

    of_caller: int
    of_all: int


class Records(ABC):
    """Small values that processes share, each by its kind and name. All methods raise `StoreError`."""

    @abstractmethod
    async def get(self, kind: str, name: str) -> bytes | None:
        """Returns the value of a record. None if there is none.

        Args:
            kind: One of the kinds above, or of `records.py`.
            name: Its name within the kind.
        """

    @abstractmethod
    async def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str = "") -> None:
        """Writes a record, and replaces an existing one.

        Args:
            kind: As for `get`.
            name: As for `get`.
            value: Its value, `limits.record` bytes at most.
            ttl: Seconds for which the record is kept. None if it is kept until it is deleted.
            holder: The caller that the record is counted for, if records are in the memory of a process.

        Raises:
            Overloaded: The memory of that process has no room for another record of this kind.
        """

    @abstractmethod
    async def swap(
        self,
        kind: str,
        name: str,
        old: bytes | None,
        new: bytes,
        ttl: float | None,
        holder: str = "",
        *,
        is_synced: bool = False,
    ) -> bytes | None:
        """Writes a record if its value is `old`; atomic over all processes.

        Args:
            kind: As for `get`.
            name: As for `get`.
            old: The value that the record must have. None if there must be no record.
            new: The new value, as for `put`.
            ttl: As for `put`.
            holder: As for `put`.
            is_synced: Whether a file has reached its disk before this returns, whatever `[store] sync` says.

        Returns:
            The value before the call. The record was written if this equals `old`.

        Raises:
            Overloaded: As `put`.
        """

    @abstractmethod
    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record; returns whether it was removed.

        Args:
            kind: As for `get`.
            name: As for `get`.
            old: The value that the record must have. None to remove any value.
        """


class Backend(Records):
    """A store outside this process. All methods but `close` raise `StoreError`; none may be called before `open`.

    Attributes:
        is_copy: Whether the logs of this process are copied to the store. Otherwise other processes read them from the
            memory of this process.
        spans_machines: Whether servers of several machines may share the store.
        losses: The number of times that the store was found to have lost writes of this process.
        is_sealed: Whether something in the store was found to be sealed with a key that this process lacks.
        sealed_errors: The number of reads and writes that failed because of that.
    """

    is_copy: ClassVar[bool] = True
    spans_machines: bool = False
    losses: int = 0
    is_sealed: bool = False
    sealed_errors: int = 0

    def beside(self) -> Backend:
        """Returns a backend in the same place for another `Store` of this process."""
        return self

    @abstractmethod
    async def open(self) -> None:
        """Connects, and checks that the store can be read and written."""

    @abstractmethod
    async def close(self) -> None:
        """Releases everything."""

    @abstractmethod
    async def write(self, changes: Sequence[CopyChange]) -> Mapping[str, Unwritten]:
        """Writes changes, in order for each stream. After a failure, all of them may be written again.

        Returns:
            The ids of streams for which nothing was written, and why. A store may return "missing" for a copy of
            another owner, until the change has a header.
        """

    @abstractmethod
    async def take_over(
        self, stream_id: str, epoch: int, last_seq: int, header: LogHeader | bytes, worker: str
    ) -> bool:
        """Makes a worker the owner of a copy, at the next epoch, or lets the copy go; atomic over all processes.

        Args:
            stream_id: The stream's id.
            epoch: The copy's epoch as it was read, from 1.
            last_seq: The number of the copy's last event as it was read.
            header: The copy's header as it was read. Its text, if it is sealed.
            worker: The new owner. Empty if the owner lets the copy go: the epoch stays.

        Returns:
            Whether that is the owner now. If not, the copy has changed since, has ended, or is gone.
        """

    async def request_of(self, stream_id: str) -> bytes | None:
        """Returns the request of a stream that has not ended; as in `CopyChange`. None if there is none."""
        return None

    @abstractmethod
    async def load(self, stream_id: str) -> LogCopy | None:
        """Returns the copy of a log. None if there is none."""

    @abstractmethod
    async def tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, CopyTail]:
        """Returns the news of some copies, as soon as there are any. A long copy is returned in parts.

        Args:
            positions: The number of the last known event, by stream id; `limits.mirror_streams` at most.
            wait: The longest time to wait for news, in seconds. The store may wait less.
        """

    @property
    def has_lost(self) -> bool:
        """Whether the store has lost data so lately that living workers may not have written their streams again."""
        return False

    @abstractmethod
    async def leased(self, workers: Collection[str]) -> Collection[str]:
        """Returns the workers that have their lease."""

    @abstractmethod
    async def kept(self, stream_ids: Collection[str]) -> Mapping[str, Owner]:
        """Returns the streams that have a copy, and its owner."""

    @abstractmethod
    async def renew(self, worker: str, *, is_behind: bool = False) -> bool:
        """Renews the lease of a worker for `limits.lease_lost` seconds.

        Args:
            worker: The worker's name.
            is_behind: Whether the store may lack streams of the worker. If so, the worker counts as late.

        Returns:
            Whether the worker had a lease.
        """

    async def late(self) -> Collection[str]:
        """Returns the workers that have a lease and did not renew it in time. The store may lack their streams."""
        return ()

    @abstractmethod
    async def give_up(self, worker: str) -> None:
        """Ends the lease of a worker that stops."""

    @abstractmethod
    async def note_followers(self, stream_ids: Collection[str]) -> None:
        """Notes that streams of other workers are followed here, for `followed_ago` in those workers.

        Args:
            stream_ids: The streams. A stream without a copy is ignored.
        """

    @abstractmethod
    async def followed_ago(self, stream_id: str) -> float | None:
        """Returns the seconds since followers of a stream were last noted. None if they never were.

        Args:
            stream_id: The id of a stream of this worker.
        """

    @abstractmethod
    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        """Sends a message about a stream to its worker. A living worker receives it within `limits.message_poll`.

        Args:
            worker: The worker's name.
            stream_id: The stream's id.
            message: `CANCEL`, or another text of `limits.message` characters at most.
        """

    @abstractmethod
    async def messages(self, worker: str, wait: float) -> Collection[tuple[str, str]]:
        """Returns the messages to a worker since the last call, in order, as soon as there are any.

        Args:
            worker: The worker's name.
            wait: The longest time to wait for a message, in seconds.

        Returns:
            Stream ids and messages, without duplicates.
        """

    @abstractmethod
    async def keep_response(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response, and replaces one of the same name; atomic over all processes.

        Afterwards its caller and all callers have no more bytes than the budget: first the caller's oldest are dropped,
        then the oldest of all.

        Args:
            record: The response. Its size is within the budget.
            ttl: Seconds for which it is kept.
            budget: The budget.

        Returns:
            The number of dropped responses.
        """

    @abstractmethod
    async def read_responses(self, names: Sequence[str], turns: int, most: int) -> Sequence[tuple[str, bytes]]:
        """Returns kept responses, each with those before it.

        Args:
            names: The names.
            turns: The number of responses for each name: itself, its parent, and so on. Fewer if one is not kept.
            most: Bytes after which no further response is returned. The last one may exceed them.

        Returns:
            Names and values in this order. Names that are not kept are left out.

        Raises:
            StoreError: Also if a value is damaged.
        """

    @abstractmethod
    async def responses_with(self, items: Mapping[str, str]) -> Mapping[str, str]:
        """Returns the names of kept responses with some items, the newest with each item.

        Args:
            items: The digests of the items, as in `ResponseRecord`; the name of a response to return if it is kept and
                none has the item, else an empty text.
        """

    @abstractmethod
    async def delete_response(self, name: str) -> bool:
        """Removes a kept response; returns whether there was one."""

    async def lasting(self) -> Collection[tuple[str, str]]:
        """Returns kind and name of the records without a time to live, `limits.lasting` at most. Some may be gone."""
        return ()

    async def seal_anew(self) -> None:
        """Seals the records without a time to live with the first key; called at the start of a server.

        Raises:
            StoreError: The store cannot be used.
        """

    async def rotate(self, settings: SealSettings) -> None:
        """Uses other keys from now on, if they can be used. Never fails.

        Args:
            settings: `[store.encryption]`.
        """

    @abstractmethod
    async def sweep(self) -> bool:
        """Removes some expired copies and records; returns whether there are more."""


def checksum(value: bytes, *place: object) -> int:
    """Returns a checksum over a value and its place. It detects a changed value, and a value in a wrong place.

    Args:
        value: The bytes.
        place: The value's place, such as a stream's id and a number.
    """
    return zlib.crc32(value, zlib.crc32(repr(place).encode()))


def check_size(value: bytes) -> None:
    """Checks the size of a record's value.

    Raises:
        StoreError: The value is too large.
    """
    if len(value) > LIMITS.record:
        raise StoreError("unsuitable", f"a record of {len(value)} bytes is larger than {LIMITS.record}")


def header_text(header: LogHeader | bytes, worker: str) -> bytes:
    """Encodes a header and its worker, for `read_header`, unless it is a text already."""
    if isinstance(header, bytes):
        return header
    fields = [worker, *header]
    while len(fields) > _FIELDS and fields[-1] == _DEFAULTS[len(fields) - 2]:
        fields.pop()  # earlier releases know none of these
    return orjson.dumps(fields)


_FIELDS: Final = 9
"""The number of fields that each release writes."""
_DEFAULTS: Final = (*[None] * 8, *[LogHeader._field_defaults[name] for name in LogHeader._fields[8:]])


def read_header(text: bytes) -> tuple[LogHeader, str]:
    """Decodes the output of `header_text`, of a later release too, which may have more at its end.

    Raises:
        StoreError: The text is damaged.
    """
    try:
        worker, *fields = orjson.loads(text)
        return msgspec.convert(fields[: len(LogHeader._fields)], LogHeader), msgspec.convert(worker, str)
    except (ValueError, TypeError, msgspec.ValidationError):
        raise StoreError("damaged", "the header of a stream cannot be read") from None


def ending_text(ending: Ending | bytes) -> bytes:
    """Encodes an end, for `read_ending`, unless it is a text already."""
    return ending if isinstance(ending, bytes) else orjson.dumps([*ending])


def read_ending(text: bytes) -> Ending:
    """Decodes the output of `ending_text`.

    Raises:
        StoreError: The text is damaged.
    """
    try:
        return msgspec.convert(orjson.loads(text), Ending)
    except (ValueError, msgspec.ValidationError):
        raise StoreError("damaged", "the end of a stream cannot be read") from None


def message_text(stream_id: str, message: str) -> str:
    """Encodes a message about a stream, for `read_message`.

    A cancel is the stream's id alone: workers of earlier releases write and read only this message.

    Raises:
        StoreError: The message is empty or too long.
    """
    if not 0 < len(message) <= LIMITS.message:
        raise StoreError("unsuitable", f"a message has {len(message)} characters, not 1 to {LIMITS.message}")
    return stream_id if message == CANCEL else f"{stream_id}\n{message}"


def read_message(text: str) -> tuple[str, str]:
    """Decodes the output of `message_text`: the stream's id and the message."""
    stream_id, _, message = text.partition("\n")
    return stream_id, message or CANCEL


def claim_text(claim: Claim) -> bytes:
    """Encodes a claim, for `read_claim`."""
    return f"{claim.stream_id}\n{claim.fingerprint}\n{claim.at_ms}".encode()


def read_claim(text: bytes) -> Claim:
    """Decodes the output of `claim_text`.

    Raises:
        StoreError: The text is damaged.
    """
    try:
        stream_id, fingerprint, at_ms = text.decode().split("\n")
        return Claim(stream_id, fingerprint, int(at_ms))
    except ValueError:
        raise StoreError("damaged", "an idempotency key cannot be read") from None


def gap_text(gap: Gap) -> bytes:
    """Encodes the text of a gap, for `join_gaps`."""
    if gap.text is None:
        return b"-"
    return (b"=" if gap.is_whole else b"+") + gap.text.encode()


def join_gaps(gaps: Iterable[tuple[int, bytes]]) -> tuple[int, str | None]:
    """Returns the number of the last dropped event of a copy, and the text up to it.

    Args:
        gaps: `lost` and the output of `gap_text` for each gap, in any order.
    """
    last = 0
    text: list[bytes] | None = []
    for lost, written in sorted(gaps):
        last = lost
        if written == b"-":
            text = None
        elif written.startswith(b"="):
            text = [written[1:]]
        elif text is not None:
            text.append(written[1:])
    return last, None if text is None else b"".join(text).decode()
