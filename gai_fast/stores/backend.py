"""The interface of a store outside this process: a file or a server that keeps copies of logs, and records.

Owns the interface of every such store, and the words for how one fails. Knows no loop, no client, and nothing of the
bytes of a log or a record.

1. A copy of a log consists of its header, its records in order, the text of what was dropped, and its end. A record
   tells which event it begins after, so a reader sees a hole.
2. Every change can be written again after a failure: what is there already stays as it is.
3. One worker writes a copy: the one that runs the stream. It holds a lease; a copy without an end whose worker is gone
   (`alive.py`) is never continued.
4. A record is a small value that processes share, by kind and name. Outside this process each has a checksum over its
   value and place: a damaged one is a `StoreError`, never a value.
5. Errors are `StoreError`, with a text of our own: no address's password, and no word of another's error message.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar, Final, Literal, NamedTuple

import msgspec
import orjson

from gai_fast.model.errors import GaiFastError
from gai_fast.stores._base import Claim, Ending, LogHeader
from gai_fast.stores.limits import LIMITS

CLAIMS: Final = "claim"
"""The kind of record that says which stream answers an idempotency key, or is the stream of a chat."""
ANSWERS: Final = "answer"
"""The kind of record that says which stream has a shared answer."""
CANCEL: Final = "cancel"
"""The message that cancels a stream."""

Fault = Literal["slow", "unreachable", "refused", "read_only", "full", "busy", "damaged", "unsuitable"]


class StoreError(GaiFastError):
    """A store that cannot be used. At start the server refuses to run; later it goes on without the store.

    Args:
        fault: The kind of failure: it does not answer a question in time, does not answer at all, does not let us in,
            cannot be written, has no room, is loading or locked, its content is damaged, it is no store of ours.
        text: One line for the operator, without a secret.
    """

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault: Fault = fault


class Record(NamedTuple):
    """Successive pieces of a log, joined.

    Args:
        after: The number of the last event of the record before; 0: it is the first.
        last_seq: The number of the last event in it.
        piece: Whole frames.
    """

    after: int
    last_seq: int
    piece: bytes


class Gap(NamedTuple):
    """The dropped beginning of a log.

    Args:
        lost: The number of the last dropped event.
        text: The visible text since the gap before, or of all that was dropped. None if it is lost.
        is_whole: Whether `text` covers all that was dropped.
    """

    lost: int
    text: str | None
    is_whole: bool


class Change(NamedTuple):
    """A change of one stream's copy. Parts that are `None` stay as they are.

    Args:
        stream_id: The stream's id.
        header: Begins the copy.
        worker: With `header`: the name of the worker that writes.
        records: Are added, in order.
        gap: Records that end up to it are dropped.
        ending: Ends the copy.
        last_seq: With `ending`: the number of the last event.
        keep: Seconds from now for which the copy is kept; given with `header`.
        is_dropped: The copy is removed; nothing else is given.
    """

    stream_id: str
    header: LogHeader | None = None
    worker: str = ""
    records: Sequence[Record] = ()
    gap: Gap | None = None
    ending: Ending | None = None
    last_seq: int = 0
    keep: float | None = None
    is_dropped: bool = False


class News(NamedTuple):
    """The part of a copy after an event.

    Args:
        records: In order; perhaps not all of them.
        ending: How the stream ended; only with its last record, or after it.
        is_damaged: What follows them cannot be read.
        has_more: Whether there may be more by now.
    """

    records: list[Record]
    ending: Ending | None = None
    is_damaged: bool = False
    has_more: bool = False


class Copy(NamedTuple):
    """The durable copy of a log, from its beginning.

    Args:
        header: Describes the stream.
        worker: The name of the worker that writes it.
        lost: The number of the last event that was dropped; 0: none.
        text: The visible text up to `lost`. None if it is lost.
        news: The part after `lost`.
    """

    header: LogHeader
    worker: str
    lost: int
    text: str | None
    news: News


class Records(ABC):
    """Small values that processes share, each by its kind and name. All methods raise `StoreError`."""

    @abstractmethod
    async def get(self, kind: str, name: str) -> bytes | None:
        """Returns the value of a record. None if there is none.

        Args:
            kind: `CLAIMS` or `ANSWERS`.
            name: Its name within the kind.
        """

    @abstractmethod
    async def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str = "") -> None:
        """Writes a record in place of any other.

        Args:
            kind: As for `get`.
            name: As for `get`.
            value: Its value, `limits.record` bytes at most.
            ttl: Seconds for which it is kept. None if it is kept until it is deleted.
            holder: The caller for whom it counts, if records are kept in the memory of a process.

        Raises:
            Overloaded: That memory has no room for another record of this kind.
        """

    @abstractmethod
    async def swap(
        self, kind: str, name: str, old: bytes | None, new: bytes, ttl: float | None, holder: str = ""
    ) -> bytes | None:
        """Writes a record if its value is `old`; atomic over all processes.

        Args:
            kind: As for `get`.
            name: As for `get`.
            old: The value that it must have. None if there must be no record.
            new: Its new value, as for `put`.
            ttl: As for `put`.
            holder: As for `put`.

        Returns:
            The value before the call: the record was written if that equals `old`.

        Raises:
            Overloaded: As `put`.
        """

    @abstractmethod
    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record; returns whether it was there.

        Args:
            kind: As for `get`.
            name: As for `get`.
            old: The value that it must have; another one stays. None if any value is removed.
        """


class Backend(Records):
    """A store outside this process. All methods but `close` raise `StoreError`; none may be called before `open`.

    Attributes:
        is_copy: The logs of this process are copied to it; else others read them from the memory of this process.
        losses: How often the store was found to have lost something that this process had written.
    """

    is_copy: ClassVar[bool] = True
    losses: int = 0

    def beside(self) -> Backend:
        """Returns a backend in the same place for another `Store` of this process."""
        return self

    @abstractmethod
    async def open(self) -> None:
        """Connects, and makes sure that the store can be read and written."""

    @abstractmethod
    async def close(self) -> None:
        """Releases everything."""

    @abstractmethod
    async def write(self, changes: Sequence[Change]) -> Collection[str]:
        """Writes changes, each stream's in order; after a failure all of them may be written again.

        Returns:
            The ids of streams whose copy is not there, so that nothing was written of them: the store has lost it.
        """

    @abstractmethod
    async def load(self, stream_id: str) -> Copy | None:
        """Returns the copy of a log. None if there is none."""

    @abstractmethod
    async def tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, News]:
        """Returns the news of some copies, as soon as there are any; of much the beginning.

        Args:
            positions: By stream id, the number of the last event that is known; `limits.mirror_streams` at most.
            wait: Seconds after which nothing is returned; it may be less.
        """

    @property
    def has_lost(self) -> bool:
        """Whether the store has lost its data so lately that living workers may not have written theirs again."""
        return False

    @abstractmethod
    async def leased(self, workers: Collection[str]) -> Collection[str]:
        """Returns which of the workers have their lease."""

    @abstractmethod
    async def kept(self, stream_ids: Collection[str]) -> Collection[str]:
        """Returns which of the streams have a copy."""

    @abstractmethod
    async def renew(self, worker: str, *, is_behind: bool = False) -> bool:
        """Renews the lease of a worker for `limits.lease_lost` seconds.

        Args:
            worker: The worker's name.
            is_behind: The store may lack streams of the worker, which counts as late until it does not.

        Returns:
            Whether the worker had a lease.
        """

    async def late(self) -> Collection[str]:
        """Returns the workers that have a lease and did not renew it in time. Their streams may not have come here."""
        return ()

    @abstractmethod
    async def give_up(self, worker: str) -> None:
        """Ends the lease of a worker that stops."""

    @abstractmethod
    async def note_followers(self, stream_ids: Collection[str]) -> None:
        """Notes that streams of other workers are followed here, for those workers.

        Args:
            stream_ids: Streams that are not there are left out.
        """

    @abstractmethod
    async def followed_ago(self, stream_id: str) -> float | None:
        """Returns the seconds since followers of a stream were last noted. None if none were.

        Args:
            stream_id: A stream of this worker's own.
        """

    @abstractmethod
    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        """Sends a message about a stream to its worker, which receives it within `limits.message_poll` if it lives.

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
            wait: Seconds after which nothing is returned.

        Returns:
            Stream ids and messages; equal ones that come together once.
        """

    @abstractmethod
    async def sweep(self) -> bool:
        """Removes some copies and records that are past their time; returns whether there are more."""


def checksum(value: bytes, *place: object) -> int:
    """Returns a checksum over a value and its place, so that neither a changed nor a displaced one passes.

    Args:
        value: The bytes.
        place: Where they belong, such as a stream's id and a number.
    """
    return zlib.crc32(value, zlib.crc32(repr(place).encode()))


def check_size(value: bytes) -> None:
    """Checks the size of a record's value.

    Raises:
        StoreError: It is too large.
    """
    if len(value) > LIMITS.record:
        raise StoreError("unsuitable", f"a record of {len(value)} bytes is larger than {LIMITS.record}")


def header_text(header: LogHeader, worker: str) -> bytes:
    """Writes a header, for `read_header`."""
    return orjson.dumps([worker, *header])


def read_header(text: bytes) -> tuple[LogHeader, str]:
    """Returns the header and the worker that `header_text` wrote.

    Raises:
        StoreError: It is something else.
    """
    try:
        worker, *fields = orjson.loads(text)
        return msgspec.convert(fields, LogHeader), msgspec.convert(worker, str)
    except (ValueError, TypeError, msgspec.ValidationError):
        raise StoreError("damaged", "the header of a stream cannot be read") from None


def ending_text(ending: Ending) -> bytes:
    """Writes an end, for `read_ending`."""
    return orjson.dumps([*ending])


def read_ending(text: bytes) -> Ending:
    """Returns the end that `ending_text` wrote.

    Raises:
        StoreError: It is something else.
    """
    try:
        return msgspec.convert(orjson.loads(text), Ending)
    except (ValueError, msgspec.ValidationError):
        raise StoreError("damaged", "the end of a stream cannot be read") from None


def message_text(stream_id: str, message: str) -> str:
    """Writes a message about a stream, for `read_message`.

    A cancel is the stream's id alone: so workers of earlier releases, which know no other message, write and read it.

    Raises:
        StoreError: The message is empty or too long.
    """
    if not 0 < len(message) <= LIMITS.message:
        raise StoreError("unsuitable", f"a message has {len(message)} characters, not 1 to {LIMITS.message}")
    return stream_id if message == CANCEL else f"{stream_id}\n{message}"


def read_message(text: str) -> tuple[str, str]:
    """Returns the stream's id and the message that `message_text` wrote."""
    stream_id, _, message = text.partition("\n")
    return stream_id, message or CANCEL


def claim_text(claim: Claim) -> bytes:
    """Writes a claim, for `read_claim`."""
    return f"{claim.stream_id}\n{claim.fingerprint}\n{claim.at_ms}".encode()


def read_claim(text: bytes) -> Claim:
    """Returns the claim that `claim_text` wrote.

    Raises:
        StoreError: It is something else.
    """
    try:
        stream_id, fingerprint, at_ms = text.decode().split("\n")
        return Claim(stream_id, fingerprint, int(at_ms))
    except ValueError:
        raise StoreError("damaged", "an idempotency key cannot be read") from None


def gap_text(gap: Gap) -> bytes:
    """Writes the text of a gap, for `join_gaps`."""
    if gap.text is None:
        return b"-"
    return (b"=" if gap.is_whole else b"+") + gap.text.encode()


def join_gaps(gaps: Iterable[tuple[int, bytes]]) -> tuple[int, str | None]:
    """Returns the last event of all gaps of a copy, and the text up to it.

    Args:
        gaps: `lost` and what `gap_text` wrote, in any order.
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
