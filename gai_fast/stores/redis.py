"""`redis://…`, `rediss://…`: durable copies in Redis 7 or Valkey, for the workers of several machines.

Owns the keys, and what is written and read under each. `redis_client.py` has the connections.

| key | holds |
|---|---|
| `gai:{<stream id>}:log` | a Redis stream: entry `0-1` is its mark, `<last_seq>-0` a record, the end is |
| | `<last_seq>-2`, or its epoch + 1 for the 2; after the first epoch `gai:{<stream id>}:log:<epoch>` |
| | the field `sum` of a record or an end is a checksum over its bytes and place; sealed records need none |
| `gai:{<stream id>}:head` | a hash: `header` and its `sum`, `gap:<lost>` for dropped events and its `sum:<lost>`, |
| | `worker` and `epoch`: the copy's owner; |
| | `followed`: the time at which the stream was last followed |
| `gai:{<stream id>}:request` | the request of a stream that has not ended, with a checksum as a record has |
| `gai:<kind>:<name>` | a record: its value, a line end, and a checksum over value and place in eight hex digits |
| `gai:lasting` | a set: `<kind>:<name>` of the records without a time to live; some may be gone |
| `gai:worker:<name>` | a worker's lease |
| `gai:workers` | a sorted set: when each worker renewed its lease, by the server's clock |
| `gai:cancel:<name>` | a list: the messages to a worker; a stream's id alone cancels the stream |
| `gai:{responses}:one:<name>` | a kept response, a hash: `value`, with a checksum as a record has; `parent`; |
| | `member`; `items`: the digests of its items; `until`: when it expires, in milliseconds since the epoch |
| `gai:{responses}:all`, `…:of:<caller>` | sorted sets: the members of all, and of a caller, by their age |
| `gai:{responses}:due` | a sorted set: the members by the time at which they expire |
| `gai:{responses}:items` | a sorted set: `<item><age><name>` of each item, with an age of 16 digits |
| `gai:{responses}:sizes` | a hash: the bytes of each caller, and of all under an empty name |

1. One command or script creates a key together with its time to live. A record may have no time to live.
2. The keys of one stream share a hash tag, and no command names the keys of two streams, so a cluster works too.
3. The gateway never cancels a pipeline. The library closes a connection with unread replies, so a reply is never
   matched to another command.
4. The server's `appendonly` and `appendfsync` decide how much data survives its failure.
5. A server that evicts keys may evict one of a copy's two keys. A lookup that finds one key alone removes it. A worker
   that still runs the stream then finds the copy missing with its next piece, and writes it again from its memory.
6. If the server does not have the lease of this process, it has lost its data (it was restarted or emptied). The other
   workers have lost their leases too, and write their streams again. For the duration of a lease after the loss no
   stream counts as unknown, and a worker counts as gone only once it has been without a lease for as long. Another loss
   restarts that time.
7. A lease counts the writes of its process. If the server's count is lower than the process's, the server has
   lost writes: it may be a replica that replaced its master before it had received everything. The count is checked
   before the first write over a new connection, so no copy gets a hole. In a cluster the lease is on one node, so the
   count is checked with the next write only.
8. Kept responses share one hash tag: budgets of all callers are exact because each call is one script
   (`responses.lua`), which the server carries out at once or not at all. A member is `<name>:<caller>:<size>:<age>`;
   the newest has the largest age. What has expired is not found. A gateway removes it, with its bytes; without a
   gateway its key expires `limits.response_grace` later. What a server evicts counts until it would have expired.
9. Copies and claims of earlier releases lack some of the checksums, and are read without them. Their heads lack the
   owner, so they are never taken over.
10. `XADD` cannot compare. So the key of a log has the epoch in its name: a take-over renames it, and a former owner's
   `XADD` finds no key. All other writes of a copy are scripts that compare the owner in the head; so are those of
   records after the first epoch, which may have two owners if the server has lost a take-over. A copy that is not found
   under its key counts as missing; only the script that begins a copy finds that it has another owner.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from gai_fast.model.limits import SHARED
from gai_fast.model.settings import StoreSettings
from gai_fast.model.version import installing
from gai_fast.stores._base import LogHeader
from gai_fast.stores.backend import (
    CLAIMS,
    LAST_EPOCH,
    RESPONSES,
    Backend,
    CopyChange,
    CopyTail,
    LogCopy,
    Owner,
    Record,
    ResponseBudget,
    ResponseRecord,
    StoreError,
    Unwritten,
    check_size,
    checksum,
    ending_text,
    gap_text,
    header_text,
    join_gaps,
    message_text,
    read_ending,
    read_header,
    read_message,
)
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.redis_client import SENTINEL, Command, RedisClient, Script, code_of

URL: Final = "redis://127.0.0.1:6379/0"

_Item = TypeVar("_Item")
_Entry = tuple[bytes, Mapping[bytes, bytes]]

_PRINTABLE: Final = re.compile(r"[!-~]+")
_DATABASE: Final = re.compile(r"/?|/[0-9]{1,5}")
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""Parameters of a URL that the client library reads: paths of certificate files."""
_IS_OWN: Final = """\
local owner = redis.call('HMGET', KEYS[1], 'worker', 'epoch')
if owner[1] ~= ARGV[1] or owner[2] ~= ARGV[2] then return nil end
"""
"""The beginning of scripts that write a copy: ends them if the head is gone, or names another owner."""
_LOG_KEY: Final = """\
local function log_key(prefix, epoch)
  if epoch and tonumber(epoch) > 1 then return prefix .. ':' .. epoch end
  return prefix
end
"""
_REFUSED: Final = -1
_BEGIN: Final = (
    _LOG_KEY
    + """\
local owner = redis.call('HMGET', KEYS[1], 'worker', 'epoch')
if owner[2] then
  local epoch, own = tonumber(owner[2]), tonumber(ARGV[2])
  if epoch > own or (epoch == own and owner[1] ~= ARGV[1]) then return -1 end
  if epoch < own then redis.call('DEL', KEYS[1], log_key(ARGV[6], owner[2])) end
end
redis.call('HSET', KEYS[1], 'header', ARGV[3], 'sum', ARGV[5], 'worker', ARGV[1], 'epoch', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if redis.call('TYPE', KEYS[2]).ok == 'stream' then redis.call('DEL', KEYS[2]) end
redis.call('XADD', KEYS[2], '0-1', 'begun', '1')
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[7], 'PX', ARGV[4]) end
return redis.call('PEXPIRE', KEYS[2], ARGV[4])"""
)
"""Begins a copy, and deletes the rest of an earlier one. No other command creates the keys of a copy. If the server
has lost the log, adding a record or an end fails; if it has lost the head, adding a gap fails. The reply shows it."""
_TAKE_OVER: Final = (
    _LOG_KEY
    + """\
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch ~= ARGV[2] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local seq = 0
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if last then
  if last[2][1] == 'ending' then return 0 end
  seq = tonumber(string.match(last[1], '%d+'))
end
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local lost = string.match(name, '^gap:(.*)')
  if lost then seq = math.max(seq, tonumber(lost) or 0) end
end
if seq ~= tonumber(ARGV[3]) then return 0 end
if ARGV[1] == '' then
  redis.call('HSET', KEYS[1], 'header', ARGV[4], 'sum', ARGV[5], 'worker', '')
  return 1
end
local own = string.format('%.0f', tonumber(epoch) + 1)
redis.call('HSET', KEYS[1], 'header', ARGV[4], 'sum', ARGV[5], 'worker', ARGV[1], 'epoch', own)
redis.call('RENAME', KEYS[2], log_key(ARGV[6], own))
return 1"""
)
"""Makes a worker the owner, if the copy is as it was read: the epoch, and the last number of an entry or a gap. Without
a worker, the owner lets the copy go: the key of its log stays. An end that the server has lost counts as none."""
_ADD: Final = (
    _IS_OWN
    + """\
return redis.call('XADD', KEYS[2], 'NOMKSTREAM', unpack(ARGV, 3))"""
)
"""Adds a record or an end after the first epoch: rule 10."""
_LIFE: Final = (
    _IS_OWN
    + """\
if redis.call('PEXPIRE', KEYS[2], ARGV[3]) == 0 then return nil end
if KEYS[3] then redis.call('PEXPIRE', KEYS[3], ARGV[3]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])"""
)
_FORGET_REQUEST: Final = (
    _IS_OWN
    + """\
return redis.call('UNLINK', KEYS[2])"""
)
_DROP: Final = """\
local owner = redis.call('HMGET', KEYS[1], 'worker', 'epoch')
if owner[2] and (owner[1] ~= ARGV[1] or owner[2] ~= ARGV[2]) then return 0 end
return redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])"""
"""Removes a copy for its owner."""
_DROP_ANY: Final = (
    _LOG_KEY
    + """\
return redis.call('UNLINK', KEYS[1], KEYS[2], log_key(ARGV[1], redis.call('HGET', KEYS[1], 'epoch')))"""
)
_OWNER: Final = (
    _LOG_KEY
    + """\
local owner = redis.call('HMGET', KEYS[1], 'worker', 'epoch')
local log = log_key(ARGV[1], owner[2])
if redis.call('EXISTS', KEYS[1], log) < 2 then return nil end
local facts = redis.call('XINFO', 'STREAM', log)
for place = 1, #facts, 2 do
  if facts[place] == 'last-generated-id' then
    local id = facts[place + 1]
    if tonumber(string.match(id, '%d+$')) > 1 and not redis.call('XRANGE', log, id, id)[1] then return nil end
  end
end
return {owner[1] or '', owner[2] or '0'}"""
)
"""Returns the owner of a copy that has both of its keys, and its end if that was written."""
_GAP: Final = (
    _IS_OWN
    + """\
if string.sub(ARGV[4], 1, 1) ~= '+' then
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    local lost = string.match(name, '^gap:(.*)') or string.match(name, '^sum:(.*)')
    if lost and (tonumber(lost) or 0) < tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], name) end
  end
end
redis.call('HSET', KEYS[1], 'gap:' .. ARGV[3], ARGV[4], 'sum:' .. ARGV[3], ARGV[6])
return redis.call('XTRIM', KEYS[2], 'MINID', ARGV[5])"""
)
"""Drops the records up to an event. A gap with the whole text, or without text, replaces the gaps before it."""
_FOLLOWED: Final = """\
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now = redis.call('TIME')
return redis.call('HSET', KEYS[1], 'followed', string.format('%.0f', now[1] * 1000 + now[2] / 1000))"""
_FOLLOWED_AGO: Final = """\
local at = redis.call('HGET', KEYS[1], 'followed')
if not at then return nil end
local now = redis.call('TIME')
return now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(at)"""
"""Milliseconds by the server's clock, because the clocks of two machines may differ."""
_COUNT: Final = """\
local count = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return count"""
"""Renews a lease, and counts the call: rule 7."""
_PRESENT: Final = """\
local now = redis.call('TIME')
local at = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], at - ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', at - ARGV[3])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])"""
"""Notes that a worker renews its lease, and removes workers whose lease has expired."""
_LATE: Final = """\
local now = redis.call('TIME')
local at = now[1] * 1000 + math.floor(now[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], at - ARGV[2], at - ARGV[1])"""
_WORKERS: Final = "gai:workers"
_LASTING: Final = "gai:lasting"
_REMOVE_HALF: Final = (
    _LOG_KEY
    + """\
local log = log_key(ARGV[1], redis.call('HGET', KEYS[1], 'epoch'))
if redis.call('EXISTS', KEYS[1], log) == 1 then redis.call('UNLINK', KEYS[1], log) end"""
)
"""Checks again that one key exists: the copy may have begun, or been removed, since it was read."""
_SWAP: Final = """\
local found = redis.call('GET', KEYS[1])
if found == ARGV[1] or found == ARGV[2] then
  if ARGV[3] then redis.call('SET', KEYS[1], unpack(ARGV, 3)) else redis.call('DEL', KEYS[1]) end
end
return found"""
"""Changes a record if it has one of two values."""
_RESPONSES: Final = "gai:{responses}:"
"""The beginning of the keys of kept responses."""
_SCRIPT: Final = Script(files("gai_fast.stores").joinpath("responses.lua").read_text())
_KEY: Final = f"{_RESPONSES}all"
_CHECK: Final = 9
"""Bytes of the checksum that follows the value of a record."""
_LINE_ENDS: Final = 2
"""Line ends in a claim without a checksum."""
_MARK: Final = b"0-1"
"""The number of a copy's first entry."""
_NUMBERS: Final = 1 << 63
"""Exclusive upper bound of the numbers of entries."""
_EPOCH: Final = 16
"""The most digits of an epoch (`LAST_EPOCH`)."""
_WITHOUT_COPY: Final = frozenset(("XADD", "EVAL"))
"""Commands whose reply is null if the copy does not exist."""


class RedisBackend(Backend):
    """The copies in a Redis server or a cluster.

    Args:
        url: `redis://[user[:password]@]host[:port][/database]`, or `rediss://…` for TLS. With `?sentinel=NAME` the host
            is a Sentinel that has the address of the server `NAME`.
    """

    spans_machines = True

    def __init__(self, url: str) -> None:
        self.client = RedisClient(url, self._greet)
        self._responses = _Responses(self.client)
        self._worker: str | None = None  # the worker whose lease this process renews
        self._lost_at = -math.inf  # when the server was last found without that lease
        self._count = 0  # the count of that lease in the server's last reply: rule 7
        self._epochs: OrderedDict[str, int] = OrderedDict()  # of copies that were taken over and are read here
        self._missing: dict[str, float] = {}  # workers without a lease since a loss, and when each was first found so

    async def open(self) -> None:
        """Connects; as `RedisClient.open`."""
        # Fails if the server cannot be written.
        await self.client.open("SET", _lease(""), "1", "PX", int(SHARED.lease_lost * 1000))

    async def close(self) -> None:
        """Closes every connection."""
        await self.client.close()

    async def write(self, changes: Sequence[CopyChange]) -> Mapping[str, Unwritten]:
        """Writes changes in concurrent pipelines of `limits.store_pipeline` changes each."""
        unwritten: dict[str, Unwritten] = {}

        async def write(some: Sequence[CopyChange]) -> None:
            commands = [(change.stream_id, command) for change in some for command in _commands(change)]
            before = self._count
            count, *replies = await self.client.pipeline(
                self.client.journal, [self._counting(self._worker or ""), *(command for _, command in commands)], None
            )
            if not isinstance(count, Exception):  # a full server refuses to count, but still removes copies
                self._note_count(count, before)
            for (stream_id, command), reply in zip(commands, replies, strict=True):
                if isinstance(reply, Exception):
                    # THERE: an earlier pipeline, whose replies were lost, has written it.
                    if code_of(reply) != "THERE":
                        raise self.client.error(reply)
                elif reply == _REFUSED:
                    unwritten[stream_id] = "refused"
                elif reply is None and command[0] in _WITHOUT_COPY:
                    unwritten.setdefault(stream_id, "missing")

        await _in_parts(changes, write)
        return unwritten

    async def take_over(
        self, stream_id: str, epoch: int, last_seq: int, header: LogHeader | bytes, worker: str
    ) -> bool:
        """Makes a worker the owner of a copy, or lets it go: rule 10."""
        text = header_text(header, worker)
        keys = _head(stream_id), _log(stream_id, epoch)
        values = worker, epoch, last_seq, text, checksum(text, stream_id, "header"), _log(stream_id)
        async with self.client.turn():
            is_own = bool(await self.client.ask("EVAL", _TAKE_OVER, 2, *keys, *values))
        if is_own and worker:
            self._note_epoch(stream_id, epoch + 1)
        return is_own

    async def request_of(self, stream_id: str) -> bytes | None:
        """Returns the request of a stream that has not ended."""
        async with self.client.turn():
            found: bytes | None = await self.client.ask("GET", _request(stream_id))
        if found is None:
            return None
        value = found[:-_CHECK]
        if found[-_CHECK:] != _check_of_request(value, stream_id):
            raise StoreError("damaged", "the request of a stream is damaged")
        return value

    def _note_epoch(self, stream_id: str, epoch: int) -> None:
        """Remembers the epoch of a copy, which is in the name of its log."""
        if epoch > 1:
            self._epochs[stream_id] = epoch
            self._epochs.move_to_end(stream_id)
            if len(self._epochs) > LIMITS.store_epochs:
                self._epochs.popitem(last=False)
        else:
            self._epochs.pop(stream_id, None)

    async def load(self, stream_id: str) -> LogCopy | None:
        """Returns the copy of a log, or the first part of a long copy."""
        while True:
            epoch = self._epochs.get(stream_id, 1)
            read: list[Command] = [
                ("HGETALL", _head(stream_id)),
                ("XRANGE", _log(stream_id, epoch), "-", "+", "COUNT", LIMITS.store_entries),
                ("EXISTS", _head(stream_id), _log(stream_id, epoch)),
                ("EXISTS", _lease(self._worker or "")),
            ]
            async with self.client.turn():
                replies = await self.client.pipeline(self.client.others, read)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise self.client.error(reply)
            fields, entries, there, has_lease = replies
            if self._worker is not None and not has_lease:
                self._lost_at = time.monotonic()
            found = _read_epoch(fields.get(b"epoch"))
            if max(found, 1) == epoch:
                break
            self._note_epoch(stream_id, found)  # its log has another name: each epoch is read once
        if there == 1:
            await self._remove_half(stream_id)
        if there < 2 or b"header" not in fields:
            return None
        header, worker = read_header(_checked(fields, b"header", b"sum", stream_id, "header"))
        try:
            lost, text = join_gaps(_gaps(fields, stream_id))
        except ValueError:
            raise StoreError("damaged", "the gaps of a stream cannot be read") from None
        if not 0 <= lost < _NUMBERS:  # as a position it makes the server refuse `tail`, for the other streams too
            raise StoreError("damaged", "the gaps of a stream have a number that no event has")
        return LogCopy(header, worker, lost, text, _news(entries, stream_id, LIMITS.store_entries, lost), found)

    async def tail(self, positions: Mapping[str, int], wait: float) -> Mapping[str, CopyTail]:
        """Returns the news of some copies. A server replies as soon as there are any; a cluster's nodes are polled."""
        count = max(LIMITS.store_entries_least, LIMITS.store_entries // len(positions))
        if self.client.is_cluster:
            await asyncio.sleep(min(wait, SHARED.store_poll))
            read: list[Command] = [
                ("XREAD", "COUNT", count, "STREAMS", self._key(stream_id), f"{after}-0")
                for stream_id, after in positions.items()
            ]
            replies = await self.client.pipeline(self.client.others, read)
        else:
            keys = [*map(self._key, positions)]
            after = [f"{last_seq}-0" for last_seq in positions.values()]
            block = ("BLOCK", max(1, int(wait * 1000))) if wait else ()
            command = ("XREAD", "COUNT", count, *block, "STREAMS", *keys, *after)
            replies = [
                await self.client.call(lambda: self.client.others.execute_command(*command), wait + LIMITS.store_answer)
            ]
        news: dict[str, CopyTail] = {}
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.client.error(reply)
            for key, entries in reply or ():
                stream_id = key[5:].partition(b"}")[0].decode()
                news[stream_id] = _news(entries, stream_id, count, positions[stream_id])
        return news

    async def leased(self, workers: Collection[str]) -> Collection[str]:
        """Returns the workers that have their lease, or may have lost it with the server's data: rule 6."""
        own = set() if self._worker is None else {self._worker}
        there = await self._with_lease({*workers, *own})
        if not own <= there:
            self._lost_at = time.monotonic()
        if not self.has_lost:
            self._missing.clear()
            return there.intersection(workers)
        now = time.monotonic()
        for worker in there:
            self._missing.pop(worker, None)
        return {
            each for each in workers if now - self._missing.setdefault(each, now) < SHARED.lease_lost or each in there
        }

    async def kept(self, stream_ids: Collection[str]) -> Mapping[str, Owner]:
        """Returns the streams that have both keys of a copy, and its owner."""
        owners: dict[str, Owner] = {}

        async def ask(some: Sequence[str]) -> None:
            asked: list[Command] = [("EVAL", _OWNER, 1, _head(each), _log(each)) for each in some]
            async with self.client.turn():
                replies = await self.client.pipeline(self.client.others, asked)
            for stream_id, reply in zip(some, replies, strict=True):
                if isinstance(reply, Exception):
                    raise self.client.error(reply)
                if reply is not None:
                    owners[stream_id] = owner = Owner(reply[0].decode(errors="replace"), _read_epoch(reply[1]))
                    self._note_epoch(stream_id, owner.epoch)

        await _in_parts([*stream_ids], ask)
        return owners

    def _key(self, stream_id: str) -> str:
        """Returns the key of a log, at the epoch that is known here."""
        return _log(stream_id, self._epochs.get(stream_id, 1))

    @property
    def has_lost(self) -> bool:
        """Whether the server has lost its data less than a lease ago: living workers may not have renewed theirs."""
        return time.monotonic() - self._lost_at < SHARED.lease_lost

    async def _remove_half(self, stream_id: str) -> None:
        """Removes the remaining key of a copy if the server has evicted the other: rule 5."""
        remove = ("EVAL", _REMOVE_HALF, 1, _head(stream_id), _log(stream_id))
        async with self.client.turn():
            await self.client.ask(*remove)

    async def _with_lease(self, workers: Collection[str]) -> set[str]:
        """Returns the workers whose lease exists."""
        there: set[str] = set()

        async def ask(some: Sequence[str]) -> None:
            async with self.client.turn():
                replies = await self.client.pipeline(self.client.others, [("EXISTS", _lease(each)) for each in some])
            for worker, reply in zip(some, replies, strict=True):
                if isinstance(reply, Exception):
                    raise self.client.error(reply)
                if reply:
                    there.add(worker)

        await _in_parts([*workers], ask)
        return there

    async def late(self) -> Collection[str]:
        """Returns the workers that did not renew their lease in time."""
        times = int(LIMITS.lease_late * 1000), int(SHARED.lease_lost * 1000)
        async with self.client.turn():
            found = await self.client.ask("EVAL", _LATE, 1, _WORKERS, *times)
        return [worker.decode(errors="replace") for worker in found]

    async def renew(self, worker: str, *, is_behind: bool = False) -> bool:
        """Renews a lease; returns whether the server had the lease."""
        lease = int(SHARED.lease_lost * 1000)
        age = int(LIMITS.lease_late * 1000) if is_behind else 0
        if worker != self._worker:
            self._worker, self._count = None, 0
        before = self._count
        commands: list[Command] = [
            self._counting(worker),
            ("EVAL", _PRESENT, 1, _WORKERS, worker, age, lease),
        ]
        replies = await self.client.pipeline(self.client.journal, commands, None)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.client.error(reply)
        self._note_count(replies[0], before)
        self._worker = worker
        return bool(replies[0] > 1)

    def _counting(self, worker: str) -> Command:
        """Returns the command that renews a worker's lease, and counts the call."""
        return ("EVAL", _COUNT, 1, _lease(worker), int(SHARED.lease_lost * 1000))

    def _note_count(self, count: int, before: int) -> None:
        """Records a loss if the server's count is not above the last known one: rule 7.

        Args:
            count: The count in the server's reply.
            before: The last known count at the time of the request.
        """
        if count > before:
            self._count = max(self._count, count)
        elif self._worker is not None:
            self.losses += 1
            self._count = count
            self._lost_at = time.monotonic()

    async def _greet(self, connection: Any) -> None:
        """Checks over a new connection that the server still has all that was written: rule 7.

        Raises:
            redis.ConnectionError: The server has lost writes. The error keeps the connection's first command from being
                sent.
        """
        from redis.exceptions import ConnectionError as RedisConnectionError

        await connection.on_connect()
        if self._worker is None:
            return
        before = self._count
        await connection.send_command("GET", _lease(self._worker))
        count = int(await connection.read_response() or 0)
        if count < before:
            self._note_count(count, before)
            raise RedisConnectionError("the server has lost its last writes")

    async def give_up(self, worker: str) -> None:
        """Ends a lease."""
        self._worker = None
        commands: list[Command] = [("DEL", _lease(worker)), ("ZREM", _WORKERS, worker)]
        await self.client.pipeline(self.client.journal, commands, None)

    async def note_followers(self, stream_ids: Collection[str]) -> None:
        """Notes that streams are followed here."""

        async def note(some: Sequence[str]) -> None:
            async with self.client.turn():
                replies = await self.client.pipeline(
                    self.client.others, [("EVAL", _FOLLOWED, 1, _head(each)) for each in some]
                )
            for reply in replies:
                if isinstance(reply, Exception) and (error := self.client.error(reply)).fault != "damaged":
                    raise error  # nothing is noted for a damaged or missing copy

        await _in_parts([*stream_ids], note)

    async def followed_ago(self, stream_id: str) -> float | None:
        """Returns the seconds since followers of a stream were last noted."""
        ask = ("EVAL", _FOLLOWED_AGO, 1, _head(stream_id))
        async with self.client.turn():
            ago = await self.client.ask(*ask)
        return None if ago is None else max(0, int(ago)) / 1000

    async def tell(self, worker: str, stream_id: str, message: str) -> None:
        """Sends a message to a worker. The message list of a gone worker expires after `limits.note_life`."""
        key = _messages(worker)
        ask: list[Command] = [
            ("RPUSH", key, message_text(stream_id, message)),
            ("LTRIM", key, -LIMITS.messages, -1),
            ("PEXPIRE", key, int(SHARED.note_life * 1000)),
        ]
        async with self.client.turn():
            replies = await self.client.pipeline(self.client.others, ask)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.client.error(reply)

    async def messages(self, worker: str, wait: float) -> Collection[tuple[str, str]]:
        """Returns the messages to a worker; the server replies with the first at once."""
        # One command: between two, a cancel that was taken could be lost.
        ask = ("BLMPOP", wait, 1, _messages(worker), "LEFT", "COUNT", LIMITS.messages)
        found = await self.client.call(lambda: self.client.others.execute_command(*ask), wait + LIMITS.store_timeout)
        return (
            [] if found is None else [*dict.fromkeys(read_message(each.decode(errors="replace")) for each in found[1])]
        )

    async def sweep(self) -> bool:
        """Removes some expired responses, which count for budgets. The server removes other expired keys."""
        return await self._responses.sweep()

    async def get(self, kind: str, name: str) -> bytes | None:
        """Returns the value of a record. None if there is none."""
        async with self.client.turn():
            found = await self.client.ask("GET", _record(kind, name))
        return None if found is None else _opened(found, kind, name)

    async def put(self, kind: str, name: str, value: bytes, ttl: float | None, holder: str = "") -> None:
        """Writes a record."""
        check = _check(value, kind, name)
        await self._note_lasting(kind, name, ttl)
        async with self.client.turn():
            await self.client.ask("SET", _record(kind, name), value + check, *_life(ttl))

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
        written = new + _check(new, kind, name)
        await self._note_lasting(kind, name, ttl)
        if old is not None:
            return await self._swap(kind, name, old, written, *_life(ttl))
        async with self.client.turn():
            # Uses the library's own method: `execute_command` reads the reply of `SET` as a bool.
            options = {"nx": True, "get": True, "px": None if ttl is None else _milliseconds(ttl)}
            ask = partial(self.client.others.set, _record(kind, name), written, **options)
            found = await self.client.call(ask, LIMITS.store_answer)
        return None if found is None else _opened(found, kind, name)

    async def delete(self, kind: str, name: str, old: bytes | None = None) -> bool:
        """Removes a record."""
        if old is not None:
            return await self._swap(kind, name, old) == old
        async with self.client.turn():
            return bool(await self.client.ask("UNLINK", _record(kind, name)))

    async def keep_response(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response."""
        return await self._responses.keep(record, ttl, budget)

    async def read_responses(self, names: Sequence[str], turns: int, most: int) -> Sequence[tuple[str, bytes]]:
        """Returns kept responses, each with those before it."""
        return await self._responses.read(names, turns, most)

    async def responses_with(self, items: Mapping[str, str]) -> Mapping[str, str]:
        """Returns the names of kept responses with some items."""
        return await self._responses.holding(items)

    async def delete_response(self, name: str) -> bool:
        """Removes a kept response."""
        return await self._responses.delete(name)

    async def lasting(self) -> Collection[tuple[str, str]]:
        """Returns kind and name of the records without a time to live."""
        found: dict[bytes, None] = {}
        cursor: Any = "0"
        while True:
            async with self.client.turn():
                cursor, some = await self.client.ask("SSCAN", _LASTING, cursor, "COUNT", LIMITS.store_pipeline)
            found.update(dict.fromkeys(some))
            if int(cursor) == 0 or len(found) >= LIMITS.lasting:
                break
        places = [each.decode(errors="replace").partition(":") for each in [*found][: LIMITS.lasting]]
        return [(kind, name) for kind, _, name in places]

    async def _note_lasting(self, kind: str, name: str, ttl: float | None) -> None:
        """Notes the name of a record without a time to live, before the record is written."""
        if ttl is None:
            async with self.client.turn():
                await self.client.ask("SADD", _LASTING, f"{kind}:{name}")

    async def _swap(self, kind: str, name: str, old: bytes, *written: bytes | str | int) -> bytes | None:
        """Changes a record if its value is `old`; returns the value before.

        Args:
            kind: As for `get`.
            name: As for `get`.
            old: The value that the record must have.
            written: The new value, and its time to live. Empty if the record is removed.
        """
        known = old + _check(old, kind, name)
        former = old if kind == CLAIMS else known  # rule 9
        async with self.client.turn():
            found = await self.client.ask("EVAL", _SWAP, 1, _record(kind, name), known, former, *written)
        return None if found is None else _opened(found, kind, name)


class _Responses:
    """The kept responses in a Redis server, or a cluster.

    Args:
        client: The connections.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def keep(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response; as `Backend.keep_response`. If much must make room, several scripts remove it."""
        dropped, is_over = await self._run(
            "keep",
            record.name,
            record.caller,
            record.parent,
            record.value + _check_of_response(record.value, record.name),
            record.size,
            max(1, int(ttl * 1000)),
            budget.of_caller,
            budget.of_all,
            "".join(record.items),
            int(LIMITS.response_grace * 1000),
        )
        while is_over:
            some, is_over = await self._run("room", record.caller, budget.of_caller, budget.of_all)
            dropped += some
        return int(dropped)

    async def read(self, names: Sequence[str], turns: int, most: int) -> list[tuple[str, bytes]]:
        """Returns kept responses; as `Backend.read_responses`."""
        found: list[bytes] = await self._run("read", turns, most, *names)
        places = [each.decode() for each in found[::2]]
        return [(name, _opened_response(value, name)) for name, value in zip(places, found[1::2], strict=True)]

    async def holding(self, items: Mapping[str, str]) -> dict[str, str]:
        """Returns the names of responses with some items; as `Backend.responses_with`."""
        pairs = [each for pair in items.items() for each in pair]
        found: list[bytes] = await self._run("holding", *pairs) if pairs else []
        return {item: name.decode() for item, name in zip(items, found, strict=True) if name}

    async def delete(self, name: str) -> bool:
        """Removes a response; as `Backend.delete_response`."""
        return bool(await self._run("delete", name))

    async def sweep(self) -> bool:
        """Removes some expired responses; returns whether there are more."""
        return bool(await self._run("sweep"))

    async def _run(self, call: str, *arguments: str | bytes | int) -> Any:
        return await self._client.ask_script(_SCRIPT, _KEY, call, _RESPONSES, LIMITS.responses_dropped, *arguments)


def check_url(url: str, _folder: Path) -> str:
    """Returns the URL of a server.

    Args:
        url: `redis://[user[:password]@]host[:port][/database]`, or `rediss://…` for TLS.

    Raises:
        ValueError: It is not such a URL, or the extra is not installed.
    """
    if find_spec("redis") is None:
        raise ValueError(f"needs the package redis: {installing('redis')}")
    try:
        parts = urlsplit(url)
        is_right = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_right = False
    if not is_right or not _PRINTABLE.fullmatch(url) or not _DATABASE.fullmatch(parts.path) or parts.fragment:
        raise ValueError(f'must be "redis://[user[:password]@]host[:port][/database]", such as "{URL}"')
    if parts.port is None and SENTINEL in dict(parse_qsl(parts.query)):
        raise ValueError("must name the port of the Sentinel")
    known = (SENTINEL, *(_TLS_OPTIONS if parts.scheme == "rediss" else ()))
    if any(name not in known or not value for name, value in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError(f"must have no parameters but {SENTINEL} and, with rediss://, {', '.join(_TLS_OPTIONS)}")
    return url


def open_backend(settings: StoreSettings) -> RedisBackend:
    """Makes the store of a configuration."""
    return RedisBackend(settings.url)


async def _in_parts(items: Sequence[_Item], do: Callable[[Sequence[_Item]], Awaitable[None]]) -> None:
    """Calls a function with `limits.store_pipeline` items at a time; other tasks run between two calls.

    Raises:
        StoreError: One part failed; the others are done.
    """
    parts = []
    for start in range(0, len(items), LIMITS.store_pipeline):
        parts.append(asyncio.ensure_future(do(items[start : start + LIMITS.store_pipeline])))
        await asyncio.sleep(0)
    for outcome in await asyncio.gather(*parts, return_exceptions=True):
        if outcome is not None:
            raise outcome


def _log(stream_id: str, epoch: int = 1) -> str:
    """Returns the key of a log: rule 10."""
    return f"gai:{{{stream_id}}}:log" if epoch <= 1 else f"gai:{{{stream_id}}}:log:{epoch}"


def _head(stream_id: str) -> str:
    return f"gai:{{{stream_id}}}:head"


def _request(stream_id: str) -> str:
    return f"gai:{{{stream_id}}}:request"


def _read_epoch(text: bytes | None) -> int:
    """Returns the epoch in a head. 0 if there is none, as of a copy of an earlier release, or it is damaged."""
    epoch = int(text) if text is not None and text.isdigit() and len(text) <= _EPOCH else 0
    return epoch if epoch < LAST_EPOCH and text == b"%d" % epoch else 0  # scripts compare texts


def _lease(worker: str) -> str:
    return f"gai:worker:{worker}"


def _messages(worker: str) -> str:
    return f"gai:cancel:{worker}"


def _record(kind: str, name: str) -> str:
    return f"gai:{kind}:{name}"


def _life(ttl: float | None) -> tuple[str | int, ...]:
    """Returns the arguments of `SET` for a time to live."""
    return () if ttl is None else ("PX", _milliseconds(ttl))


def _milliseconds(ttl: float) -> int:
    return max(1, int(ttl * 1000))


def _check(value: bytes, kind: str, name: str) -> bytes:
    """Returns the line end and checksum that follow the value of a record.

    Raises:
        StoreError: The value is too large.
    """
    check_size(value)
    return b"\n%08x" % checksum(value, kind, name)


def _opened(found: bytes, kind: str, name: str) -> bytes:
    """Returns the value of a record.

    Raises:
        StoreError: The value does not match its checksum.
    """
    value = found[:-_CHECK]
    if found[-_CHECK:] == _check(value, kind, name):
        return value
    if kind == CLAIMS and found.count(b"\n") == _LINE_ENDS:  # written by an earlier release
        return found
    raise StoreError("damaged", "a record of the store is damaged")


def _check_of_request(value: bytes, stream_id: str) -> bytes:
    """Returns the line end and checksum that follow the request of a stream."""
    return b"\n%08x" % checksum(value, stream_id, "request")


def _check_of_response(value: bytes, name: str) -> bytes:
    """Returns the line end and checksum that follow the value of a kept response."""
    return b"\n%08x" % checksum(value, RESPONSES, name)


def _opened_response(found: bytes, name: str) -> bytes:
    """Returns the value of a kept response.

    Raises:
        StoreError: It does not match its checksum.
    """
    value = found[:-_CHECK]
    if found[-_CHECK:] != _check_of_response(value, name):
        raise StoreError("damaged", "a response of the store is damaged")
    return value


def _commands(change: CopyChange) -> list[Command]:
    log, head, request = _log(change.stream_id, change.epoch), _head(change.stream_id), _request(change.stream_id)
    owner = change.worker, change.epoch
    if change.is_dropped:
        if not change.epoch:
            return [("EVAL", _DROP_ANY, 2, head, request, log)]
        return [("EVAL", _DROP, 3, head, log, request, *owner)]
    commands: list[Command] = []
    kept = () if change.request is None else (request,)
    if change.header is not None:
        header = header_text(change.header, change.worker)
        check = checksum(header, change.stream_id, "header")
        values = header, int((change.keep or 0.0) * 1000), check, _log(change.stream_id)
        keys: tuple[str, ...] = (head, log)
        asked: tuple[bytes, ...] = ()
        if change.request:
            keys = (head, log, request)
            asked = (change.request + _check_of_request(change.request, change.stream_id),)
        commands.append(("EVAL", _BEGIN, len(keys), *keys, *owner, *values, *asked))
    lost = 0
    if change.gap is not None:  # before the records after the gap, so that a concurrent reader finds no hole
        lost, text = change.gap.lost, gap_text(change.gap)
        check = checksum(text, change.stream_id, "gap", lost)
        commands.append(("EVAL", _GAP, 2, head, log, *owner, lost, text, f"{lost + 1}-0", check))
    for record in change.records:
        after, last_seq, piece = record.after, record.last_seq, record.piece
        if last_seq > lost:
            fields: tuple[str | int | bytes, ...] = ("after", after, "piece", piece)
            if not change.is_sealed:
                fields = (*fields, "sum", checksum(piece, change.stream_id, after, last_seq))
            commands.append(_entry(change, f"{last_seq}-0", *fields))
    if change.ending is not None:
        # A new owner may end a log again whose end the server has lost. Its place stays taken.
        end, ending = f"{change.last_seq}-{1 + max(1, change.epoch)}", ending_text(change.ending)
        check = checksum(ending, change.stream_id, "end", change.last_seq)
        commands.append(_entry(change, end, "ending", ending, "sum", check))
        if kept:
            commands.append(("EVAL", _FORGET_REQUEST, 2, head, request, *owner))
    if change.keep is not None and change.header is None:
        keys = (head, log, *kept)
        commands.append(("EVAL", _LIFE, len(keys), *keys, *owner, int(change.keep * 1000)))
    return commands


def _entry(change: CopyChange, *entry: str | int | bytes) -> Command:
    """Returns the command that adds an entry to a log: rule 10."""
    stream_id, epoch = change.stream_id, change.epoch
    log = _log(stream_id, epoch)
    if epoch <= 1:
        return ("XADD", log, "NOMKSTREAM", *entry)
    return ("EVAL", _ADD, 2, _head(stream_id), log, change.worker, epoch, *entry)


def _news(entries: Sequence[_Entry], stream_id: str, asked: int, after: int) -> CopyTail:
    """Returns the news that entries hold.

    An end counts as damaged if its number is above the last event's: a record is missing.

    Args:
        entries: The entries, in order.
        stream_id: The stream's id.
        asked: The number of entries that were requested.
        after: The number of the last event before them.
    """
    records: list[Record] = []
    for number, fields in entries:
        last_seq = int(number.partition(b"-")[0])
        try:
            if b"ending" in fields:
                if last_seq > after:
                    return CopyTail(records, is_damaged=True)
                return CopyTail(records, read_ending(_checked(fields, b"ending", b"sum", stream_id, "end", last_seq)))
            if number != _MARK:
                begin = int(fields[b"after"])
                piece = _checked(fields, b"piece", b"sum", stream_id, begin, last_seq)
                records.append(Record(begin, last_seq, piece))
                after = last_seq
        except (StoreError, KeyError, ValueError):
            return CopyTail(records, None, is_damaged=True)
    return CopyTail(records, has_more=len(entries) == asked)


def _gaps(fields: Mapping[bytes, bytes], stream_id: str) -> Iterator[tuple[int, bytes]]:
    """Yields the gaps of a copy, for `join_gaps`."""
    for name in fields:
        if name.startswith(b"gap:"):
            lost = int(name[4:])
            yield lost, _checked(fields, name, b"sum:" + name[4:], stream_id, "gap", lost)


def _checked(fields: Mapping[bytes, bytes], name: bytes, check_name: bytes, *place: object) -> bytes:
    """Returns the value of a field.

    Raises:
        StoreError: The value does not match its checksum. Earlier releases wrote none: rule 9.
    """
    value, check = fields[name], fields.get(check_name)
    if check is not None and check != b"%d" % checksum(value, *place):
        raise StoreError("damaged", "an entry of the store is damaged")
    return value
