"""Seals a store: one `Backend` around another, so that it holds no words of a caller or a model.

Owns what is sealed, and what a record means that is not as it was written. `sealer.py` has the form, `seals.py` the
keys.

1. A log is sealed whole: header, frames, text of dropped events, end. Its outer header has the stream's id, the digest
   of its caller, the model and the framing; its outer end has the state and the number of the last event.
2. Every part of a log names its neighbour: a record the event before it, a gap the gap before it, the end the last
   event. So a part that is missing is damage, as in `mirror.py`. A log without its end reads as one whose worker died.
3. Records are sealed by their kind and name. The names of idempotency keys and of answers come from secret words: the
   store has them as an HMAC, with a random key that is sealed in the store itself (`_NAMES`). If the store has lost
   that key, a process that knows it writes it again: with another one, keys that are taken would be free.
4. A log that began in plain goes on in plain. A plain log, or a plain record of before, is read, unless keys are
   `required`.
5. A process without keys neither reads nor writes a store that is sealed.
6. Only records without a time to live are sealed again, at the start and when the keys change.
"""

from __future__ import annotations

import hmac
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from os import urandom
from typing import Final, NamedTuple

from gai_fast.model.settings import SealSettings
from gai_fast.stores._base import Ending, LogHeader
from gai_fast.stores.backend import (
    ANSWERS,
    CLAIMS,
    IDS,
    RESPONSES,
    SEAL,
    Backend,
    CopyChange,
    CopyTail,
    LogCopy,
    Owner,
    Record,
    ResponseBudget,
    ResponseRecord,
    SealError,
    StoreError,
    Unwritten,
    check_size,
    join_gaps,
    read_ending,
    read_header,
)
from gai_fast.stores.health import logger
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.sealer import FORMAT, FRAMES, KEY_BYTES, NOBODY, digest_of, is_sealed, place_of
from gai_fast.stores.seals import Seals

_NAMES: Final = "names"
"""The record with the key of rule 3: 32 bytes, then the time at which it was made, in seconds since the epoch."""
_BY_SECRET_WORDS: Final = (CLAIMS, ANSWERS)
_TRIES: Final = 8
"""Attempts to change a record: one fails if another process has changed the record since it was read."""
_ID_SIZE: Final = 16
"""The size of the entries of a record of `IDS`: the size of a sealed one is never a multiple of it."""


class _Known(NamedTuple):
    """The facts that open the records of a log."""

    caller: bytes
    is_sealed: bool


class _Found(NamedTuple):
    """A record in the store. `raw` and `value` are None if there is none."""

    name: str
    raw: bytes | None
    value: bytes | None


class SealedBackend(Backend):
    """A store whose content is sealed.

    Args:
        inner: The store.
        seals: The keys of the process. Without keys everything passes as it is: rule 5.
    """

    def __init__(self, inner: Backend, seals: Seals) -> None:
        self.seals = seals
        self._inner = inner
        self._names_key: bytes | None = None
        self._names_at = b""  # the time of the record `_NAMES`
        self._names_checked = 0.0  # monotonic seconds
        self._plain_until = 0.0  # seconds since the epoch
        self._is_locked = False
        self._is_looked = False  # whether the store was asked for the record of the names' key
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._plain_logs: set[str] = set()  # logs of this process that began without keys: rule 4

    @property
    def spans_machines(self) -> bool:  # type: ignore[override]  # as for the inner one
        """Calls the inner store."""
        return self._inner.spans_machines

    @property
    def losses(self) -> int:  # type: ignore[override]  # the inner one counts
        """Calls the inner store."""
        return self._inner.losses

    @property
    def is_sealed(self) -> bool:  # type: ignore[override]  # it follows from the keys
        """As of `Backend`."""
        return self._is_locked or self.seals.is_short

    @property
    def sealed_errors(self) -> int:  # type: ignore[override]  # the keys count
        """As of `Backend`."""
        return self.seals.errors

    @property
    def has_lost(self) -> bool:
        """Calls the inner store."""
        return self._inner.has_lost

    async def open(self) -> None:
        """Opens the store, and gets the keys.

        Raises:
            StoreError: The store or the keys cannot be used.
        """
        await self.seals.load()
        await self._inner.open()
        await self._look()

    async def close(self) -> None:
        """Closes the store."""
        await self._inner.close()

    async def rotate(self, settings: SealSettings) -> None:
        """Uses other keys from now on. If they cannot be used, the log says why, and nothing changes."""
        if not settings.has_keys and not len(self.seals):
            return
        try:
            await self.seals.use(settings)
        except StoreError as problem:
            logger.error("the keys of the store are not changed: %s", problem)
            return
        try:
            await self._look()
            await self.seal_anew()
        except StoreError as problem:
            logger.error(
                "records without a time to live could not be sealed with the first key of the store: %s", problem
            )

    # -- logs --

    async def write(self, changes: Sequence[CopyChange]) -> Mapping[str, Unwritten]:
        """Writes changes, sealed."""
        if len(self.seals):
            if self._names_key is None and not self.is_sealed:
                await self._make_names_key()  # from then on the store is sealed: rule 5
            plain, seal = self._plain_logs, self.seals.seal_change
            if plain:
                plain.difference_update(change.stream_id for change in changes if change.header is not None)
                written = [change if change.stream_id in plain else seal(change) for change in changes]
            else:
                written = [*map(seal, changes)]
            unwritten = await self._inner.write(written)
        else:
            if self._is_locked and not all(change.is_dropped for change in changes):
                raise self.seals.refuse()
            self._plain_logs.update(change.stream_id for change in changes if change.header is not None)
            unwritten = await self._inner.write(changes)
        if self._plain_logs:
            for change in changes:
                if change.ending is not None or change.is_dropped or change.stream_id in unwritten:
                    self._plain_logs.discard(change.stream_id)
        return unwritten

    async def take_over(
        self, stream_id: str, epoch: int, last_seq: int, header: LogHeader | bytes, worker: str
    ) -> bool:
        """Makes a worker the owner of a copy, or lets it go. The header is sealed again: it names the worker."""
        if stream_id not in self._known:
            await self.load(stream_id)  # a copy of this process
        known = self._known.get(stream_id)
        if known is None:
            return False
        if known.is_sealed and isinstance(header, LogHeader):
            change = CopyChange(stream_id, header, worker, caller=header.caller, epoch=epoch + 1)
            header = self.seals.seal_change(change).header or b""
        is_own = await self._inner.take_over(stream_id, epoch, last_seq, header, worker)
        if is_own and not known.is_sealed:
            self._plain_logs.add(stream_id)  # rule 4
        return is_own

    async def request_of(self, stream_id: str) -> bytes | None:
        """Returns the request of a stream, opened."""
        if stream_id not in self._known:  # this process has written it
            await self.load(stream_id)
        known = self._known.get(stream_id)
        value = None if known is None else await self._inner.request_of(stream_id)
        if value is None or known is None or not known.is_sealed:
            return value
        return self.seals.open(place_of("log.request", stream_id, known.caller), value)

    async def load(self, stream_id: str) -> LogCopy | None:
        """Returns the copy of a log, opened."""
        copy = await self._inner.load(stream_id)
        if copy is None:
            return None
        if copy.header.format != FORMAT:
            self._check_plain()
            self._know(stream_id, _Known(NOBODY, is_sealed=False))
            return copy._replace(news=self._news(stream_id, copy.lost, copy.news))
        caller = _digest(copy.header.caller)
        header, worker = read_header(self._open(place_of("log.header", stream_id, caller), copy.header.request_id))
        if worker != copy.worker or digest_of(header.caller) != caller or header.stream_id != stream_id:
            raise _damaged()
        self._know(stream_id, _Known(caller, is_sealed=True))
        text = self._gaps(stream_id, caller, copy.lost, copy.text)
        news = self._news(stream_id, copy.lost, copy.news)
        return LogCopy(header, worker, copy.lost, text, news, copy.epoch)

    async def tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, CopyTail]:
        """Returns the news of some copies, opened."""
        found = await self._inner.tail(positions, wait)
        news: dict[str, CopyTail] = {}
        for stream_id, each in found.items():
            try:
                if stream_id not in self._known:
                    await self.load(stream_id)
            except StoreError as problem:
                if problem.fault not in ("damaged", "sealed"):
                    raise
                news[stream_id] = _unreadable([], problem)
            if stream_id in self._known:  # else it has been removed
                news[stream_id] = self._news(stream_id, positions[stream_id], each)
        return news

    def _know(self, stream_id: str, known: _Known) -> None:
        self._known[stream_id] = known
        self._known.move_to_end(stream_id)
        if len(self._known) > LIMITS.seal_callers:
            self._known.popitem(last=False)

    def _news(self, stream_id: str, position: int, news: CopyTail) -> CopyTail:
        """Opens news up to the first part that cannot be opened."""
        known = self._known[stream_id]
        records: list[Record] = []
        ending = news.ending
        try:
            for record in news.records:
                records.append(self._record(stream_id, known, record))  # noqa: PERF401  # those before an error count
            if ending is not None:
                reached = records[-1].last_seq if records else position
                ending = self._ending(stream_id, known, ending, reached)
        except StoreError as problem:
            return _unreadable(records, problem)
        return news._replace(records=records, ending=ending)

    def _record(self, stream_id: str, known: _Known, record: Record) -> Record:
        if not known.is_sealed:
            if is_sealed(record.piece):
                raise _damaged()
            return record
        place = place_of(FRAMES, stream_id, known.caller, record.after, record.last_seq)
        return Record(record.after, record.last_seq, self.seals.open(place, record.piece))

    def _ending(self, stream_id: str, known: _Known, ending: Ending, reached: int) -> Ending:
        outer = ending.error or {}
        text, last_seq = outer.get("sealed"), outer.get("last_seq")
        if not known.is_sealed:
            if text is not None:
                raise _damaged()
            return ending
        if not isinstance(text, str) or not isinstance(last_seq, int) or last_seq != reached:
            raise _damaged()  # a former owner's end has another number
        place = place_of("log.end", stream_id, known.caller, number=last_seq, is_last=True)
        return read_ending(self._open(place, text))

    def _gaps(self, stream_id: str, caller: bytes, lost: int, joined: str | None) -> str | None:
        """Returns the text of the dropped events. Each gap names the gap that it continues: rule 2."""
        if not lost and joined == "":
            return ""
        *tokens, rest = (joined or "").split(";")
        gaps: list[tuple[int, bytes]] = []
        reached = 0
        for token in tokens:
            try:
                after, number, text = token.split(":")
                place = place_of("log.text", stream_id, caller, int(after), int(number))
            except ValueError:
                raise _damaged() from None
            opened = self._open(place, text)
            if opened[:1] == b"+" and int(after) != reached:
                raise _damaged()
            reached = int(number)
            gaps.append((reached, opened))
        if rest or reached != lost:
            raise _damaged()
        return join_gaps(gaps)[1]

    def _open(self, place: bytes, text: str) -> bytes:
        try:
            sealed = b64decode(text, validate=True)
        except ValueError:
            raise _damaged() from None
        return self.seals.open(place, sealed)

    def _check_plain(self) -> None:
        """Raises `StoreError` if plain records do not count."""
        if len(self.seals) and self.seals.is_required:
            raise SealError(
                "damaged", "a record of the store is not sealed, and `required` in [store.encryption] is set"
            )

    # -- records --

    async def get(self, kind: str, name: str) -> bytes | None:
        """Returns the value of a record. None if there is none."""
        return (await self._find(kind, name)).value

    async def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str = "") -> None:
        """Writes a record."""
        check_size(value)
        place = (await self._places(kind, name))[0]
        await self._inner.put(kind, place, self._seal_record(kind, place, value), ttl, holder)

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
        """Writes a record if its value is `old`."""
        check_size(new)
        if not len(self.seals):
            [place] = await self._places(kind, name)
            raw = await self._inner.swap(
                kind, place, old, self._seal_record(kind, place, new), ttl, holder, is_synced=is_synced
            )
            return None if raw is None else self._open_record(kind, place, raw)
        for _ in range(_TRIES):
            found = await self._find(kind, name, is_new=old is None)
            if found.value != old:
                return found.value
            sealed = self._seal_record(kind, found.name, new)
            raw = await self._inner.swap(kind, found.name, found.raw, sealed, ttl, holder, is_synced=is_synced)
            if raw == found.raw:
                return old
            if raw is not None and old is None:
                return self._open_record(kind, found.name, raw)
        raise StoreError("busy", "a record of the store is changed by others all the time")

    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record."""
        if old is None or not len(self.seals):
            return any([await self._inner.delete(kind, place, old) for place in await self._places(kind, name)])
        for _ in range(_TRIES):
            found = await self._find(kind, name)
            if found.value != old:
                return False
            if await self._inner.delete(kind, found.name, found.raw):
                return True
        raise StoreError("busy", "a record of the store is changed by others all the time")

    async def lasting(self) -> Collection[tuple[str, str]]:
        """Returns kind and name of the records without a time to live."""
        return [place for place in await self._inner.lasting() if place[0] != SEAL]

    async def _find(self, kind: str, name: str, *, is_new: bool = False) -> _Found:
        """Finds a record.

        Args:
            kind: As for `get`.
            name: As for `get`.
            is_new: Whether there is probably no record: its first place is not read.
        """
        places = await self._places(kind, name)
        for place in places[1:] if is_new else places:
            raw = await self._inner.get(kind, place)
            if raw is not None:
                return _Found(place, raw, self._open_record(kind, place, raw))
        return _Found(places[0], None, None)

    async def _places(self, kind: str, name: str) -> list[str]:
        """Returns the names that a record may have in the store, the one for new records first: rule 3."""
        if kind not in _BY_SECRET_WORDS:
            return [name]
        if not len(self.seals):
            if self._is_locked:
                raise self.seals.refuse()
            return [name]
        if self._names_key is None:
            await self._make_names_key()
        if self._names_key is None:
            raise self.seals.refuse()
        secret = hmac.digest(self._names_key, f"{kind}\n{name}".encode(), "sha256").hex()
        return [secret, name] if time.time() < self._plain_until else [secret]

    def _seal_record(self, kind: str, name: str, value: bytes) -> bytes:
        if not len(self.seals) and not self._is_locked:
            return value
        return self.seals.seal(place_of(f"record.{kind}", name), value)

    def _open_record(self, kind: str, name: str, raw: bytes) -> bytes:
        if not is_sealed(raw) or (kind == IDS and len(raw) % _ID_SIZE == 0):
            self._check_plain()
            return raw
        return self.seals.open(place_of(f"record.{kind}", name), raw)

    # -- kept responses --

    async def keep_response(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response, sealed."""
        if len(self.seals) and self._names_key is None and not self.is_sealed:
            await self._make_names_key()  # from then on the store is sealed: rule 5
        sealed = self._seal_record(RESPONSES, record.name, record.value)
        return await self._inner.keep_response(record._replace(value=sealed), ttl, budget)

    async def read_responses(self, names: Sequence[str], turns: int, most: int) -> Sequence[tuple[str, bytes]]:
        """Returns kept responses, opened."""
        found = await self._inner.read_responses(names, turns, most)
        return [(name, self._open_record(RESPONSES, name, value)) for name, value in found]

    async def responses_with(self, items: Mapping[str, str]) -> Mapping[str, str]:
        """Calls the inner store, which has digests alone."""
        return await self._inner.responses_with(items)

    async def delete_response(self, name: str) -> bool:
        """Calls the inner store."""
        return await self._inner.delete_response(name)

    # -- the store's own records --

    async def _look(self) -> None:
        """Reads the key of the names, if there is one: rules 3 and 5."""
        try:
            raw = await self._inner.get(SEAL, _NAMES)
            self._is_locked = raw is not None
            if raw is not None:
                self._read_names_key(raw)
        except StoreError as problem:
            if problem.fault == "damaged":
                text = "its record `seal:names`, by which idempotency keys are found, is damaged"
                raise StoreError("damaged", f"{text}: put it back, or remove it, which frees those keys") from None
            if problem.fault != "sealed":
                raise

    async def _make_names_key(self) -> None:
        """Makes the key of the names, or reads it if another process has made it."""
        key = urandom(KEY_BYTES) + int(time.time()).to_bytes(8, "big")
        new = self.seals.seal(place_of(f"record.{SEAL}", _NAMES), key)
        found = await self._inner.swap(SEAL, _NAMES, None, new, None)
        self._read_names_key(new if found is None else found)

    def _read_names_key(self, raw: bytes) -> None:
        value = self.seals.open(place_of(f"record.{SEAL}", _NAMES), raw)
        self._names_key, self._names_at = value[:KEY_BYTES], value[KEY_BYTES:]
        self._plain_until = int.from_bytes(self._names_at, "big") + LIMITS.plain_kept
        self._is_locked = False

    async def _keep_names_key(self, names_key: bytes) -> None:
        """Writes the key of the names again if the store has lost it. Another process's key counts from now on."""
        self._names_checked = time.monotonic()
        raw = await self._inner.get(SEAL, _NAMES)
        if raw is None:
            new = self.seals.seal(place_of(f"record.{SEAL}", _NAMES), names_key + self._names_at)
            raw = await self._inner.swap(SEAL, _NAMES, None, new, None) or new
        try:
            self._read_names_key(raw)
        except StoreError as problem:
            logger.error("the key of the names in the store cannot be read: %s", problem)

    async def seal_anew(self) -> None:
        """Seals records without a time to live with the first key: rule 6."""
        if not len(self.seals):
            if self._is_locked:
                logger.error("the store is sealed, and [store.encryption] has no keys: nothing is read or kept")
            return
        left: list[StoreError] = []
        for kind, name in await self._inner.lasting():
            try:
                raw = await self._inner.get(kind, name)
                if raw is not None and not self.seals.is_current(raw):
                    value = self._open_record(kind, name, raw)
                    await self._inner.swap(kind, name, raw, self._seal_record(kind, name, value), None)
            except StoreError as problem:
                if problem.fault not in ("damaged", "sealed"):
                    raise
                left.append(problem)
        if left:
            logger.error("records of the store that are not sealed again: %d: %s", len(left), left[0])

    # -- as they are --

    async def leased(self, workers: Collection[str]) -> Collection[str]:
        """Calls the inner store."""
        return await self._inner.leased(workers)

    async def kept(self, stream_ids: Collection[str]) -> Mapping[str, Owner]:
        """Calls the inner store."""
        return await self._inner.kept(stream_ids)

    async def renew(self, worker: str, *, is_behind: bool = False) -> bool:
        """Calls the inner store; looks after the key of the names, above all if the store has lost data."""
        had_lease = await self._inner.renew(worker, is_behind=is_behind)
        is_due = not had_lease or time.monotonic() - self._names_checked >= LIMITS.names_checked
        if self._names_key is not None and len(self.seals) and is_due:
            await self._keep_names_key(self._names_key)
        return had_lease

    async def late(self) -> Collection[str]:
        """Calls the inner store."""
        return await self._inner.late()

    async def give_up(self, worker: str) -> None:
        """Calls the inner store."""
        await self._inner.give_up(worker)

    async def note_followers(self, stream_ids: Collection[str]) -> None:
        """Calls the inner store."""
        await self._inner.note_followers(stream_ids)

    async def followed_ago(self, stream_id: str) -> float | None:
        """Calls the inner store."""
        return await self._inner.followed_ago(stream_id)

    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        """Calls the inner store: a message holds no words of a caller."""
        await self._inner.tell(worker, stream_id, message)

    async def messages(self, worker: str, wait: float) -> Collection[tuple[str, str]]:
        """Calls the inner store."""
        return await self._inner.messages(worker, wait)

    async def sweep(self) -> bool:
        """Calls the inner store."""
        return await self._inner.sweep()


def _digest(text: str) -> bytes:
    """Returns the digest of a caller in an outer header."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != len(digest_of("")):
        raise _damaged()
    return digest


def _unreadable(records: list[Record], problem: StoreError) -> CopyTail:
    """Returns news whose part after some records cannot be opened."""
    return CopyTail(records, is_damaged=problem.fault == "damaged", is_sealed=problem.fault == "sealed")


def _damaged() -> StoreError:
    return StoreError("damaged", "a sealed log of the store is damaged")
