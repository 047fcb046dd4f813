"""Two processes over one store: a stream that is followed elsewhere, a worker that dies, a store that fails."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.limits import KIB
from gai_fast.model.settings import StoreSettings
from gai_fast.net.logs.closing import closing_of
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Claim, Ending, LogHeader, Store, StreamLog, check_url, open_store
from gai_fast.stores._base import frames_after
from tests.conftest import ChangeLimits
from tests.faults.proxy import FaultProxy, Faults
from tests.integration.stores.conftest import MakeServer
from tests.integration.stores.processes import start
from tests.integration.stores.servers import FAULTS, RedisServer
from tests.limits import LIMITS
from tests.soak.machines.network import StoreLink
from tests.waiting import SECONDS, until, until_answered

FINISHED = Ending("finished", "stop", {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
PAUSE = 2.6
"""Seconds for which a process or a network stands still: four renewals of a lease, and more."""
Open = Callable[..., "asyncio.Future[Store]"]


@pytest.fixture
async def open_at() -> AsyncIterator[Callable[..., object]]:
    made: list[Store] = []

    async def open_at(url: str, **options: object) -> Store:
        settings = StoreSettings(check_url(url, Path()), **options)
        timers = TimerWheel(asyncio.get_running_loop())
        made.append(open_store(settings, timers, claim_ttl=60))
        made[-1].closing_of = closing_of
        await made[-1].open()
        return made[-1]

    yield open_at
    for store in made:
        await store.close()


def begin(store: Store, stream_id: str = "s") -> StreamLog:
    return store.create(LogHeader(stream_id, "caller", "m", "gai", "sse"))


def frame(seq: int, stream_id: str = "s", text: str = "x") -> bytes:
    data = f'{{"type":"text.delta","text":"{text}"}}'
    return f"event: text.delta\nid: {stream_id}.{seq}\ndata: {data}\n\n".encode()


def fill(log: StreamLog, count: int, text: str = "x") -> None:
    for _ in range(count):
        seq = log.last_seq + 1
        log.append(frame(seq, log.header.stream_id, text), seq)


def rest(log: StreamLog, after: int = 0) -> bytes:
    return b"".join(log.read(after, 10**9).pieces)


async def found(store: Store, stream_id: str = "s") -> StreamLog:
    async def is_there() -> bool:
        return await store.find(stream_id) is not None

    await until_answered(is_there)
    log = await store.find(stream_id)
    assert log is not None
    return log


class Following:
    """A follower: what it read, from one log to the next."""

    def __init__(self) -> None:
        self.text = b""
        self.position = 0
        self.log: StreamLog | None = None

    def attach(self, log: StreamLog) -> None:
        backlog = log.read(self.position, 10**9)
        assert not backlog.lost
        self.text += b"".join(backlog.pieces)
        self.position = max(self.position, backlog.last_seq)
        self.log = log
        log.watch(self)

    def advanced(self, piece: bytes, last_seq: int) -> None:
        assert self.log is not None
        if last_seq > self.position:  # a mirror may be behind what the follower had elsewhere
            self.text += frames_after(piece, self.log.header, self.position)
            self.position = last_seq

    def ended(self) -> None:
        pass


# ---- followers elsewhere ---------------------------------------------------------------------------------------------


async def test_followers_elsewhere_that_are_cut_again_and_again_get_every_event_once(
    url: str, open_at: Open, make_server: object
) -> None:
    here, there = await open_at(url), await open_at(url)
    chance = random.Random(3)
    log = begin(here)
    fill(log, 1)
    followers = [Following() for _ in range(5)]
    mirror = await found(there)
    for _ in range(60):
        fill(log, chance.choice([1, 1, 5, 40]))
        for follower in followers:
            match chance.randrange(4):
                case 0 if follower.log is not None:
                    follower.log.unwatch(follower)
                    follower.log = None
                case 1 if follower.log is None:
                    follower.attach(await found(chance.choice([here, there])))
        await asyncio.sleep(0.005)
    log.end(FINISHED)
    await until(lambda: mirror.ending is not None)
    for follower in followers:
        if follower.log is None or follower.log is mirror:
            follower.attach(await found(there))
    said = rest(log)
    assert mirror.ending == FINISHED
    assert rest(mirror) == said
    for follower in followers:
        assert follower.text == said


async def test_a_stream_outlives_its_process(url: str, open_at: Open) -> None:
    first = await open_at(url)
    log = begin(first)
    fill(log, 500)
    log.end(FINISHED)
    said = rest(log)
    await first.close()
    second = await open_at(url)
    copy = await found(second)
    assert (rest(copy), copy.ending, copy.header) == (said, FINISHED, log.header)
    assert rest(copy, 400) == b"".join(frame(seq) for seq in range(401, 501))


async def test_a_stream_without_its_beginning_has_an_explicit_gap_elsewhere(url: str, open_at: Open) -> None:
    options = {"max_stream_bytes": 32 * KIB}
    here, there = await open_at(url, **options), await open_at(url, **options)
    log = begin(here)
    for _ in range(40):
        fill(log, 50, text="ü")
        await asyncio.sleep(0.005)
    log.end(FINISHED)

    async def has_ended() -> bool:
        copy = await there.find("s")
        return copy is not None and copy.ending is not None

    await until_answered(has_ended)
    backlog = (await found(there)).read(0, 10**9)
    assert backlog.lost > 500
    assert backlog.text == "ü" * backlog.lost
    assert b"".join(backlog.pieces) == b"".join(frame(seq, text="ü") for seq in range(backlog.lost + 1, 2001))


# ---- workers that die ------------------------------------------------------------------------------------------------

OWNER = """
async def main(backend, url):
    from gai_fast.model.settings import StoreSettings
    from gai_fast.stores import open_store
    from gai_fast.runtime.timers import TimerWheel
    store = open_store(StoreSettings(url), TimerWheel(asyncio.get_running_loop()), claim_ttl=60)
    await store.open()
    log = store.create(LogHeader("s", "caller", "m", "gai", "sse"))
    for seq in range(1, 1_000_000):
        data = '{"type":"text.delta","text":"x"}'
        log.append(f"event: text.delta\\nid: s.{seq}\\ndata: {data}\\n\\n".encode(), seq)
        if seq == 30:
            await asyncio.to_thread(sys.stdin.readline)
        await asyncio.sleep(0.01)
"""


@pytest.fixture
def owner(url: str) -> Iterator[subprocess.Popen[str]]:
    """Yields another process that runs the stream `s`; it pauses after 30 events, until it is sent a line."""
    process = start(OWNER, "None", check_url(url, Path()))
    yield process
    process.kill()
    process.communicate()


async def test_the_followers_of_a_killed_worker_get_what_it_stored_and_are_notified(
    url: str, open_at: Open, owner: subprocess.Popen[str]
) -> None:
    store = await open_at(url)
    log = await found(store)
    follower = Following()
    follower.attach(log)
    await until(lambda: follower.position == 30)
    go_on(owner)
    await until(lambda: follower.position > 40)
    owner.kill()
    await until(lambda: log.is_over)
    assert log.ending is not None
    assert log.ending.is_lost
    said, _, gap = follower.text.partition(b"event: stream.gap\n")
    last_seq = said.count(b"event: text.delta")
    assert said == b"".join(frame(seq) for seq in range(1, last_seq + 1))
    [step, rest_of_step] = divmod(follower.position - 1 - last_seq, LIMITS.takeover_step)
    assert (rest_of_step, 1 <= step <= LIMITS.takeover_steps) == (0, True)
    assert b'"text":"%b"' % (b"x" * last_seq) in gap
    assert gap.index(b"event: error\nid: s.%d\n" % follower.position) < gap.index(b"event: done\n")
    again = await found(await open_at(url))
    assert (rest(again), again.ending) == (follower.text, log.ending)


def go_on(owner: subprocess.Popen[str]) -> None:
    """Lets it end its pause."""
    assert owner.stdin is not None
    owner.stdin.write("\n")
    owner.stdin.flush()


async def test_a_worker_that_stands_still_for_a_moment_is_not_gone(
    url: str, open_at: Open, owner: subprocess.Popen[str]
) -> None:
    store = await open_at(url)
    log = await found(store)
    follower = Following()
    follower.attach(log)
    go_on(owner)
    await until(lambda: follower.position > 5)
    os.kill(owner.pid, signal.SIGSTOP)
    await asyncio.sleep(PAUSE)
    os.kill(owner.pid, signal.SIGCONT)
    position = follower.position
    await until(lambda: follower.position > position + 50)
    assert not log.is_over


async def test_a_machine_that_loses_its_store_for_seconds_is_not_gone_and_its_followers_wait(
    redis_server: RedisServer, open_at: Open
) -> None:
    """They got `worker_lost`, or `log_behind` if they came back, and the log had `finish` later."""
    there = await open_at(redis_server.url)
    async with FaultProxy(redis_server.url.removeprefix("redis://"), Faults()) as proxy:
        here = await open_at(f"redis://{proxy.url.removeprefix('http://')}")
        log = begin(here)
        fill(log, 3)
        follower = Following()
        follower.attach(await found(there))
        await until(lambda: follower.position == 3)
        proxy.faults = Faults(is_down=True)
        proxy.cut()
        fill(log, 3)
        await asyncio.sleep(PAUSE)
        assert follower.log is not None
        assert not follower.log.is_over
        late = await found(there)
        assert not late.is_over, "a follower with the last event comes back, and waits for the others"
        proxy.faults = Faults()
        log.end(FINISHED)
        await until(lambda: late.is_over)
        assert (late.ending, rest(late), follower.text) == (FINISHED, rest(log), rest(log))


async def test_streams_that_begin_while_their_machine_cannot_reach_the_store_are_never_unknown(
    redis_server: RedisServer, open_at: Open
) -> None:
    """Others had never heard of them: 404, though they ran."""
    there = await open_at(redis_server.url)
    async with linked(redis_server) as link:
        here = await open_at(link.url)
        assert await there.find("s") is None
        link.refuse()
        await until_answered(lambda: is_late(there))
        log = begin(here)
        fill(log, 3)
        with pytest.raises(Error) as refused:
            await there.find("s")
        assert (refused.value.code, refused.value.reason, refused.value.temporary) == ("overloaded", "store", True)
        link.heal()
        log.end(FINISHED)
        await until_answered(lambda: is_whole(there, log))

        async def is_unknown() -> bool:
            try:
                return await there.find("unknown") is None
            except Error:
                return False

        await until_answered(is_unknown)


async def is_late(store: Store) -> bool:
    """Returns whether a worker has not reached the store lately."""
    assert store._backend is not None
    return bool(await store._backend.late())


@asynccontextmanager
async def linked(server: RedisServer) -> AsyncIterator[StoreLink]:
    """Yields the network of one machine."""
    link = StoreLink(server.port)
    await link.start()
    yield link
    await link.stop()


@pytest.mark.parametrize("is_idle", [False, True])
async def test_a_replica_that_lacks_the_last_writes_gets_them_from_the_memory_of_their_process(
    make_server: MakeServer, open_at: Open, change_limits: ChangeLimits, is_idle: bool
) -> None:
    """Copies had a hole or no end: followers got `log_damaged`, or waited for ever, though the stream lived."""
    change_limits(store_retry=0.2)
    server = make_server()
    replica = make_server("--replicaof", "127.0.0.1", str(server.port))
    await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
    async with linked(server) as link:
        here, there = await open_at(link.url), await open_at(link.url)
        log, ended = begin(here), begin(here, "ended")
        for each in (log, ended):
            fill(each, 3)
            await found(there, each.header.stream_id)
        follower = Following()
        follower.attach(await found(there))
        await until(lambda: follower.position == 3)
        replica.command("REPLICAOF", "NO", "ONE")
        fill(log, 3)
        fill(ended, 3)
        ended.end(FINISHED)
        await until_answered(lambda: is_whole(there, ended))
        await until(lambda: follower.position == 6)
        server.kill()
        third = await open_at(replica.url)
        link.lead_to(replica.port)
        if not is_idle:
            fill(log, 3)
        await until_answered(lambda: is_whole(third, ended))
        log.end(FINISHED)
        await until_answered(lambda: is_whole(third, log))
        late = await found(third)
        assert late.broken is None
        assert follower.log is not None
        await until(lambda: follower.log is not None and follower.log.is_over)
        assert (follower.log.ending, follower.text) == (FINISHED, rest(log))


async def test_streams_that_have_ended_are_written_again_when_the_store_has_lost_them(
    redis_server: RedisServer, open_at: Open
) -> None:
    """A client that came back through another machine lost the rest of its answer."""
    here, there = await open_at(redis_server.url), await open_at(redis_server.url)
    log = begin(here)
    fill(log, 3)
    log.end(FINISHED)
    third = await open_at(redis_server.url)
    await until_answered(lambda: is_whole(there, log))
    redis_server.command("FLUSHALL")
    await until_answered(lambda: is_whole(third, log))


async def test_live_streams_that_the_store_has_lost_are_refused_for_now_and_never_unknown(
    redis_server: RedisServer, open_at: Open
) -> None:
    here, there = await open_at(redis_server.url), await open_at(redis_server.url)
    log = begin(here)
    fill(log, 3)
    await found(there)
    third = await open_at(redis_server.url)
    redis_server.command("FLUSHALL")
    looked: object
    try:
        looked = await third.find("s")
    except Error as refused:
        looked = refused.code, refused.reason, refused.temporary
    # It may be written anew before the last look.
    assert looked == ("overloaded", "store", True) or isinstance(looked, StreamLog)
    await until_answered(lambda: is_whole(third, log))


# ---- keys ------------------------------------------------------------------------------------------------------------


async def test_of_many_who_come_with_a_key_one_runs_the_stream_and_all_others_find_it(url: str, open_at: Open) -> None:
    stores = [await open_at(url), await open_at(url)]

    async def come(number: int) -> str:
        store, own = stores[number % 2], f"stream{number}"
        standing = await store.claim("caller /v1 key", Claim(own, "body"))
        if standing is None:
            log = begin(store, own)
            fill(log, 10)
            log.end(FINISHED)
            return own
        assert standing.fingerprint == "body"
        return (await found(store, standing.stream_id)).header.stream_id

    assert len({*await asyncio.gather(*(come(number) for number in range(40)))}) == 1


# ---- a store that fails ----------------------------------------------------------------------------------------------


async def test_streams_outlive_a_server_that_is_killed(
    make_server: MakeServer, open_at: Open, change_limits: ChangeLimits
) -> None:
    change_limits(store_retry=0.2)
    server = make_server()
    here, there = await open_at(server.url), await open_at(server.url)
    log = begin(here)
    ended = begin(here, "ended")
    fill(log, 10)
    fill(ended, 10)
    ended.end(FINISHED)
    mirror = await found(there)
    await until(lambda: mirror.last_seq == 10)
    server.kill()
    fill(log, 10)
    await until(lambda: here.is_degraded and log.is_degraded)
    assert here.durability == "degraded"
    assert await here.find("s") is log
    with pytest.raises(Error) as refused:
        await here.find("elsewhere")
    assert (refused.value.code, refused.value.reason, refused.value.temporary) == ("overloaded", "store", True)
    with pytest.raises(Error):
        await here.claim("key", Claim("s", "body"))
    server.start()
    await until(lambda: not here.is_degraded and not log.is_degraded)
    fill(log, 10)
    log.end(FINISHED)
    await until_answered(lambda: is_whole(there, log))
    assert await there.claim("key", Claim("s", "body")) is None


@pytest.mark.parametrize("fault", FAULTS)
async def test_after_a_server_has_failed_nothing_stays_failed(
    make_server: MakeServer, open_at: Open, change_limits: ChangeLimits, fault: str
) -> None:
    change_limits(store_retry=0.2)
    server = make_server()
    stores = [await open_at(server.url), await open_at(server.url)]
    cancelled: list[str] = []
    serving = [
        asyncio.ensure_future(store._messages.serve(lambda *each: cancelled.append(each[0]))) for store in stores
    ]
    begin_fault, end_fault = FAULTS[fault]
    begin_fault(server)
    for number, store in enumerate(stores):
        fill(begin(store, f"before{number}"), 1)
    await until(lambda: all(store.is_degraded for store in stores))
    end_fault(server)
    await until(lambda: not any(store.is_degraded for store in stores))
    for number, here in enumerate(stores):
        there = stores[1 - number]
        assert await here.claim(f"key{number}", Claim(f"s{number}", "body")) is None
        log = begin(here, f"s{number}")
        fill(log, 1)
        copy = await found(there, f"s{number}")
        cancelling = asyncio.ensure_future(there.cancel(copy))
        await until(lambda: f"s{number}" in cancelled)  # noqa: B023  # called within this round
        log.end(FINISHED)
        await cancelling
        await until(lambda: copy.ending == FINISHED)  # noqa: B023  # called within this round
        assert (await found(there, f"before{number}")).last_seq == 1
    for task in serving:
        task.cancel()
    await asyncio.wait(serving)


async def is_whole(store: Store, log: StreamLog) -> bool:
    """Returns whether another process has all of a log."""
    try:
        copy = await store.find(log.header.stream_id)
    except Error:
        return False
    return copy is not None and copy.ending == log.ending and rest(copy) == rest(log)


async def test_a_server_that_hangs_delays_nothing(
    make_server: MakeServer, open_at: Open, change_limits: ChangeLimits
) -> None:
    change_limits(store_timeout=2.0)
    server = make_server()
    store = await open_at(server.url)
    log = begin(store)
    server.pause()
    try:
        for _ in range(100):
            fill(log, 100)  # no await: a log that waited would never be 10,000 events long
            await asyncio.sleep(0)
        assert log.last_seq == 10_000
        await until(lambda: store.is_degraded)
    finally:
        server.resume()
    log.end(FINISHED)
    other = await open_at(server.url)
    await until_answered(lambda: is_whole(other, log))


async def test_a_server_that_hangs_is_refused_for_within_the_time_of_an_answer_and_streams_are_kept(
    make_server: MakeServer, open_at: Open, change_limits: ChangeLimits
) -> None:
    """The first request with a key waited 5 s, and a follower for 4 s."""
    change_limits(store_timeout=SECONDS)
    server = make_server()
    here, there = await open_at(server.url), await open_at(server.url)
    fill(begin(here), 3)
    server.pause()
    try:
        for asked in (here.claim("key", Claim("s", "body")), there.find("s")):
            with pytest.raises(Error) as refused:
                await asked
            assert (refused.value.code, refused.value.reason, refused.value.temporary) == ("overloaded", "store", True)
        assert not here.is_degraded, "what is written waits for longer"
    finally:
        server.resume()
    await until_answered(lambda: is_taken(here))


async def is_taken(store: Store) -> bool:
    """Returns whether a key can be taken, which may have been taken while nobody heard of it."""
    try:
        return await store.claim("key", Claim("s", "body")) is None
    except Error:
        return False


async def test_a_slow_server_delays_no_token(redis_server: RedisServer, open_at: Open) -> None:
    """Each of its answers takes 200 ms; a follower has every piece before the call that appends it returns."""
    async with FaultProxy(redis_server.url.removeprefix("redis://"), Faults(latency=0.2)) as proxy:
        store = await open_at(f"redis://{proxy.url.removeprefix('http://')}")
        log = begin(store)
        follower = Following()
        follower.attach(log)
        for seq in range(1, 500):
            fill(log, 1)
            assert follower.position == seq
            await asyncio.sleep(0.002)
        log.end(FINISHED)
        assert not store.is_degraded
        other = await open_at(redis_server.url)
        await until_answered(lambda: is_whole(other, log))


@pytest.mark.parametrize("sync", ["batched", "before_send"])
async def test_a_full_server_ends_no_stream(make_server: MakeServer, open_at: Open, sync: str) -> None:
    server = make_server()
    store = await open_at(server.url, sync=sync)
    log = begin(store)
    fill_ahead(log, 1)
    await until(lambda: log.last_seq == 1)
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    fill_ahead(log, 2)
    await until(lambda: log.last_seq == 2)
    await until(lambda: log.is_degraded)
    server.command("CONFIG", "SET", "maxmemory", "0")
    await until(lambda: not log.is_degraded)
    fill_ahead(log, 3)
    await until(lambda: log.last_seq == 3)
    log.end(FINISHED)
    await until(lambda: log.ending == FINISHED)
    other = await open_at(server.url)
    await until_answered(lambda: is_whole(other, log))


def fill_ahead(log: StreamLog, seq: int) -> None:
    """One piece, which may not be readable yet."""
    log.append(frame(seq), seq)


async def test_somebody_elses_value_under_one_key_keeps_no_other_stream_from_its_copy(
    redis_server: RedisServer, open_at: Open
) -> None:
    store = await open_at(redis_server.url)
    redis_server.command("SET", "gai:{s}:log", "mine")
    logs = {stream_id: begin(store, stream_id) for stream_id in ("first", "s", "last")}
    for log in logs.values():
        fill(log, 3)
        log.end(FINISHED)
    elsewhere = await open_at(redis_server.url)
    for stream_id in ("first", "last"):
        copy = await found(elsewhere, stream_id)
        await until(lambda: copy.ending == FINISHED)  # noqa: B023  # called within this round
        assert rest(copy) == rest(logs[stream_id])
    assert logs["s"].is_degraded


async def test_followers_of_a_stream_whose_key_holds_another_value_are_notified_and_no_others(
    redis_server: RedisServer, open_at: Open
) -> None:
    here, elsewhere = await open_at(redis_server.url), await open_at(redis_server.url)
    logs, followed = {}, {}
    for stream_id in ("first", "s", "last"):
        logs[stream_id] = begin(here, stream_id)
        fill(logs[stream_id], 1)
        followed[stream_id] = await found(elsewhere, stream_id)
    redis_server.command("SET", "gai:{s}:log", "mine")
    await until(lambda: followed["s"].broken is not None)
    assert followed["s"].broken.reason == "log_damaged"
    for stream_id in ("first", "last"):
        fill(logs[stream_id], 3)
        logs[stream_id].end(FINISHED)
        await until(lambda: followed[stream_id].ending == FINISHED)  # noqa: B023  # called within this round
        assert rest(followed[stream_id]) == rest(logs[stream_id])


@pytest.mark.parametrize("evicted", ["head", "log"])
async def test_a_copy_of_which_half_was_evicted_is_written_anew_while_its_stream_runs(
    redis_server: RedisServer, open_at: Open, evicted: str
) -> None:
    here, there = await open_at(redis_server.url), await open_at(redis_server.url)
    log = begin(here)
    fill(log, 10)
    mirror = await found(there)
    await until(lambda: mirror.last_seq == 10)
    redis_server.command("DEL", f"gai:{{s}}:{evicted}")
    await until(lambda: mirror.broken is not None)
    assert await there.find("s") is None
    fill(log, 10)
    again = await found(there)
    log.end(FINISHED)
    await until(lambda: again.ending == FINISHED)
    assert rest(again) == rest(log)


async def test_before_send_a_reader_never_has_what_the_store_does_not(url: str, open_at: Open) -> None:
    here, there = await open_at(url, sync="before_send"), await open_at(url)
    log = begin(here)
    for seq in range(1, 40):
        fill_ahead(log, seq)
        await until(lambda seq=seq: log.last_seq == seq)
        backend = there._backend
        assert backend is not None
        news = await backend.tail({"s": seq - 1}, 0.0)
        assert news["s"].records[-1].last_seq == seq
    log.end(FINISHED)
