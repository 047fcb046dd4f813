"""A copy has one owner: what a former owner writes is refused by the store itself, in each kind of store."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import SealSettings, Secret, StoreSettings
from gai_fast.net.logs.closing import closing_of
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Ending, LogHeader, Seals, Store, StreamLog, open_store
from gai_fast.stores._base import add_text
from gai_fast.stores.backend import Backend, CopyChange, CopyTail, Gap, LogCopy, Owner, Record, StoreError
from gai_fast.stores.messages import UntilOver
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.sealer import OVERHEAD
from gai_fast.stores.sqlite import SQLiteBackend, _seal
from gai_fast.stores.store import owners_number
from tests.conftest import ChangeLimits
from tests.integration.stores.changes import changed
from tests.integration.stores.conftest import MakeServer
from tests.integration.stores.processes import start
from tests.integration.stores.sealing import KEYS, Tampered, sealed_with
from tests.integration.stores.servers import RedisServer
from tests.integration.stores.test_sqlite_responses import EARLIER
from tests.kernels import is_set
from tests.ports import free_port
from tests.waiting import until, until_answered

HEADER = LogHeader("s", "caller", "m", "gai", "sse")
FINISHED = Ending("finished", "stop")
NEW = 1 << 20
LONG = is_set("GAI_FAST_EXHAUSTIVE")
Open = Callable[[], Awaitable[Backend]]
OpenStore = Callable[[str, str], Awaitable[Store]]


KINDS = ["sqlite", "redis", "cluster", "sealed sqlite", "sealed redis"]


async def url_of_server(request: pytest.FixtureRequest, kind: str) -> str:
    """Returns the URL of an empty server of one of `KINDS`. Empty if it is a file."""
    if kind == "cluster":
        make_server: MakeServer = request.getfixturevalue("make_server")
        bus = str(free_port())
        server = make_server("--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-require-full-coverage", "no")
        server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
        return server.url
    if "redis" not in kind:
        return ""
    shared: RedisServer = request.getfixturevalue("redis_server")
    return shared.url


@pytest.fixture(params=KINDS)
async def open_another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the store as another process would."""
    kind = request.param
    url = await url_of_server(request, kind)
    made: list[Backend] = []

    async def open_another() -> Backend:
        backend: Backend = RedisBackend(url) if url else SQLiteBackend(tmp_path / "store.db")
        if "sealed" in kind:
            backend = SealedBackend(backend, Seals(sealed_with(0)))
        await backend.open()
        made.append(backend)
        return backend

    yield open_another
    for backend in made:
        await backend.close()


@pytest.fixture
async def open_store_at() -> AsyncIterator[OpenStore]:
    """Opens a store as a server would, with a key that seals it or with an empty text."""
    made: list[Store] = []

    async def open_store_at(url: str, key: str) -> Store:
        seals = Seals(SealSettings((Secret(key),) if key else ()))
        store = open_store(StoreSettings(url), TimerWheel(asyncio.get_running_loop()), claim_ttl=60, seals=seals)
        store.closing_of = closing_of
        await store.open()
        made.append(store)
        return store

    yield open_store_at
    for store in made:
        await store.close()


def records(first: int, last: int, text: bytes = b"old ") -> list[Record]:
    return [Record(number - 1, number, text + b"%d" % number) for number in range(first, last + 1)]


def of(worker: str, epoch: int, **parts: object) -> CopyChange:
    return changed("s", None, worker, epoch=epoch, caller="caller", **parts)


async def begun(backend: Backend, *, last: int = 3) -> None:
    begin = changed("s", HEADER, "old", records(1, last), keep=60, caller="caller")
    assert not await backend.write([begin])


async def loaded(backend: Backend) -> LogCopy:
    copy = await backend.load("s")
    assert copy is not None
    return copy


async def taken_over(backend: Backend, *, last: int = 3) -> None:
    """Takes the copy over, and goes on with one record."""
    copy = await loaded(backend)
    assert (copy.worker, copy.epoch) == ("old", 1)
    assert await backend.take_over("s", 1, last, copy.header, "new")
    assert not await backend.write([of("new", 2, records=[Record(last, NEW, b"new")])])


WRITES: dict[str, Callable[[], CopyChange]] = {
    "begin": lambda: changed("s", HEADER, "old", records(1, 4), keep=60, caller="caller"),
    "records": lambda: of("old", 1, records=records(4, 5)),
    "a gap": lambda: of("old", 1, gap=Gap(2, "said", is_whole=True)),
    "an end": lambda: of("old", 1, ending=FINISHED, last_seq=3, keep=60),
    "records and an end": lambda: of("old", 1, records=records(4, 4), ending=FINISHED, last_seq=4, keep=60),
    "life": lambda: of("old", 1, keep=1),
    "a removal": lambda: of("old", 1, is_dropped=True),
}
"""What a former owner may write first."""


@pytest.mark.parametrize("name", WRITES)
async def test_the_store_refuses_each_write_of_a_former_owner(open_another: Open, name: str) -> None:
    old, new = await open_another(), await open_another()
    await begun(old)
    await taken_over(new)
    before = await loaded(new)
    change = WRITES[name]()
    unwritten = await old.write([change])
    if unwritten == {"s": "missing"}:  # it begins again, and then the store refuses it
        unwritten = await old.write([replace(change, header=HEADER, keep=60)])
    assert unwritten == ({} if change.is_dropped else {"s": "refused"})
    news = CopyTail([*records(1, 3), Record(3, NEW, b"new")])
    assert await loaded(new) == before == LogCopy(HEADER, "new", 0, "", news, 2)
    assert await new.kept(["s"]) == await old.kept(["s"]) == {"s": Owner("new", 2)}
    assert await old.tail({"s": 3}, 0.0) == {"s": CopyTail(news.records[3:])}
    assert not await new.write([of("new", 2, ending=FINISHED, last_seq=NEW, keep=60)])
    assert (await loaded(old)).news == news._replace(ending=FINISHED)


async def test_what_a_former_owner_writes_never_shortens_the_life_of_a_copy(open_another: Open) -> None:
    old, new = await open_another(), await open_another()
    await begun(old)
    await taken_over(new)
    await old.write([of("old", 1, keep=0.001)])
    await old.write([of("old", 1, is_dropped=True)])
    assert await new.kept(["s"])
    await new.write([CopyChange("s", is_dropped=True)])
    assert not await new.kept(["s"]), "whoever may remove it names no owner"


async def test_a_copy_that_its_owner_lets_go_has_no_owner_until_it_is_taken_over(open_another: Open) -> None:
    old, new = await open_another(), await open_another()
    await begun(old)
    assert not await old.take_over("s", 1, 2, HEADER, ""), "it has more than that"
    assert await old.take_over("s", 1, 3, HEADER, "")
    assert await old.take_over("s", 1, 3, HEADER, ""), "the reply was lost"
    copy = await loaded(new)
    assert copy == LogCopy(HEADER, "", 0, "", CopyTail(records(1, 3)), 1)
    assert await new.kept(["s"]) == {"s": Owner("", 1)}
    life = of("old", 1, keep=60)
    assert [*(await old.write([life])).values()] in (["refused"], ["missing"])
    header = HEADER._replace(handovers=1)
    assert await new.take_over("s", 1, 3, header, "new")
    assert not await old.take_over("s", 1, 3, HEADER, ""), "it has another owner"
    assert not await new.write([of("new", 2, records=[Record(3, NEW, b"new")])])
    assert (await loaded(old))[:2] == (header, "new")
    assert await new.kept(["s"]) == {"s": Owner("new", 2)}


async def test_a_copy_is_taken_over_as_it_was_read_or_not_at_all(open_another: Open) -> None:
    old, new = await open_another(), await open_another()
    await begun(old)
    copy = await loaded(new)
    for epoch, last_seq in ((1, 2), (1, 4), (2, 3), (0, 3)):
        assert not await new.take_over("s", epoch, last_seq, copy.header, "new")
    await old.write([of("old", 1, records=records(4, 4))])
    assert not await new.take_over("s", 1, 3, copy.header, "new"), "it has grown"
    assert await new.take_over("s", 1, 4, copy.header, "new")
    assert not await new.take_over("s", 1, 4, copy.header, "third"), "one wins"
    third = await open_another()
    copy = await loaded(third)
    assert (copy.worker, copy.epoch) == ("new", 2)
    await new.write([of("new", 2, records=[Record(4, NEW, b"new")], ending=FINISHED, last_seq=NEW, keep=60)])
    assert not await third.take_over("s", 2, 4, copy.header, "third")
    assert not await third.take_over("s", 2, NEW, copy.header, "third"), "it has ended"
    assert not await third.take_over("never", 1, 0, copy.header._replace(stream_id="never"), "third")
    assert (await loaded(third)).news.ending == FINISHED


async def test_a_copy_without_records_and_one_that_dropped_all_of_them_are_taken_over(open_another: Open) -> None:
    backend = await open_another()
    await backend.write([changed("s", HEADER, "old", keep=60, caller="caller")])
    copy = await loaded(backend)
    assert await backend.take_over("s", 1, 0, copy.header, "new")
    await backend.write([of("new", 2, records=records(1, 3))])
    await backend.write([of("new", 2, gap=Gap(5, "said", is_whole=True))])
    assert (await loaded(backend)).lost == 5
    assert not await backend.take_over("s", 2, 3, copy.header, "third")
    assert await backend.take_over("s", 2, 5, copy.header, "third")
    assert await loaded(backend) == LogCopy(HEADER, "third", 5, "said", CopyTail([]), 3)


async def test_of_two_that_write_a_lost_copy_again_the_higher_epoch_wins(open_another: Open) -> None:
    old, new = await open_another(), await open_another()
    await begun(old)
    await taken_over(new)
    again = {
        "old": changed("s", HEADER, "old", records(1, 9), keep=60, caller="caller"),
        "new": changed("s", HEADER, "new", records(1, 3, b"new "), 2, keep=60, caller="caller"),
    }
    for order in (("old", "new"), ("new", "old")):
        await new.write([CopyChange("s", is_dropped=True)])
        while await new.sweep():
            pass
        for name in order:
            assert await new.write([again[name]]) == ({"s": "refused"} if (name, order[0]) == ("old", "new") else {})
        assert await loaded(new) == LogCopy(HEADER, "new", 0, "", CopyTail(records(1, 3, b"new ")), 2)
        unwritten = await old.write([of("old", 1, records=records(10, 10))])
        assert unwritten in ({"s": "missing"}, {"s": "refused"})
    assert await new.write([replace(again["new"], worker="third")]) == {"s": "refused"}, "at one epoch the first wins"
    assert (await loaded(new)).worker == "new"


REQUEST = b'{"query":"\xc3\xa4\\n"}\r\n'


async def test_a_request_stands_beside_its_copy_until_the_end(open_another: Open) -> None:
    old, new = await open_another(), await open_another()
    begin = changed("s", HEADER, "old", records(1, 3), keep=60, caller="caller", request=REQUEST)
    for _ in range(2):
        assert not await old.write([begin]), "it may be written again"
    await begun_without_request(old)
    copy = await loaded(new)
    assert await new.request_of("s") == REQUEST
    assert await new.load("t") is not None
    assert await new.request_of("t") is None
    assert not await old.write([of("old", 1, records=records(4, 4), keep=60, request=b"")])
    assert await new.take_over("s", 1, 4, copy.header, "new")
    await old.write([of("old", 1, ending=FINISHED, last_seq=4, keep=60, request=b"")])
    await old.write([of("old", 1, is_dropped=True)])
    assert await new.request_of("s") == REQUEST, "only the owner ends it"
    assert not await new.write([of("new", 2, ending=FINISHED, last_seq=4, keep=60, request=b"")])
    assert await new.request_of("s") is None
    assert (await loaded(old)).news.ending == FINISHED


async def begun_without_request(backend: Backend) -> None:
    header = HEADER._replace(stream_id="t")
    assert not await backend.write([changed("t", header, "old", keep=60, caller="caller")])


@pytest.mark.parametrize("by", ["its owner", "anyone", "a higher epoch"])
async def test_a_request_goes_with_its_copy(open_another: Open, by: str) -> None:
    backend = await open_another()
    begin = changed("s", HEADER, "old", records(1, 3), keep=60, caller="caller", request=REQUEST)
    await backend.write([begin])
    await loaded(backend)
    if by == "a higher epoch":
        await backend.write([replace(begin, epoch=2, worker="new", request=b"other")])
        assert await backend.request_of("s") == b"other"
        return
    await backend.write([CopyChange("s", is_dropped=True) if by == "anyone" else of("old", 1, is_dropped=True)])
    assert await backend.request_of("s") is None


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_sealed_request_shows_nothing_and_a_damaged_one_is_damage(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    server: RedisServer | None = request.getfixturevalue("redis_server") if kind == "redis" else None
    inner: Backend = SQLiteBackend(tmp_path / "s.db") if server is None else RedisBackend(server.url)
    backend = SealedBackend(inner, Seals(sealed_with(0)))
    await backend.open()
    for stream_id in "st":
        header = HEADER._replace(stream_id=stream_id)
        begin = changed(stream_id, header, "old", keep=60, caller="caller", request=REQUEST)
        await backend.write([begin])
        assert await backend.load(stream_id) is not None
    sealed = await inner.request_of("s")
    assert sealed is not None
    assert (len(sealed), b"query" in sealed) == (len(REQUEST) + OVERHEAD, False)
    await inner.write([changed("t", HEADER._replace(stream_id="t"), "old", keep=60, request=sealed, epoch=2)])
    with pytest.raises(StoreError, match="damaged"):
        await backend.request_of("t")  # it is another stream's
    if server is not None:
        server.command("APPEND", "gai:{s}:request", "x")
        with pytest.raises(StoreError, match="damaged"):
            await inner.request_of("s")
    await backend.close()


async def test_of_two_owners_of_one_epoch_whose_take_over_redis_has_lost_only_the_last_writes(
    redis_server: RedisServer,
) -> None:
    old, first, second = (RedisBackend(redis_server.url) for _ in range(3))
    for backend in (old, first, second):
        await backend.open()
    await begun(old)
    copy = await loaded(first)
    assert await first.take_over("s", 1, 3, copy.header, "first")
    redis_server.command("HSET", "gai:{s}:head", "worker", "old", "epoch", "1")
    redis_server.command("RENAME", "gai:{s}:log:2", "gai:{s}:log")
    assert await second.take_over("s", 1, 3, copy.header, "second")
    for parts in (
        {"records": [Record(3, NEW, b"first")]},
        {"ending": FINISHED, "last_seq": 3},
        {"records": [Record(3, NEW, b"first")], "ending": FINISHED, "last_seq": NEW},
    ):
        assert await first.write([of("first", 2, keep=60, **parts)]) == {"s": "missing"}
    again = changed("s", HEADER, "first", [Record(3, NEW, b"first")], 2, keep=60, caller="caller")
    assert await first.write([again]) == {"s": "refused"}
    more = of("second", 2, records=[Record(3, NEW + 9, b"second")], ending=FINISHED, last_seq=NEW + 9, keep=60)
    for _ in range(2):
        assert not await second.write([more]), "it may be written again"
    news = CopyTail([*records(1, 3), Record(3, NEW + 9, b"second")], FINISHED)
    assert await loaded(old) == LogCopy(HEADER, "second", 0, "", news, 2)
    for backend in (old, first, second):
        await backend.close()


async def test_a_sealed_copy_names_its_new_owner_inside_too(tmp_path: Path) -> None:
    inner = SQLiteBackend(tmp_path / "store.db")
    backend = SealedBackend(inner, Seals(sealed_with(0)))
    await backend.open()
    await begun(backend)
    await taken_over(backend)
    outer = await inner.load("s")
    assert outer is not None
    assert outer.worker == (await loaded(backend)).worker == "new"
    assert all(len(each.piece) > OVERHEAD for each in outer.news.records)
    await backend.close()


# ---- numbers ---------------------------------------------------------------------------------------------------------


async def test_of_many_take_overs_of_which_redis_loses_one_in_ten_no_number_is_used_twice(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sealed record has its number as its place. A take-over that is lost is made again by another worker."""
    chance = random.Random(7)
    monkeypatch.setattr("gai_fast.stores.store.randbelow", chance.randrange)
    backend = RedisBackend(redis_server.url)
    await backend.open()
    used: set[tuple[str, int]] = set()
    lost = 0

    async def ask(*command: str | bytes | int) -> Any:
        async with backend.client.turn():
            return await backend.client.ask(*command)

    async def live(stream_id: str) -> None:
        nonlocal lost
        header = HEADER._replace(stream_id=stream_id)
        head, worker, last, epoch = f"gai:{{{stream_id}}}:head", "0", 0, 1
        await backend.write([changed(stream_id, header, worker, keep=600)])
        for take_over in range(1, 5):
            log = f"gai:{{{stream_id}}}:log" + (f":{epoch}" if epoch > 1 else "")
            saved = [await ask("DUMP", key) for key in (head, log)]
            for attempt in range(2):
                worker = f"{take_over}.{attempt}"
                number = owners_number(last)
                assert await backend.take_over(stream_id, epoch, last, header, worker)
                record = Record(last, number, b"frame")
                assert not await backend.write([changed(stream_id, None, worker, [record], epoch=epoch + 1)])
                assert (stream_id, number) not in used
                assert number < 1 << 53
                used.add((stream_id, number))
                if attempt or chance.randrange(10):
                    break
                lost += 1
                await ask("DEL", head, f"gai:{{{stream_id}}}:log:{epoch + 1}")
                for key, value in zip((head, log), saved, strict=True):
                    await ask("RESTORE", key, 600_000, value)
            last, epoch = number, epoch + 1

    streams = 2500 if LONG else 100
    for first in range(0, streams, 100):
        await asyncio.gather(*(live(f"s{number}") for number in range(first, first + 100)))
    assert len(used) == 4 * streams + lost
    assert lost > streams // 4
    await backend.close()


def event(kind: str, seq: int, **fields: object) -> bytes:
    data = json.dumps({"type": kind, "seq": seq, **fields}, separators=(",", ":"))
    return f"event: {kind}\nid: s.{seq}\ndata: {data}\n\n".encode()


def deltas(first: int, last: int, text: str) -> list[Record]:
    return [Record(seq - 1, seq, event("text.delta", seq, text=text)) for seq in range(first, last + 1)]


@pytest.mark.parametrize(
    "what", ["header", "frames", "frames in place of those after them", "end", "text of 2", "text of 5"]
)
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_sealed_record_of_a_former_owner_that_is_put_back_is_damage_or_void(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, what: str
) -> None:
    server: RedisServer | None = request.getfixturevalue("redis_server") if kind == "redis" else None
    inner: Backend = SQLiteBackend(tmp_path / "s.db") if server is None else RedisBackend(server.url)
    backend = SealedBackend(inner, Seals(sealed_with(0)))
    await backend.open()
    begin = changed("s", HEADER, "old", deltas(1, 3, "said "), keep=60, caller="caller")

    async def restart() -> None:
        await backend.write([CopyChange("s", is_dropped=True)])
        while await backend.sweep():
            pass
        await backend.write([begin])

    async def found(*changes: CopyChange) -> Tampered:
        for change in changes:
            assert not await backend.write([change])
        copy = await inner.load("s")
        assert copy is not None
        return Tampered(copy)

    await restart()
    lost = int(what[-1]) if what.startswith("text") else 0
    gaps = [of("old", 1, gap=Gap(lost, "void", is_whole=True))] if lost else []
    end = of("old", 1, ending=FINISHED, last_seq=5, keep=60)
    old = await found(of("old", 1, records=deltas(4, 5, "void")), *gaps, end)
    await restart()
    assert await backend.take_over("s", 1, 3, (await loaded(backend)).header, "new")
    gap = Record(3, NEW, event("stream.gap", NEW, text="said said said ", **{"from": 4, "to": NEW}))
    more = of("new", 2, records=[gap, *deltas(NEW + 1, NEW + 2, "new ")])
    log = await found(more, of("new", 2, ending=Ending("finished", "length"), last_seq=NEW + 2, keep=60))
    if what == "header":
        log.header, log.worker = old.header, old.worker
    elif what == "frames":
        log.records.insert(3, old.records[3])
    elif what == "end":
        log.ending = old.ending
    elif lost:
        log.gap = old.gap
    else:
        log.records[3:] = old.records[3:]
    await log.write(inner)
    reader = Store(StoreSettings(), TimerWheel(asyncio.get_running_loop()), backend, claim_ttl=60)
    await reader.open()
    there = await reader.find("s")
    assert there is not None
    backlog = there.read(0, 10**9)
    text = bytearray((backlog.text or "").encode())
    assert all(add_text(text, piece) for piece in backlog.pieces)
    if there.ending is None:
        assert there.broken is not None
        assert there.broken.reason == "log_damaged"
        assert not (b"void" in text and b"new" in text)
    else:
        assert (there.ending.finish_reason, text.decode()) == ("length", "said said said new new ")
    await reader.close()


# ---- copies of earlier releases --------------------------------------------------------------------------------------


async def test_a_file_of_the_last_release_is_read_and_written_on_by_it_and_never_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    former = sqlite3.connect(path, isolation_level=None)
    former.executescript(EARLIER)
    text = b'["former","%b","caller","m","gai","sse",null,"",null]'
    begin = "INSERT OR IGNORE INTO streams (id, header, expires_ms) VALUES (?, ?, 9000000000000)"
    for stream_id in ("before", "during"):
        former.execute(begin, (stream_id, _seal(text % stream_id.encode(), stream_id)))
        if stream_id == "before":
            backend = SQLiteBackend(path)
            await backend.open()
    former.execute("INSERT INTO records VALUES (1, 1, 0, ?)", (_seal(b"one", "before", 0, 1),))
    former.close()
    for stream_id, found in (("before", [Record(0, 1, b"one")]), ("during", [])):
        header = HEADER._replace(stream_id=stream_id)
        assert await backend.load(stream_id) == LogCopy(header, "former", 0, "", CopyTail(found), 0)
        assert await backend.kept([stream_id]) == {stream_id: Owner("", 0)}
        assert not await backend.take_over(stream_id, 0, len(found), header, "new")
    await backend.close()


async def test_a_copy_in_redis_of_the_last_release_is_never_taken_over(redis_server: RedisServer) -> None:
    text = b'["former","s","caller","m","gai","sse",null,"",null]'
    redis_server.command("HSET", "gai:{s}:head", "header", text)
    redis_server.command("XADD", "gai:{s}:log", "0-1", "begun", "1")
    redis_server.command("XADD", "gai:{s}:log", "1-0", "after", "0", "piece", "one")
    backend = RedisBackend(redis_server.url)
    await backend.open()
    assert await backend.load("s") == LogCopy(HEADER, "former", 0, "", CopyTail([Record(0, 1, b"one")]), 0)
    assert await backend.kept(["s"]) == {"s": Owner("", 0)}
    for epoch in (0, 1):
        assert not await backend.take_over("s", epoch, 1, HEADER, "new")
    await backend.close()


async def test_a_lookup_amid_a_take_over_removes_nothing(redis_server: RedisServer) -> None:
    """A copy with one of its keys is removed. The log of a copy that was taken over has another name."""
    backend, late = RedisBackend(redis_server.url), RedisBackend(redis_server.url)
    await backend.open()
    await late.open()
    await begun(late)
    await taken_over(backend)
    await late._remove_half("s")
    assert (await loaded(late)).epoch == 2
    redis_server.command("DEL", "gai:{s}:log:2")
    assert await late.load("s") is None
    assert redis_server.command("EXISTS", "gai:{s}:head") == b":0\r\n"
    await backend.close()
    await late.close()


# ---- owners that stand still -----------------------------------------------------------------------------------------

LEASE = SHARED.lease_lost if LONG else 1.2
PAUSES = [0.1, 1.0, 10.0, 29.0, 31.0, 60.0] if LONG else [LEASE / 2, 3 * LEASE]
OWNER = """
async def main(backend, url, key, lease, writes):
    import json
    from gai_fast.model.settings import SealSettings, Secret, StoreSettings
    from gai_fast.net.logs.closing import closing_of
    from gai_fast.runtime.timers import TimerWheel
    from gai_fast.stores import Ending, Seals, open_store
    object.__setattr__(SHARED, "lease_lost", float(lease))
    settings = StoreSettings(url)
    seals = Seals(SealSettings((Secret(key),) if key else ()))
    store = open_store(settings, TimerWheel(asyncio.get_running_loop()), claim_ttl=60, seals=seals)
    stopped = asyncio.Event()
    store.stop_generation = lambda stream_id: stopped.set()
    store.closing_of = closing_of
    await store.open()
    log = store.create(LogHeader("s", "caller", "m", "gai", "sse"))

    def append():
        seq = log.last_seq + 1
        data = '{"type":"text.delta","seq":%d,"text":"old "}' % seq
        log.append(f"event: text.delta\\nid: s.{seq}\\ndata: {data}\\n\\n".encode(), seq)

    for _ in range(20):
        append()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    if writes == "an end":
        append()
        log.end(Ending("finished", "stop"))
        deadline = time.monotonic() + 2
        while store.find_here("s") is log and not stopped.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
    else:
        for _ in range(200):
            append()
            await asyncio.sleep(0.01)
            if stopped.is_set():
                break
    said = log.last_seq
    for _ in range(500):
        found = await store.find("s")
        if found is not None and (found.is_over or not stopped.is_set()):
            break
        await asyncio.sleep(0.01)
    ending = None if found.ending is None else found.ending.state
    text = b"".join(found.read(0, 10**9).pieces).decode()
    print(json.dumps([stopped.is_set(), said, ending, found is log, text]), flush=True)
    await store.close()
"""


@pytest.mark.parametrize("writes", ["records", "an end"])
@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_owner_that_stood_still_writes_nothing_after_its_copy_was_closed(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
    pause: float,
    writes: str,
    change_limits: ChangeLimits,
    open_store_at: OpenStore,
) -> None:
    change_limits(lease_lost=LEASE, lease_renewal=0.1)
    url = await url_of_server(request, kind) or f"sqlite:///{tmp_path}/store.db"
    key = KEYS[0] if "sealed" in kind else ""
    there = await open_store_at(url, key)
    process = start(OWNER, "None", url, key, str(LEASE), writes)
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        log = await found_at(there, 20)
        log.watch(UntilOver())
        os.kill(process.pid, signal.SIGSTOP)
        await asyncio.to_thread(time.sleep, pause)  # the loop's own time stands still while the machine is busy
        is_closed = pause > LEASE
        if is_closed:
            await until(lambda: log.is_over)
            at_the_end = rest(log)
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        is_stopped, said, ending, is_its_log, text = json.loads(await asyncio.to_thread(process.stdout.readline))
    finally:
        process.kill()
        process.communicate()
    late = await open_store_at(url, key)
    copy = await late.find("s")
    assert copy is not None
    if not is_closed:
        assert (is_stopped, is_its_log, ending) == (False, True, "finished" if writes == "an end" else None)
        stored = rest(copy).partition(b"event: stream.gap")[0]  # the process is gone, so the copy is closed now
        assert text.encode().startswith(stored)
        assert stored.count(b"event: text.delta") > 20
        return
    assert is_stopped, "the upstream is cancelled"
    assert said > 20, "it has said more than is stored"
    assert copy.ending is not None
    assert copy.ending.is_lost
    assert rest(copy) == at_the_end, "once for all: no byte of the former owner came behind the gap"
    assert at_the_end.count(b"event: text.delta") == 20
    assert at_the_end.count(b"event: stream.gap") == at_the_end.count(b"event: error") == 1
    assert (ending, text.encode()) == ("failed", at_the_end), "its own log is a mirror, without what is void"
    assert is_its_log == (writes == "records"), "its clients stay"


class Follower:
    """Watches a log, so that its stream is asked for."""

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """Does nothing."""

    def ended(self) -> None:
        """Does nothing."""


async def test_an_owner_that_follows_a_silent_one_has_no_more_than_the_store(
    tmp_path: Path, open_store_at: OpenStore
) -> None:
    """Another one took the copy over, and was gone before it wrote: what this one wrote since is void."""
    url = f"sqlite:///{tmp_path}/store.db"
    first, reader = await open_store_at(url, ""), await open_store_at(url, "")
    second = SQLiteBackend(tmp_path / "store.db")
    await second.open()
    log = first.create(HEADER)

    def append(last: int) -> None:
        for record in deltas(log.last_seq + 1, last, "old "):
            log.append(record.piece, record.last_seq)

    async def is_written() -> bool:
        copy = await second.load("s")
        return copy is not None and copy.news.records[-1].last_seq == 5

    append(5)
    await until_answered(is_written)
    assert await second.take_over("s", 1, 5, HEADER, "second")
    assert await second.take_over("s", 2, 5, HEADER, "")
    log.watch(Follower())
    append(8)
    await until(lambda: log.is_over)
    found = await reader.find("s")
    assert found is not None
    assert found.broken is None
    assert (found.last_seq, found.ending) == (log.last_seq, log.ending)
    assert rest(found) == rest(log)
    assert b'"text":"%s","reason":"taken_over","from":6' % (b"old " * 5) in rest(log)
    await second.close()


async def test_a_copy_whose_take_over_was_not_answered_is_let_go(
    tmp_path: Path, open_store_at: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has asked gets an error, and asks another worker: it would wait for one that does nothing."""
    backend = SQLiteBackend(tmp_path / "store.db")
    await backend.open()
    await backend.write([changed("s", HEADER, "", deltas(1, 3, "old "), keep=60, caller="caller")])
    url = f"sqlite:///{tmp_path}/store.db"
    first, second = await open_store_at(url, ""), await open_store_at(url, "")
    take_over = SQLiteBackend.take_over

    async def unanswered(self: SQLiteBackend, *given: Any) -> bool:
        is_own = await take_over(self, *given)
        if given[-1] == first.worker:
            raise StoreError("timeout", "no answer")
        return is_own

    monkeypatch.setattr(SQLiteBackend, "take_over", unanswered)
    with pytest.raises(Error):
        await first.find("s")
    assert await backend.kept(["s"]) == {"s": Owner(first.worker, 2)}
    found = await second.find("s")
    assert found is not None
    found.watch(Follower())
    await until(lambda: found.is_over)
    assert found.ending is not None
    assert found.ending.is_lost
    await backend.close()


async def found_at(store: Store, last_seq: int) -> StreamLog:
    async def is_there() -> bool:
        log = await store.find("s")
        return log is not None and log.last_seq == last_seq

    await until_answered(is_there)
    log = await store.find("s")
    assert log is not None
    return log


def rest(log: StreamLog) -> bytes:
    return b"".join(log.read(0, 10**9).pieces)
