"""`gai_fast/stores/sqlite.py`: what the file survives, and what its failures mean."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from gai_fast.model.limits import KIB, MIB
from gai_fast.stores import Claim, Ending, LogHeader, StoreError
from gai_fast.stores.backend import CANCEL, CopyTail, Gap, Record, ResponseBudget, ResponseRecord, ending_text
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.seals import Seals
from gai_fast.stores.sqlite import SQLiteBackend, _entered_wal, _seal
from tests.conftest import ChangeLimits
from tests.integration.stores.changes import changed
from tests.integration.stores.processes import race, start
from tests.integration.stores.sealing import sealed_with
from tests.limits import LIMITS
from tests.records import take, taken
from tests.waiting import SECONDS

NORMAL, FULL = 1, 2
FINISHED = Ending("finished", "stop")
HEADER = LogHeader("s", "caller", "m", "gai", "sse")
BEGIN = changed("s", HEADER, "worker", keep=60)
Make = Callable[..., SQLiteBackend]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "logs.db"


@pytest.fixture
async def make(file: Path) -> AsyncIterator[Make]:
    made: list[SQLiteBackend] = []

    def make(path: Path = file, **options: bool) -> SQLiteBackend:
        made.append(SQLiteBackend(path, **options))
        return made[-1]

    yield make
    for backend in made:
        await backend.close()


async def opened(make: Make, **options: bool) -> SQLiteBackend:
    backend = make(**options)
    await backend.open()
    return backend


def record(seq: int, size: int = 20) -> Record:
    return Record(seq - 1, seq, b"%d" % (seq % 10) * size)


async def fault(call: object) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await call
    return raised.value


# ---- the file --------------------------------------------------------------------------------------------------------


async def test_only_its_owner_can_read_what_was_said(file: Path, make: Make) -> None:
    old = os.umask(0)
    try:
        backend = await opened(make)
        await backend.write([BEGIN])
        files = [file, *file.parent.glob("logs.db-*")]
        assert len(files) == 3
        assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    finally:
        os.umask(old)


async def test_what_is_removed_is_overwritten(file: Path, make: Make) -> None:
    backend = await opened(make)
    await backend.write([replace(BEGIN, records=[Record(0, 1, b"my secret diary")])])
    await backend.write([changed("s", is_dropped=True)])
    while await backend.sweep():
        pass
    await backend.close()
    assert not any(b"my secret diary" in each.read_bytes() for each in file.parent.iterdir())


async def test_what_is_past_its_time_is_removed_in_small_steps(file: Path, make: Make) -> None:
    backend = await opened(make)
    many = LIMITS.store_sweep * 3
    await backend.write([BEGIN, changed("s", records=[record(seq) for seq in range(1, many + 1)])])
    await backend.write([changed("s", gap=Gap(1, "a", is_whole=True)), changed("s", is_dropped=True)])
    for number in range(many):
        await take(backend, f"{number}", Claim("s", ""), -1)
    steps = 0
    while await backend.sweep():
        steps += 1
        assert steps < 20
    assert steps >= 2
    with sqlite3.connect(file) as connection:
        for table in ("streams", "records", "gaps", "claims"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (0,), table
    connection.close()


async def test_leases_from_before_a_new_start_of_the_machine_hold_nothing(file: Path, make: Make) -> None:
    """The monotonic time begins again then, so they lie in the past or in the future."""
    backend = await opened(make)
    await backend.renew("now")
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO leases VALUES ('past', -1e9), ('future', 1e12)")
    connection.close()
    assert await backend.leased(["now", "past", "future"]) == {"now"}
    await backend.sweep()
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT worker FROM leases WHERE worker != ''").fetchall() == [("now",)]
    connection.close()


async def test_an_end_before_which_the_last_record_is_missing_is_damage(file: Path, make: Make) -> None:
    backend = await opened(make)
    await backend.write([replace(BEGIN, records=[record(1), record(2)], ending=FINISHED, last_seq=2)])
    assert (await backend.tail({"s": 2}, 0.0))["s"] == CopyTail([], FINISHED)
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM records WHERE last_seq = 2")
    connection.close()
    copy = await backend.load("s")
    assert copy is not None
    assert copy.news == CopyTail([record(1)], is_damaged=True)


async def test_the_end_that_a_former_release_wrote_stays_readable(file: Path, make: Make) -> None:
    backend = await opened(make)
    await backend.write([replace(BEGIN, records=[record(1)])])
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE streams SET ending = ?", (_seal(ending_text(FINISHED), "s", "end"),))
    connection.close()
    copy = await backend.load("s")
    assert copy is not None
    assert copy.news == CopyTail([record(1)], FINISHED)


async def test_a_clock_that_is_set_makes_no_running_stream_unknown(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy looked expired: its followers got `worker_lost`, and who came back 404."""
    backend = await opened(make)
    await backend.renew("own")
    await backend.write([replace(BEGIN, records=[record(1)])])
    assert await backend.renew("own")
    assert not backend.has_lost
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    assert await backend.load("s") is None
    assert backend.has_lost, "whoever looks for it is refused for now"
    assert not await backend.renew("own"), "its worker is to give it another time, or to write it anew"
    assert not await backend.write([changed("s", keep=60)])
    assert await backend.load("s") is not None
    assert await backend.renew("own")


@pytest.mark.parametrize(
    ("is_synchronous", "kept", "switched"), [(True, FULL, []), (False, NORMAL, [True, False, False])]
)
async def test_the_disk_is_synchronized_with_every_commit_or_once_a_second(
    make: Make, is_synchronous: bool, kept: int, switched: list[bool]
) -> None:
    backend = await opened(make, is_synchronous=is_synchronous)
    assert await backend._writer.call(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (kept,)
    statements: list[str] = []
    await backend._writer.call(lambda connection: connection.set_trace_callback(statements.append))
    for is_full in switched:
        await backend.write([BEGIN])
        assert ("PRAGMA synchronous=FULL" in statements) == is_full
        assert not is_full or statements[-2:] == ["COMMIT", "PRAGMA synchronous=NORMAL"]
        statements.clear()


# ---- group commit ----------------------------------------------------------------------------------------------------


class SlowDisk:
    """A fake disk whose next commit takes until it is let go.

    Attributes:
        commits: The number of commits, from that one on.
        failing: The number of a commit that fails.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.failing = 0
        self._is_held = False
        self._reached = threading.Event()
        self._go_on = threading.Event()

    def connect(self, path: Path) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    disk.commit()
                return super().execute(sql, *values)

        return sqlite3.connect(path, isolation_level=None, factory=Connection)

    def commit(self) -> None:
        self.commits += 1
        if self._is_held:
            self._is_held = False
            self._reached.set()
            assert self._go_on.wait(SECONDS)
        if self.commits == self.failing:
            raise sqlite3.OperationalError("disk I/O error")

    async def hold(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begins a call, and returns when it commits."""
        self.commits, self._is_held = 0, True
        task = asyncio.create_task(call)
        assert await asyncio.to_thread(self._reached.wait, SECONDS)
        return task

    def let_go(self) -> None:
        self._go_on.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk()
    monkeypatch.setattr("gai_fast.stores.sqlite._connect", disk.connect)
    return disk


async def behind_a_commit(backend: SQLiteBackend, disk: SlowDisk, *calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Makes calls while another one commits; returns their results and exceptions."""
    first = await disk.hold(backend.renew("worker"))
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    disk.let_go()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_writes_that_gather_while_the_disk_is_slow_share_one_commit(make: Make, disk: SlowDisk) -> None:
    backend = await opened(make)
    claims = (take(backend, f"key {number}", Claim(f"s{number}", "body"), 60) for number in range(30))
    begins = (backend.write([replace(BEGIN, stream_id=f"s{number}")]) for number in range(30))
    outcomes = await behind_a_commit(backend, disk, *claims, *begins)
    assert outcomes == [None] * 30 + [{}] * 30
    assert disk.commits == 2
    assert await taken(backend, "key 29") == Claim("s29", "body")
    assert len(await backend.kept([f"s{number}" for number in range(30)])) == 30


async def test_of_two_claims_of_a_key_in_one_commit_the_first_one_stands(make: Make, disk: SlowDisk) -> None:
    backend = await opened(make)
    claims = (take(backend, "key", Claim(f"s{number}", "body"), 60) for number in range(3))
    assert await behind_a_commit(backend, disk, *claims) == [None, Claim("s0", "body"), Claim("s0", "body")]


async def test_a_write_that_fails_undoes_itself_and_not_the_others_of_its_commit(make: Make, disk: SlowDisk) -> None:
    backend = await opened(make)

    def insert(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO leases VALUES ('half', 0)")
        connection.execute("INSERT INTO leases VALUES ('half', 0)")

    def bug(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM leases")
        raise ZeroDivisionError

    claim = take(backend, "key", Claim("s", "body"), 60)
    refused, broken, claimed = await behind_a_commit(
        backend, disk, backend.transact(insert), backend.transact(bug), claim
    )
    assert isinstance(refused, StoreError)
    assert isinstance(broken, ZeroDivisionError)
    assert claimed is None
    assert await taken(backend, "key") == Claim("s", "body")
    rows = await backend.look(lambda connection: connection.execute("SELECT worker FROM leases").fetchall())
    assert rows == [("",), ("worker",)]


async def test_a_commit_that_fails_fails_for_all_who_share_it(make: Make, disk: SlowDisk) -> None:
    backend = await opened(make)
    disk.failing = 2
    claim = take(backend, "key", Claim("s", "body"), 60)
    outcomes = await behind_a_commit(backend, disk, claim, backend.write([BEGIN]))
    assert all(isinstance(outcome, StoreError) for outcome in outcomes)
    assert await taken(backend, "key") is None
    assert await backend.write([BEGIN, changed("s", records=[record(1)])]) == {}, "it can be written again"
    assert await backend.tail({"s": 0}, 0.0) == {"s": CopyTail([record(1)])}


async def test_a_caller_that_leaves_while_it_waits_for_the_commit_holds_up_no_other(make: Make, disk: SlowDisk) -> None:
    backend = await opened(make)
    first = await disk.hold(backend.renew("worker"))
    leaving = asyncio.create_task(take(backend, "left", Claim("s", "body"), 60))
    staying = asyncio.create_task(take(backend, "key", Claim("s", "body"), 60))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    disk.let_go()
    await first
    assert await staying is None
    assert leaving.cancelled()
    assert await taken(backend, "left") == Claim("s", "body"), "what was begun is written"


async def test_no_write_waits_for_more_than_one_kept_response_of_each_of_two_callers(
    make: Make, disk: SlowDisk
) -> None:
    backend, kept = await opened(make), list[str]()

    async def keep(caller: str, number: int) -> None:
        record = ResponseRecord(f"{caller} {number}", caller, "", bytes(100), 100)
        await backend.keep_response(record, 60, ResponseBudget(MIB, MIB))
        kept.append(record.name)

    async def write() -> list[str]:
        await backend.renew("other")
        return [*kept]

    each = [("anna", number) for number in range(8)] + [("bert", number) for number in range(8)] + [("carl", 0)]
    *_, before = await behind_a_commit(backend, disk, *(keep(*one) for one in each), write())
    assert {*before} <= {"anna 0", "bert 0"}
    assert kept.index("carl 0") <= 4, "callers take turns"
    assert len(kept) == len(each)
    await backend.keep_response(ResponseRecord("last", "anna", "", b"", 1), 60, ResponseBudget(MIB, MIB))


async def test_calls_that_were_made_are_committed_before_the_file_is_closed(make: Make, disk: SlowDisk) -> None:
    backend = await opened(make)
    first = await disk.hold(backend.renew("worker"))
    claiming = asyncio.create_task(take(backend, "key", Claim("s", "body"), 60))
    await asyncio.sleep(0)
    disk.let_go()
    await backend.close()
    assert await first
    assert await claiming is None


async def test_a_store_that_is_closed_takes_no_more(make: Make) -> None:
    backend = await opened(make)
    await backend.close()
    assert (await fault(backend.renew("worker"))).fault == "unreachable"


# ---- at start --------------------------------------------------------------------------------------------------------


async def test_a_file_that_is_no_database_is_refused(file: Path, make: Make) -> None:
    file.write_bytes(b"all my notes\n" * 1000)
    problem = await fault(make().open())
    assert (problem.fault, str(problem)) == (
        "damaged",
        f"{file} is damaged, or no file of SQLite (SQLITE_NOTADB)",
    )
    assert file.read_bytes() == b"all my notes\n" * 1000


async def test_the_database_of_another_program_is_refused(file: Path, make: Make) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE streams (name)")
    connection.close()
    problem = await fault(make().open())
    assert (problem.fault, str(problem)) == ("unsuitable", f"{file} is the file of another program")


async def test_the_file_of_another_release_is_refused(file: Path, make: Make) -> None:
    await (await opened(make)).close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    problem = await fault(make().open())
    assert (problem.fault, str(problem)) == ("unsuitable", f"{file} is of another release (tables 99, not 3)")


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path, make: Make) -> None:
    problem = await fault(make(tmp_path / "none" / "logs.db").open())
    assert problem.fault == "unreachable"
    assert str(problem) == f"{tmp_path}/none/logs.db cannot be made: No such file or directory"


async def test_a_folder_in_its_place_is_refused(tmp_path: Path, make: Make) -> None:
    problem = await fault(make(tmp_path).open())
    assert problem.fault == "unreachable"


async def test_a_damaged_file_is_refused(file: Path, make: Make) -> None:
    backend = await opened(make)
    await backend.write([replace(BEGIN, records=[record(seq, 3000) for seq in range(1, 100)])])
    await backend.close()
    content = bytearray(file.read_bytes())
    content[4096 * 5 : 4096 * 6] = bytes(4096)
    file.write_bytes(content)
    assert (await fault(make().open())).fault == "damaged"


# ---- while it runs ---------------------------------------------------------------------------------------------------


async def test_a_damaged_record_is_never_served(file: Path, make: Make) -> None:
    """A bit is turned in each byte of a record's row in turn, where SQLite itself does not see it."""
    backend = await opened(make)
    good, bad = [record(seq) for seq in (1, 2)], Record(2, 3, b"what was said")
    await backend.write([replace(BEGIN, records=[*good, bad, record(4)])])
    await backend.close()
    content = file.read_bytes()
    assert content.count(b"what was said") == 1
    place = content.index(b"what was said")
    for offset in range(-4, len(b"what was said")):  # with its checksum
        damaged = bytearray(content)
        damaged[place + offset] ^= 0x10
        file.write_bytes(damaged)
        other = await opened(make)
        assert await other.tail({"s": 0}, 0.0) == {"s": CopyTail(good, is_damaged=True)}
        copy = await other.load("s")
        assert copy is not None
        assert copy.news == CopyTail(good, is_damaged=True)
        await other.close()


async def test_a_damaged_bit_of_a_sealed_record_is_never_served(file: Path, make: Make) -> None:
    """Its row has no checksum: four zeros, then a text that nobody opens who has changed it."""
    seals = Seals(sealed_with(0))
    backend = SealedBackend(make(), seals)
    await backend.open()
    good = [record(seq) for seq in (1, 2)]
    await backend.write([replace(BEGIN, caller="caller", records=good)])
    await backend.close()
    with sqlite3.connect(file) as connection:
        _, (row,) = connection.execute("SELECT piece FROM records ORDER BY last_seq").fetchall()
    connection.close()
    assert row[:4] == bytes(4)
    content = file.read_bytes()
    assert content.count(row) == 1
    place = content.index(row)
    for offset in range(len(row)):
        damaged = bytearray(content)
        damaged[place + offset] ^= 0x10
        file.write_bytes(damaged)
        other = SealedBackend(make(), seals)
        await other.open()
        copy = await other.load("s")
        assert copy is not None
        # A changed key id stands for a missing key only if no key opens the record.
        assert copy.news == CopyTail(good[:1], is_damaged=True), offset
        await other.close()


@pytest.mark.parametrize("change", ["after_seq = 'x'", "after_seq = 0.5", "last_seq = 'x'", "last_seq = X'00'"])
async def test_a_sealed_record_whose_number_is_none_is_damaged(file: Path, make: Make, change: str) -> None:
    """Its row has no checksum, so each value in it may be of any type."""
    backend = SealedBackend(make(), Seals(sealed_with(0)))
    await backend.open()
    good = [record(seq) for seq in (1, 2)]
    await backend.write([replace(BEGIN, caller="caller", records=good, ending=FINISHED, last_seq=2)])
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE records SET {change} WHERE last_seq = 2")
    connection.close()
    copy = await backend.load("s")
    assert copy is not None
    assert copy.news == CopyTail(good[:1], is_damaged=True)
    assert await backend.tail({"s": 1}, 0.0) == {"s": CopyTail([], is_damaged=True)}


@pytest.mark.parametrize("gaps", [[(1, b"=\xff")], [(1, b"+a"), ("x", b"+b")]], ids=["text", "number"])
async def test_a_gap_that_was_written_by_another_hand_is_damaged(file: Path, make: Make, gaps: list[Any]) -> None:
    backend = await opened(make)
    await backend.write([BEGIN])
    with sqlite3.connect(file) as connection:
        rows = [(lost, _seal(text, "s", "gap", lost)) for lost, text in gaps]
        connection.executemany("INSERT INTO gaps SELECT key, ?, ? FROM streams", rows)
    connection.close()
    assert (await fault(backend.load("s"))).fault == "damaged"


@pytest.mark.parametrize("table", ["streams", "gaps", "claims"])
async def test_what_else_is_damaged_is_an_error(file: Path, make: Make, table: str) -> None:
    backend = await opened(make)
    await backend.write([BEGIN, changed("s", records=[record(1)], gap=Gap(1, "said", is_whole=True))])
    await take(backend, "key", Claim("s", "body"), 60)
    column = {"streams": "header", "gaps": "text", "claims": "value"}[table]
    for value in ("X''", "NULL" if table == "none" else "7", f"{column} || X'00'", "'text'", "X'0000000041'"):
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TEMP TABLE was AS SELECT * FROM " + table)
            connection.execute(f"UPDATE {table} SET {column} = {value}")
        call = take(backend, "key", Claim("t", "body"), 60) if table == "claims" else backend.load("s")
        assert (await fault(call)).fault == "damaged", value
        connection.close()


async def test_cancels_pass_between_this_release_and_earlier_ones(file: Path, make: Make) -> None:
    """A worker of an earlier release writes and removes ids of streams, each of which is a cancel."""
    backend = await opened(make)
    await backend.tell("theirs", "s", CANCEL)
    with sqlite3.connect(file) as connection:
        taken = connection.execute("DELETE FROM cancels WHERE worker = 'theirs' RETURNING stream").fetchall()
        connection.execute("INSERT OR IGNORE INTO cancels VALUES ('ours', 's', ?)", (time.monotonic(),))
    connection.close()
    assert taken == [("s",)]
    assert [*await backend.messages("ours", 1)] == [("s", CANCEL)]


@pytest.mark.parametrize("value", ["'now'", "X'00'", "X'ff'"])
async def test_a_damaged_lease_is_none(file: Path, make: Make, value: str) -> None:
    backend = await opened(make)
    for worker in ("damaged", "whole"):
        await backend.renew(worker)
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE leases SET renewed = {value} WHERE worker = 'damaged'")
    connection.close()
    assert await backend.leased(["damaged", "whole"]) == {"whole"}


async def test_a_damaged_end_is_no_end(file: Path, make: Make) -> None:
    backend = await opened(make)
    await backend.write([replace(BEGIN, records=[record(1)], ending=FINISHED, last_seq=1)])
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE streams SET ending = substr(ending, 1, 20)")
    connection.close()
    assert await backend.tail({"s": 0}, 0.0) == {"s": CopyTail([record(1)], is_damaged=True)}


async def test_a_locked_file_is_waited_for_and_then_reported(
    file: Path, make: Make, change_limits: ChangeLimits
) -> None:
    change_limits(store_busy=0.2)
    backend = await opened(make)
    await backend.write([BEGIN])
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    problem = await fault(backend.write([changed("s", records=[record(1)])]))
    assert (problem.fault, str(problem)) == ("busy", f"{file} is locked by another process (SQLITE_BUSY)")
    assert await backend.load("s") is not None, "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    assert not await backend.write([changed("s", records=[record(1)])])


async def test_those_who_wait_for_a_locked_file_do_not_wait_one_after_the_other(
    file: Path, make: Make, change_limits: ChangeLimits
) -> None:
    change_limits(store_busy=0.2)
    backend = await opened(make)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    claims = (take(backend, f"key {number}", Claim("s", "body"), 60) for number in range(50))
    problems = await asyncio.gather(*claims, return_exceptions=True)
    assert all(problem is problems[0] for problem in problems), "one of them has tried"
    assert isinstance(problems[0], StoreError)
    other.execute("ROLLBACK")
    other.close()
    assert await take(backend, "key", Claim("s", "body"), 60) is None


async def test_a_full_file_is_reported_and_goes_on_when_there_is_room(file: Path, make: Make) -> None:
    backend = await opened(make)
    await backend.write([BEGIN])
    pages = await backend._writer.call(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    await backend._writer.call(lambda connection: connection.execute(f"PRAGMA max_page_count={pages + 2}").fetchone())
    problem = await fault(backend.write([changed("s", records=[record(1, 100_000)])]))
    assert (problem.fault, str(problem)) == ("full", f"{file} has no room: its disk is full (SQLITE_FULL)")
    await backend._writer.call(lambda connection: connection.execute("PRAGMA max_page_count=100000").fetchone())
    assert not await backend.write([changed("s", records=[record(1, 100_000)])])
    assert await backend.tail({"s": 0}, 0.0) == {"s": CopyTail([record(1, 100_000)])}


async def test_a_limit_of_the_files_size_is_reported(file: Path, make: Make) -> None:
    backend = await opened(make)
    await backend.write([BEGIN])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * KIB, hard))
    try:
        assert (await fault(backend.write([changed("s", records=[record(1, 1_000_000)])]))).fault == "full"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert not await backend.write([changed("s", records=[record(1, 1_000_000)])])


async def test_a_file_that_cannot_be_written_is_reported(file: Path, make: Make) -> None:
    backend = await opened(make)
    await backend.write([BEGIN])
    await backend._writer.call(lambda connection: connection.execute("PRAGMA query_only=ON"))
    problem = await fault(backend.write([changed("s", records=[record(1)])]))
    assert (problem.fault, str(problem)) == ("read_only", f"{file} cannot be written (SQLITE_READONLY)")
    assert await backend.load("s") is not None


# ---- processes -------------------------------------------------------------------------------------------------------

WRITER = """
async def main(backend, name, count):
    await backend.open()
    await backend.write([CopyChange(name, LogHeader(name, "c", "m", "gai", "sse"), name, keep=60, epoch=1)])
    for seq in range(1, int(count) + 1):
        await backend.write([CopyChange(name, None, name, [Record(seq - 1, seq, b"%d" % seq)], epoch=1)])
        print(seq, flush=True)
    await backend.close()
"""


def run(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    return start(WRITER, f"SQLiteBackend(Path({str(file)!r}))", name, str(count))


async def test_several_processes_write_one_file(file: Path, make: Make) -> None:
    processes = [run(file, f"p{number}", 100) for number in range(3)]
    for process in processes:
        await asyncio.to_thread(process.communicate, timeout=2 * SECONDS)
        assert process.returncode == 0
    backend = await opened(make)
    for number in range(3):
        copy = await backend.load(f"p{number}")
        assert copy is not None
        assert [each.piece for each in copy.news.records] == [b"%d" % seq for seq in range(1, 101)]


async def test_what_was_written_survives_a_kill(file: Path, tmp_path: Path, make: Make) -> None:
    """Every record whose writing had returned is there, in the file as it lies then."""
    process = run(file, "s", 100_000)
    assert process.stdout is not None
    last = 0
    while last < 50:
        last = int(await asyncio.to_thread(process.stdout.readline))
    process.kill()
    rest, _ = await asyncio.to_thread(process.communicate)
    last = int(rest.split()[-1]) if rest.split() else last
    copied = tmp_path / "copy"
    copied.mkdir()
    for each in file.parent.glob("logs.db*"):
        shutil.copy(each, copied)
    for path in (file, copied / "logs.db"):
        backend = make(path)
        await backend.open()
        copy = await backend.load("s")
        assert copy is not None
        found = copy.news.records
        assert [each.last_seq for each in found] == [*range(1, len(found) + 1)]
        assert len(found) >= last


async def test_of_a_thousand_races_between_two_processes_each_has_one_winner(file: Path, make: Make) -> None:
    await (await opened(make)).close()
    first, second = await asyncio.to_thread(race, f"SQLiteBackend(Path({str(file)!r}))")
    assert first | second == {*range(1000)}
    assert not first & second


def test_a_switch_to_the_write_ahead_log_that_is_refused_at_once_is_made_again() -> None:
    """SQLite does not wait there for another process that is about to open the file first."""
    refusals = 3

    class Connection:
        def execute(self, _: str) -> sqlite3.Cursor:
            nonlocal refusals
            refusals -= 1
            if refusals >= 0:
                busy = sqlite3.OperationalError("database is locked")
                busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise busy
            return sqlite3.connect(":memory:").execute("SELECT 'wal'")

    assert _entered_wal(cast(Any, Connection())) == "wal"
    assert refusals == -1


# ---- what is removed -------------------------------------------------------------------------------------------------

SENTENCE = b"a prompt that nobody else may read "
PROMPT = SENTENCE * 40


def files_of(file: Path) -> bytes:
    return b"".join(each.read_bytes() for each in file.parent.glob(f"{file.name}*"))


@pytest.mark.parametrize("size", [1, 100], ids=["small", "of many pages"])
async def test_the_request_of_a_stream_is_in_no_file_soon_after_its_end(make: Make, file: Path, size: int) -> None:
    """The other process reads the file meanwhile, and wrote the last end that was swept."""
    here, there = make(), make()
    await here.open()
    await there.open()
    header = LogHeader("s", "caller", "m", "gai", "sse")
    await here.write([changed("s", header, keep=60.0, request=PROMPT * size)])
    assert await there.request_of("s") == PROMPT * size
    await here.write([changed("s", None, ending=Ending("finished", "stop"), request=b"", keep=60.0)])
    assert SENTENCE in files_of(file), "it stands in the log of the file"
    await there.sweep()
    await here.sweep()
    assert SENTENCE not in files_of(file)
    assert await there.load("s") is not None


async def test_a_log_that_is_read_is_emptied_by_a_later_sweep(make: Make, file: Path) -> None:
    backend = make()
    await backend.open()
    await backend.put("kind", "name", PROMPT, 60.0)
    with sqlite3.connect(file, isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT value FROM claims").fetchall()
        await backend.delete("kind", "name")
        await backend.sweep()
        assert SENTENCE in files_of(file)
        reader.execute("COMMIT")
    await backend.sweep()
    assert SENTENCE not in files_of(file)
