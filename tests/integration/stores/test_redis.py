"""`gai_fast/stores/redis.py`: what refusals mean; the server may come and go; no reply is mistaken for another."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace

from gai_fast.model.limits import MIB
from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Claim, Ending, LogHeader, StoreError
from gai_fast.stores.alive import Alive
from gai_fast.stores.backend import CANCEL, Backend, CopyTail, Gap, Record, ending_text
from gai_fast.stores.health import Health
from gai_fast.stores.memory import LogMemory
from gai_fast.stores.mirror import Mirrors
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.redis_client import RedisClient, Script
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.seals import Seals
from tests.conftest import ChangeLimits
from tests.integration.certificates import Authority
from tests.integration.stores.changes import changed
from tests.integration.stores.conftest import MakeServer
from tests.integration.stores.processes import race
from tests.integration.stores.sealing import sealed_with
from tests.integration.stores.servers import RedisServer, SlowLink
from tests.limits import LIMITS
from tests.ports import free_port
from tests.records import free, take
from tests.unit.stores.test_journal import Watching
from tests.waiting import SECONDS, until, until_answered

pytestmark = pytest.mark.usefixtures("needs_redis")

FINISHED = Ending("finished", "stop")
HEADER = LogHeader("s", "caller", "m", "gai", "sse")
BEGIN = changed("s", HEADER, "worker", keep=60)
Make = Callable[[str], Backend]
ECHO = Script("return {ARGV[1], redis.call('GET', KEYS[1]) or ''}")


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Backend] = []

    def make(url: str) -> Backend:
        made.append(RedisBackend(url))
        return made[-1]

    yield make
    for backend in made:
        await backend.close()


async def opened(make: Make, url: str) -> Backend:
    backend = make(url)
    await backend.open()
    return backend


def record(seq: int, size: int = 20) -> Record:
    return Record(seq - 1, seq, b"%d" % (seq % 10) * size)


async def scripted(make: Make, url: str) -> RedisBackend:
    backend = await opened(make, url)
    assert isinstance(backend, RedisBackend)
    return backend


async def fault(call: object) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await call
    assert "secret" not in str(raised.value)
    return raised.value


# ---- what the server refuses -----------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_reported(make: Make) -> None:
    port = free_port()
    problem = await fault(make(f"redis://:secret@127.0.0.1:{port}/2").open())
    assert (problem.fault, str(problem)) == ("unreachable", f"redis://127.0.0.1:{port} cannot be reached")


async def test_a_wrong_password_is_reported_and_not_shown(make: Make, make_server: MakeServer) -> None:
    server = make_server("--requirepass", "right-secret")
    for user in ("", ":wrong-secret@", "nobody:wrong-secret@"):
        problem = await fault(make(f"redis://{user}127.0.0.1:{server.port}").open())
        assert problem.fault == "refused"
        assert "password" in str(problem)
    await opened(make, f"redis://:right-secret@127.0.0.1:{server.port}")


async def test_a_user_who_may_not_write_is_reported(make: Make, make_server: MakeServer) -> None:
    server = make_server()
    server.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+info")
    problem = await fault(make(f"redis://reader:secret@127.0.0.1:{server.port}").open())
    assert (problem.fault, str(problem)) == (
        "refused",
        f"redis://127.0.0.1:{server.port} does not permit our user a command or key",
    )


async def test_a_replica_is_reported(make: Make, make_server: MakeServer) -> None:
    server = make_server()
    backend = await opened(make, server.url)
    server.command("REPLICAOF", "127.0.0.1", "1")
    assert (await fault(backend.write([BEGIN]))).fault == "read_only"
    assert (await fault(take(backend, "k", Claim("s", "f"), 1))).fault == "read_only"
    assert (await fault(make(server.url).open())).fault == "read_only"
    server.command("REPLICAOF", "NO", "ONE")
    assert not await backend.write([BEGIN])


async def test_a_server_without_memory_is_reported_and_goes_on_when_it_has_some(
    make: Make, make_server: MakeServer
) -> None:
    server = make_server()
    backend = await opened(make, server.url)
    await backend.write([BEGIN])
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    problem = await fault(backend.write([changed("s", records=[record(1)])]))
    assert (problem.fault, str(problem)) == ("full", f"{server.url} has no memory left")
    assert (await fault(make(server.url).open())).fault == "full"
    assert await backend.load("s") is not None, "reading goes on"
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert not await backend.write([changed("s", records=[record(1)])])
    assert await backend.tail({"s": 0}, 0.01) == {"s": CopyTail([record(1)])}


async def test_a_server_that_has_too_many_clients_is_reported(make: Make, make_server: MakeServer) -> None:
    server = make_server("--maxclients", "1")
    with contextlib.closing(await connection(server.port)):
        problem = await fault(make(server.url).open())
    assert (problem.fault, str(problem)) == ("refused", f"{server.url} has too many clients")


async def test_a_server_that_is_opened_again_has_no_connections_of_before(
    make: Make, redis_server: RedisServer
) -> None:
    """If the first lease was refused after the server had been opened, every attempt left its connections."""
    backend = make(redis_server.url)
    counts = []
    for _ in range(3):
        await backend.open()
        await backend.kept(["s"])
        counts.append(redis_server.command("CLIENT", "LIST").count(b"id="))
    assert counts[0] == counts[-1]


async def connection(port: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PING\r\n")
    await reader.readline()
    return writer


@pytest.mark.parametrize(("policy", "warnings"), [("allkeys-lru", 1), ("noeviction", 0), ("volatile-ttl", 1)])
async def test_a_server_that_may_forget_streams_is_warned_of(
    make: Make, make_server: MakeServer, caplog: pytest.LogCaptureFixture, policy: str, warnings: int
) -> None:
    await opened(make, make_server("--maxmemory-policy", policy).url)
    assert [record.getMessage().count(f"(maxmemory-policy {policy})") for record in caplog.records] == [1] * warnings


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "busy"),
        (b"-BUSY Redis is busy running a script\r\n", "busy"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "busy"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "busy"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", "full"),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", "full"),
        (b"-UNBLOCKED force unblock, instance state changed\r\n", "read_only"),
        (b"-DENIED Redis is running in protected mode\r\n", "refused"),
        (b"-ERR max number of clients reached\r\n", "refused"),
        (b"-ERR unknown command 'secret'\r\n", "unsuitable"),
        (b"-SECRET secret\r\n", "unsuitable"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "unsuitable"),
        (b"$100\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n".ljust(107, b" ") + b"\r\n", "unsuitable"),
        (b"", "unreachable"),
    ],
    ids=lambda value: value.decode().split(" ")[0].strip()[:12] if isinstance(value, bytes) else value,
)
async def test_every_refusal_has_its_meaning(make: Make, reply: bytes, kind: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while reply and await reader.read(1 << 16):
            writer.write(reply)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        problem = await fault(make(f"redis://127.0.0.1:{port}").open())
        assert problem.fault == kind
        assert str(problem).startswith(f"redis://127.0.0.1:{port} ")


async def test_a_server_that_does_not_answer_is_reported(
    make: Make, make_server: MakeServer, change_limits: ChangeLimits
) -> None:
    change_limits(store_timeout=2.0)
    server = make_server()
    backend = await opened(make, server.url)
    server.pause()
    try:
        problem = await fault(backend.write([BEGIN]))
        assert (problem.fault, str(problem)) == ("unreachable", f"{server.url} does not answer in time")
    finally:
        server.resume()
    assert not await backend.write([BEGIN])


async def test_those_who_wait_for_a_server_that_hangs_do_not_wait_one_after_the_other(
    make: Make, make_server: MakeServer, change_limits: ChangeLimits
) -> None:
    change_limits(store_timeout=2.0, store_connections=2)
    server = make_server()
    backend = await opened(make, server.url)
    server.pause()
    try:
        problems = await asyncio.gather(*(backend.load("s") for _ in range(50)), return_exceptions=True)
    finally:
        server.resume()
    assert all(isinstance(problem, StoreError) for problem in problems)
    assert len({*problems}) == 2, "only those have tried whose turn it was"
    assert await backend.load("s") is None


async def test_a_foreign_value_under_our_key_is_reported(make: Make, redis_server: RedisServer) -> None:
    backend = await opened(make, redis_server.url)
    redis_server.command("SET", "gai:{s}:log", "mine")
    assert (await fault(backend.write([replace(BEGIN, records=[record(1)])]))).fault == "damaged"
    redis_server.command("SET", "gai:{t}:head", "mine")
    assert (await fault(backend.load("t"))).fault == "damaged"
    highest = 2**64 - 1
    redis_server.command("XADD", "gai:{u}:log", f"{highest}-{highest}", "mine", "x")
    assert (await fault(backend.write([changed("u", None, records=[record(1)])]))).fault == "damaged"


@pytest.mark.parametrize(
    "entry", [["piece", "x"], ["ending", "{"], ["after", "y", "at", "0", "piece", "x"], ["mine", "x"]]
)
async def test_an_entry_that_is_not_ours_is_damage(make: Make, redis_server: RedisServer, entry: list[str]) -> None:
    backend = await opened(make, redis_server.url)
    await backend.write([replace(BEGIN, records=[record(1)])])
    redis_server.command("XADD", "gai:{s}:log", "2-0", *entry)
    assert await backend.tail({"s": 0}, 0.01) == {"s": CopyTail([record(1)], is_damaged=True)}


async def test_an_end_before_which_a_record_is_missing_is_damage(make: Make, redis_server: RedisServer) -> None:
    """The server may refuse one command of a pipeline, and take those after it: no stream looks complete then."""
    backend = await opened(make, redis_server.url)
    await backend.write([replace(BEGIN, records=[record(1)])])
    redis_server.command("XADD", "gai:{s}:log", "2-2", "ending", ending_text(FINISHED))
    copy = await backend.load("s")
    assert copy is not None
    assert copy.news == CopyTail([record(1)], is_damaged=True)
    assert await backend.tail({"s": 1}, 0.01) == {"s": CopyTail([], is_damaged=True)}
    assert await backend.tail({"s": 2}, 0.01) == {"s": CopyTail([], FINISHED)}


@pytest.mark.parametrize(
    ("field", "value"),
    [("gap:x", "="), ("gap:1", b"=\xff"), ("gap:9223372036854775808", "="), ("header", '["w","s",5,"m","gai","sse"]')],
)
async def test_a_field_that_is_not_ours_is_damage(
    make: Make, redis_server: RedisServer, field: str, value: str | bytes
) -> None:
    """With a number that no event has, followers of all streams waited."""
    backend = await opened(make, redis_server.url)
    await backend.write([replace(BEGIN, records=[record(1)])])
    redis_server.command("HSET", "gai:{s}:head", field, value)
    assert (await fault(backend.load("s"))).fault == "damaged"


async def test_a_field_that_is_not_ours_keeps_no_gap_from_being_written(make: Make, redis_server: RedisServer) -> None:
    backend = await opened(make, redis_server.url)
    await backend.write([replace(BEGIN, records=[record(1), record(2)])])
    redis_server.command("HSET", "gai:{s}:head", "gap:x", "mine")
    assert not await backend.write([changed("s", gap=Gap(1, "said", is_whole=True))])
    copy = await backend.load("s")
    assert copy is not None
    assert (copy.lost, copy.text) == (1, "said")


async def test_followers_are_noted_beside_a_copy_that_is_damaged(make: Make, redis_server: RedisServer) -> None:
    """The followers of all other workers' streams once got an error, as if the store were out of reach."""
    backend = await opened(make, redis_server.url)
    await backend.write([BEGIN])
    redis_server.command("SET", "gai:{mine}:head", "mine")
    await backend.note_followers(["mine", "s"])
    assert await backend.followed_ago("s") is not None


@pytest.mark.parametrize("evicted", ["head", "log"])
async def test_half_of_a_copy_is_none(make: Make, redis_server: RedisServer, evicted: str) -> None:
    """A server that evicts keys takes one of the two: followers of what was left waited for its end for ever."""
    backend = await opened(make, redis_server.url)
    await backend.write([replace(BEGIN, records=[record(1)], ending=FINISHED, last_seq=1)])
    redis_server.command("DEL", f"gai:{{s}}:{evicted}")
    assert not await backend.kept(["s"])
    assert await backend.load("s") is None
    assert set(await backend.write([changed("s", records=[record(2)])])) == {"s"}, "whoever writes it writes it anew"


async def test_a_copy_that_begins_while_it_is_looked_for_stays(make: Make, redis_server: RedisServer) -> None:
    """Three commands are not of one moment: the removal of half a copy looks again."""
    backend = await opened(make, redis_server.url)
    await backend.write([replace(BEGIN, records=[record(1)])])
    assert isinstance(backend, RedisBackend)
    await backend._remove_half("s")
    assert await backend.load("s") is not None


async def test_a_missing_copy_that_is_to_live_longer_is_reported(make: Make, redis_server: RedisServer) -> None:
    """A silent stream adds nothing else to its copy."""
    backend = await opened(make, redis_server.url)
    assert set(await backend.write([changed("s", keep=30)])) == {"s"}


@pytest.mark.parametrize("damage", ["swapped", "put back", "another stream's", "a flipped bit", "a cut", "the end"])
async def test_an_entry_that_does_not_fit_its_checksum_is_never_served(
    make: Make, redis_server: RedisServer, damage: str
) -> None:
    """Swapped entries were served as text, and a cut came out as broken JSON."""
    import redis

    backend = await opened(make, redis_server.url)
    for stream_id in ("s", "t"):
        begin = replace(BEGIN, stream_id=stream_id, header=HEADER._replace(stream_id=stream_id))
        records = [Record(seq - 1, seq, b"%b %d" % (stream_id.encode(), seq)) for seq in (1, 2, 3)]
        await backend.write([replace(begin, records=records, ending=FINISHED, last_seq=3)])
    client = redis.Redis.from_url(redis_server.url)
    entries = client.xrange("gai:{s}:log")
    fields = {number: dict(found) for number, found in entries}
    others = dict(client.xrange("gai:{t}:log"))
    at = b"3-2" if damage == "the end" else b"2-0"
    entry = fields[at]
    if damage == "swapped":
        fields[b"2-0"], fields[b"3-0"] = fields[b"3-0"], fields[b"2-0"]
    elif damage == "put back":
        fields[b"2-0"] = {**fields[b"1-0"], b"after": b"1"}
    elif damage == "another stream's":
        fields[b"2-0"] = others[b"2-0"]
    elif damage == "a flipped bit":
        entry[b"piece"] = bytes([entry[b"piece"][0] ^ 1]) + entry[b"piece"][1:]
    elif damage == "a cut":
        entry[b"piece"] = entry[b"piece"][:-1]
    else:
        entry[b"ending"] = entry[b"ending"].replace(b"finished", b"finishes")
    client.delete("gai:{s}:log")
    for number, found in fields.items():
        client.xadd("gai:{s}:log", found, id=number)
    client.close()
    copy = await backend.load("s")
    assert copy is not None
    assert copy.news.is_damaged
    assert [each.piece for each in copy.news.records] == [b"s 1", b"s 2", b"s 3"][: 3 if damage == "the end" else 1]


async def test_the_entries_of_a_former_release_stay_readable(make: Make, redis_server: RedisServer) -> None:
    import redis

    backend = await opened(make, redis_server.url)
    await backend.write([replace(BEGIN, records=[Record(0, 1, b"one")])])
    client = redis.Redis.from_url(redis_server.url)
    client.xadd("gai:{s}:log", {"after": 1, "piece": b"two"}, id="2-0")
    client.xadd("gai:{s}:log", {"ending": ending_text(FINISHED)}, id="2-2")
    client.close()
    copy = await backend.load("s")
    assert copy is not None
    assert copy.news == CopyTail([Record(0, 1, b"one"), Record(1, 2, b"two")], FINISHED)


@pytest.mark.parametrize(
    ("field", "taken_from"),
    [("header", "other:header"), ("gap:2", "s:gap:4"), ("gap:4", "other:gap:4"), ("gap:4", "changed"), ("sum", "none")],
)
async def test_a_header_or_a_gap_that_does_not_fit_its_checksum_is_never_served(
    make: Make, redis_server: RedisServer, field: str, taken_from: str
) -> None:
    """A gap had the text of another gap, or of another stream."""
    backend = await opened(make, redis_server.url)
    for stream_id in ("s", "other"):
        begin = replace(BEGIN, stream_id=stream_id, header=HEADER._replace(stream_id=stream_id))
        gaps = [Gap(2, f"first of {stream_id}", is_whole=True), Gap(4, f", then {stream_id}", is_whole=False)]
        await backend.write([begin, *(changed(stream_id, gap=gap) for gap in gaps)])
    values = {
        f"{stream_id}:{name}": bulk(redis_server.command("HGET", f"gai:{{{stream_id}}}:head", name))
        for stream_id in ("s", "other")
        for name in ("header", "gap:2", "gap:4")
    }
    values |= {"changed": b"+, then t", "none": b""}
    copy = await backend.load("s")
    assert copy is not None
    assert (copy.header, copy.lost, copy.text) == (HEADER, 4, "first of s, then s")
    redis_server.command("HSET", "gai:{s}:head", field, values[taken_from])
    assert (await fault(backend.load("s"))).fault == "damaged"
    assert await backend.load("other") is not None


async def test_the_header_and_the_gaps_of_a_former_release_stay_readable(make: Make, redis_server: RedisServer) -> None:
    backend = await opened(make, redis_server.url)
    await backend.write([BEGIN, changed("s", gap=Gap(2, "said", is_whole=True))])
    assert redis_server.command("HDEL", "gai:{s}:head", "sum", "sum:2") == b":2\r\n"
    await backend.write([changed("s", gap=Gap(4, ", and more", is_whole=False))])
    copy = await backend.load("s")
    assert copy is not None
    assert (copy.header, copy.lost, copy.text) == (HEADER, 4, "said, and more")


async def test_a_sealed_record_has_no_checksum_beside_its_own(make: Make, redis_server: RedisServer) -> None:
    """As a record of a former release: each release reads it, and opening it tells whether it is damaged."""
    backend = SealedBackend(make(redis_server.url), Seals(sealed_with(0)))
    await backend.open()
    await backend.write([replace(BEGIN, caller="caller", records=[record(1)], ending=FINISHED, last_seq=1)])
    entries = redis_server.command("XRANGE", "gai:{s}:log", "1-0", "1-2")
    assert (entries.count(b"piece"), entries.count(b"ending"), entries.count(b"sum")) == (1, 1, 1)
    copy = await backend.load("s")
    assert copy is not None
    assert copy.news == CopyTail([record(1)], FINISHED)
    await backend.close()


def bulk(reply: bytes) -> bytes:
    """Returns the value of a bulk string of Redis's protocol."""
    return reply.split(b"\r\n", 1)[1].removesuffix(b"\r\n")


@pytest.mark.parametrize("is_renewed", [False, True])
async def test_a_server_that_has_lost_its_data_takes_nobody_for_gone_at_once(
    make: Make, redis_server: RedisServer, change_limits: ChangeLimits, is_renewed: bool
) -> None:
    """Followers of running streams once got `worker_lost`, and came back in vain."""
    change_limits(lease_lost=0.5)
    backend = await opened(make, redis_server.url)
    await backend.renew("own")
    assert await backend.leased(["other"]) == set()
    redis_server.command("FLUSHALL")
    if is_renewed:
        await backend.renew("own")
    assert {*await backend.leased(["other"])} == {"other"}
    assert backend.has_lost
    assert not await backend.kept(["s"]), "a request that waits for a stream of another process hears the truth"

    async def is_known() -> bool:
        await backend.renew("own")
        return not await backend.leased(["other"]) and not backend.has_lost

    await until_answered(is_known)


async def test_a_server_that_has_lost_its_data_is_noticed_by_who_looks_for_a_stream(
    make: Make, redis_server: RedisServer
) -> None:
    """Before the next renewal of the lease; a live stream was answered with 404."""
    backend = await opened(make, redis_server.url)
    await backend.renew("own")
    assert await backend.load("s") is None
    assert not backend.has_lost
    redis_server.command("FLUSHALL")
    assert await backend.load("s") is None
    assert backend.has_lost
    assert not await backend.renew("own"), "so that all copies are written anew"
    assert await backend.renew("own")


async def test_losses_that_follow_each_other_are_noticed_and_a_dead_worker_is_found_all_the_same(
    make: Make, redis_server: RedisServer, change_limits: ChangeLimits
) -> None:
    """A second loss within a minute was none: live streams were unknown, and their workers gone."""
    change_limits(lease_lost=0.6)
    backend, living = await opened(make, redis_server.url), await opened(make, redis_server.url)
    await backend.renew("own")

    async def lose() -> bool:
        redis_server.command("FLUSHALL")
        await living.renew("living")
        await backend.renew("own")
        there = {*await backend.leased(["living", "dead"])}
        assert backend.has_lost
        assert "living" in there
        return "dead" not in there

    assert not await lose()
    await until_answered(lose)


async def test_a_worker_whose_streams_the_store_lacks_is_late(make: Make, redis_server: RedisServer) -> None:
    backend = await opened(make, redis_server.url)
    await backend.renew("w", is_behind=True)
    assert [*await backend.late()] == ["w"]
    await backend.renew("w")
    assert not await backend.late()
    await backend.renew("w", is_behind=True)
    await backend.give_up("w")
    assert not await backend.late()


# ---- the keys --------------------------------------------------------------------------------------------------------


async def test_every_key_has_a_time_to_live_and_the_hash_tag_of_its_stream(
    make: Make, redis_server: RedisServer
) -> None:
    backend = await opened(make, redis_server.url)
    await backend.write([BEGIN, changed("s", records=[record(1)], gap=Gap(1, "x", is_whole=True))])
    await backend.write([changed("never", records=[record(2)], gap=Gap(1, "x", is_whole=True), ending=FINISHED)])
    await take(backend, "digest", Claim("s", "body"), 60)
    await backend.renew("worker")
    workers = [b"gai:worker:", b"gai:worker:worker", b"gai:workers"]
    keys = [b"gai:claim:digest", *workers, b"gai:{s}:head", b"gai:{s}:log"]
    assert sorted(redis_server.command("KEYS", "*").split(b"\r\n")[2::2]) == keys
    for key in keys:
        assert redis_server.command("PTTL", key) > b":0", key


async def test_cancels_pass_between_this_release_and_earlier_ones(make: Make, redis_server: RedisServer) -> None:
    """A worker of an earlier release pushes and pops ids of streams, each of which is a cancel, and knows no other."""
    backend = await opened(make, redis_server.url)
    await backend.tell("theirs", "s", CANCEL)
    assert redis_server.command("LRANGE", "gai:cancel:theirs", "0", "-1") == b"*1\r\n$1\r\ns\r\n"
    redis_server.command("RPUSH", "gai:cancel:ours", "s")
    assert [*await backend.messages("ours", 1)] == [("s", CANCEL)]
    await backend.tell("theirs", "s", "pause")
    redis_server.command("LPOP", "gai:cancel:theirs")
    unknown = redis_server.command("LPOP", "gai:cancel:theirs").split(b"\r\n")[1]
    assert unknown != b"s", "a stream that it does not have, which it ignores"


async def test_messages_are_taken_by_one_command_as_between_two_the_first_could_be_lost(
    make: Make, redis_server: RedisServer
) -> None:
    """A cancel that is lost lets the upstream go on. A server that refuses further commands shows it."""
    backend = await opened(make, redis_server.url)
    for stream_id in ("s", "t", "u"):
        await backend.tell("w", stream_id, CANCEL)
    redis_server.command("ACL", "SETUSER", "default", "-lpop")
    assert [*await backend.messages("w", 1)] == [("s", CANCEL), ("t", CANCEL), ("u", CANCEL)]
    assert redis_server.command("EXISTS", "gai:cancel:w") == b":0\r\n"


async def test_in_a_cluster_everything_is_the_same(make: Make, make_server: MakeServer) -> None:
    bus = str(free_port())  # the default may be taken by another process
    server = make_server("--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-require-full-coverage", "no")
    server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    await until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
    backend, other = await scripted(make, server.url), await opened(make, server.url)
    names = [f"s{number}" for number in range(20)]
    added = [record(seq) for seq in (1, 2, 3)]
    await backend.write([changed(name, HEADER._replace(stream_id=name), "worker", added, keep=60) for name in names])
    gap = Gap(2, "so far", is_whole=True)
    assert await backend.write([changed(names[0], gap=gap), changed("never", records=added)]) == {"never": "missing"}
    await backend.write([changed(names[0], ending=FINISHED, last_seq=3, keep=60)])
    copy = await other.load(names[0])
    assert copy is not None
    assert (copy.lost, copy.text, copy.news) == (2, "so far", CopyTail(added[2:], FINISHED))
    assert await other.tail(dict.fromkeys(names[1:], 1), 0.01) == dict.fromkeys(names[1:], CopyTail(added[1:]))
    assert set(await other.kept([*names, "never"])) == set(names)
    await backend.renew("worker")
    assert await other.leased(["worker", "gone"]) == {"worker"}
    assert await take(backend, "key", Claim("s", "body"), 60) is None
    assert await take(other, "key", Claim("t", "body"), 60) == Claim("s", "body")
    assert await free(backend, "key", Claim("s", "body"))
    await backend.tell("w", "s", CANCEL)
    assert [*await other.messages("w", 1)] == [("s", CANCEL)]
    await backend.write([changed(name, is_dropped=True) for name in names])
    assert not await other.kept(names)
    assert await backend.client.run_script(ECHO, "none", b"a") == [b"a", b""]


async def test_a_sentinel_tells_where_the_server_is(make: Make, make_server: MakeServer) -> None:
    server = make_server("--requirepass", "my-secret")
    sentinel = make_server(watched=server)
    sentinel.command("SENTINEL", "SET", "main", "auth-pass", "my-secret")
    url = f"redis://:my-secret@127.0.0.1:{sentinel.port}?sentinel="
    backend = await scripted(make, f"{url}main")
    await backend.write([replace(BEGIN, records=[record(1)])])
    assert await backend.client.run_script(ECHO, "none", b"a") == [b"a", b""]
    assert await backend.tail({"s": 0}, 0.01) == {"s": CopyTail([record(1)])}
    direct = await opened(make, f"redis://:my-secret@127.0.0.1:{server.port}")
    assert set(await direct.kept(["s"])) == {"s"}
    problem = await fault(make(f"{url}other").open())
    assert problem.fault == "unreachable"
    assert "my-secret" not in str(problem)


# ---- a server that comes and goes ------------------------------------------------------------------------------------


async def test_a_server_that_was_killed_is_used_again(make: Make, make_server: MakeServer) -> None:
    server = make_server()
    backend = await opened(make, server.url)
    await backend.write([replace(BEGIN, records=[record(1)])])
    server.kill()
    for call in (backend.write([BEGIN]), backend.load("s"), backend.tail({"s": 0}, 0.01), backend.renew("w")):
        assert (await fault(call)).fault == "unreachable"
    server.start()
    assert set(await backend.write([changed("s", records=[record(2)])])) == {"s"}, "it has lost everything"
    assert not await backend.write([BEGIN])


async def test_of_ten_thousand_cancelled_commands_no_reply_is_mistaken(make: Make, redis_server: RedisServer) -> None:
    """Each stream's bytes are its own; a reply that was left on a connection would be another's."""
    backend = await opened(make, redis_server.url)
    names = [f"s{number}" for number in range(50)]
    await backend.write(
        [
            changed(name, HEADER._replace(stream_id=name), name, [Record(0, 1, name.encode() * 100)], keep=600)
            for name in names
        ]
    )
    chance = random.Random(5)
    cancelled = answered = 0

    async def ask(name: str) -> None:
        nonlocal answered
        copy = await backend.load(name)
        assert copy is not None
        assert (copy.header.stream_id, copy.worker) == (name, name)
        assert copy.news.records[0].piece == name.encode() * 100
        answered += 1

    while cancelled < 10_000:
        tasks = [asyncio.ensure_future(ask(chance.choice(names))) for _ in range(LIMITS.store_connections)]
        await asyncio.sleep(chance.choice([0, 0.0003, 0.0006, 0.001, 0.002]))
        for task in tasks:
            if chance.random() < 0.9:
                cancelled += task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result
    assert answered > 500


async def test_of_a_thousand_races_between_two_processes_each_has_one_winner(redis_server: RedisServer) -> None:
    first, second = await asyncio.to_thread(race, f"RedisBackend({redis_server.url!r})")
    assert first | second == {*range(1000)}
    assert not first & second


# ---- TLS -------------------------------------------------------------------------------------------------------------


def tls_server(make_server: MakeServer, authority: Authority, certificate: str) -> int:
    """Starts a server that speaks TLS; returns the port."""
    port = free_port()
    files = {"cert": f"{certificate}.pem", "key": f"{certificate}.key", "ca-cert": "ca.pem"}
    options = [part for name, file in files.items() for part in (f"--tls-{name}-file", str(authority.folder / file))]
    make_server("--tls-port", str(port), "--tls-auth-clients", "no", *options)
    return port


async def test_over_tls_everything_is_the_same(make: Make, make_server: MakeServer, authority: Authority) -> None:
    port = tls_server(make_server, authority, "good")
    backend = await scripted(make, f"rediss://localhost:{port}?ssl_ca_certs={authority.folder / 'ca.pem'}")
    await backend.write([replace(BEGIN, records=[record(1)])])
    assert await backend.tail({"s": 0}, 0.01) == {"s": CopyTail([record(1)])}
    assert await backend.client.run_script(ECHO, "none", b"a") == [b"a", b""]


@pytest.mark.parametrize("certificate", ["elsewhere", "expired", "own"])
async def test_a_wrong_certificate_is_refused(
    make: Make, make_server: MakeServer, authority: Authority, certificate: str
) -> None:
    port = tls_server(make_server, authority, certificate)
    problem = await fault(make(f"rediss://:secret@localhost:{port}?ssl_ca_certs={authority.folder / 'ca.pem'}").open())
    result = f"rediss://localhost:{port} has a certificate that is not trusted"
    assert (problem.fault, str(problem)) == ("refused", result)


async def test_a_certificate_of_an_unknown_authority_is_refused(
    make: Make, make_server: MakeServer, authority: Authority
) -> None:
    port = tls_server(make_server, authority, "good")
    assert (await fault(make(f"rediss://localhost:{port}").open())).fault == "refused"


async def test_a_gap_with_all_of_the_text_or_none_takes_the_place_of_those_before(
    make: Make, redis_server: RedisServer
) -> None:
    """Or each would keep its text for as long as the stream lives."""
    backend = await opened(make, redis_server.url)
    await backend.write([changed("s", HEADER, "worker", [record(seq) for seq in range(1, 8)], keep=60)])

    async def gaps(lost: int, text: str | None, *, is_whole: bool) -> int:
        await backend.write([changed("s", gap=Gap(lost, text, is_whole=is_whole))])
        fields = redis_server.command("HKEYS", "gai:{s}:head")
        assert fields.count(b"gap:") == fields.count(b"sum:")
        return fields.count(b"gap:")

    assert await gaps(1, "one", is_whole=True) == 1
    assert await gaps(2, "two", is_whole=False) == 2
    assert await gaps(3, "anew", is_whole=True) == 1
    assert await gaps(4, "four", is_whole=False) == 2
    assert await gaps(5, None, is_whole=False) == 1
    copy = await backend.load("s")
    assert copy is not None
    assert (copy.lost, copy.text) == (5, None)


# ---- cancellation ----------------------------------------------------------------------------------------------------


class Losing:
    """A client that loses the cancellation of a command: it returns, or it fails."""

    def __init__(self, problem: Exception | None) -> None:
        self.has_begun = asyncio.Event()
        self._problem = problem

    async def execute_command(self, *_: object) -> bytes:
        self.has_begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if self._problem is not None:
            raise self._problem
        return b"reply"


@pytest.mark.parametrize("problem", [None, ConnectionError()], ids=["returns", "fails"])
async def test_a_cancellation_that_the_library_loses_is_raised(
    make: Make, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, problem: Exception | None
) -> None:
    """`asyncio.wait_for`, through which it writes, did that until Python 3.12: its caller then went on for ever."""
    backend = await opened(make, redis_server.url)
    client = Losing(problem)
    monkeypatch.setattr(RedisClient, "others", client)
    asking = asyncio.ensure_future(free(backend, "key", Claim("s", "body")))
    await client.has_begun.wait()
    asking.cancel()
    await asyncio.wait([asking], timeout=SECONDS)
    assert asking.cancelled()


async def test_a_task_that_was_cancelled_can_still_use_the_store(make: Make, redis_server: RedisServer) -> None:
    backend = await opened(make, redis_server.url)

    async def work() -> bool:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await free(backend, "key", Claim("s", "body"))

    working = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    working.cancel()
    assert await working is False


# ---- large pieces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_mended", [True, False])
async def test_large_pieces_of_one_caller_keep_no_piece_from_followers_of_other_callers(
    make: Make, redis_server: RedisServer, change_limits: ChangeLimits, is_mended: bool
) -> None:
    """64 streams of another worker are read together, behind a link that is slow with one caller's pieces."""
    change_limits(store_answer=0.3, mirror_patience=60.0 if is_mended else 0.5)
    link = SlowLink(redis_server)
    here, there = await opened(make, await link.open()), await opened(make, redis_server.url)
    timers = TimerWheel(asyncio.get_running_loop())
    memory = LogMemory(StoreSettings(), timers)
    mirrors = Mirrors(here, memory, Health(timers.clock), "here", Alive(here))
    await there.renew("there")
    names = [f"s{number}" for number in range(64)]
    headers = {name: LogHeader(name, "anna" if name == "s7" else f"bert {name}", "m", "gai", "sse") for name in names}
    await there.write([changed(name, headers[name], "there", [record(1)], keep=60.0) for name in names])
    logs = {name: await mirrors.find(name) for name in names}
    heard = {name: Watching(log) for name, log in logs.items() if log is not None}
    link.is_slow = True
    for seq in range(2, 6):
        await there.renew("there")
        await there.write([changed(name, None, "there", [record(seq, 20)]) for name in names if name != "s7"])
        if seq == 2:
            await there.write([changed("s7", None, "there", [record(2, 2 * MIB)])])
        await until(lambda seq=seq: all(each.heard[-1:] == [seq] for name, each in heard.items() if name != "s7"))
    assert heard["s7"].heard == []
    if is_mended:
        link.is_slow = False
        await until(lambda: heard["s7"].heard == [2])
    else:
        await until(lambda: heard["s7"].has_ended)
        await until(lambda: mirrors.worker_of("s7") is None)
    assert [name for name, each in heard.items() if each.has_ended] == ([] if is_mended else ["s7"])
    await mirrors.close()
    await link.close()
