"""The limits of a server, and its refusals above them."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from gai_fast.ledger import SharedHome, SharedLedger, SpendEntry, SpendRow
from gai_fast.ledger.home import Home, Report, ReportAnswer
from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, LimitSettings
from gai_fast.net.upstream.connection_pool import ConnectionShare
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.stores.backend import StoreError
from tests.waiting import until_answered

WORKERS = 4


def refusal(
    server_limits: ServerLimits, streams: int, of_caller: int
) -> tuple[int, str, str | None, int | None] | None:
    try:
        server_limits.check("s", "ann", streams, of_caller)
    except Error as error:
        return error.status, error.code, error.reason, error.retry_after_ms
    return None


def test_streams_are_refused_above_their_limits() -> None:
    server_limits = ServerLimits(LimitSettings(streams=3, streams_per_caller=2))
    assert refusal(server_limits, 0, 0) is None
    assert refusal(server_limits, 2, 1) is None
    assert refusal(server_limits, 2, 2) == (429, "rate_limited", "streams_per_caller", 1000)
    assert refusal(server_limits, 3, 0) == (503, "overloaded", "streams", 1000)
    assert refusal(server_limits, 3, 2) == (503, "overloaded", "streams", 1000)


def test_each_refusal_is_counted_by_its_limit_from_zero_on() -> None:
    server_limits = ServerLimits(LimitSettings(streams=2, streams_per_caller=1))
    names = ("streams", "streams_per_caller", "connections", "memory", "upload", "reads")
    assert server_limits.refused == dict.fromkeys(names, 0)
    for streams, of_caller in ((2, 0), (1, 1), (0, 0)):
        refusal(server_limits, streams, of_caller)
    error = server_limits.no_place()
    assert (error.status, error.reason, error.retry_after_ms) == (503, "connections", 1000)
    server_limits.is_short_of_memory = True
    refusal(server_limits, 0, 0)
    assert server_limits.refused == {**dict.fromkeys(names, 1), "upload": 0, "reads": 0}


@pytest.mark.parametrize(("workers", "share"), [(1, ""), (2, ", this worker's share")])
def test_a_refusal_says_whose_the_number_is_that_it_names(workers: int, share: str) -> None:
    server_limits = ServerLimits(LimitSettings(connections=3, memory_high_water=9, upload_bytes=5), None, workers)
    assert f"(connections = 3{share}, or fewer" in server_limits.no_place().message
    with pytest.raises(Error, match=f"upload_bytes = 5{share}"):
        server_limits.begin_upload(6)
    server_limits.is_short_of_memory = True
    with pytest.raises(Error, match=f"memory_high_water: 9{share}"):
        server_limits.check("", "ann", 0, 0)


def test_without_memory_no_stream_begins() -> None:
    server_limits = ServerLimits(LimitSettings())
    server_limits.is_short_of_memory = True
    assert refusal(server_limits, 0, 0) == (503, "overloaded", "memory", 1000)
    server_limits.is_short_of_memory = False
    assert refusal(server_limits, 0, 0) is None


def test_request_bodies_under_way_have_a_budget_of_bytes() -> None:
    server_limits = ServerLimits(LimitSettings(upload_bytes=100))
    server_limits.begin_upload(60)
    server_limits.begin_upload(40)
    with pytest.raises(Error) as refused:
        server_limits.begin_upload(1)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after_ms) == (503, "upload", 1000)
    server_limits.end_upload(60)
    server_limits.begin_upload(1)
    assert (server_limits.uploading, server_limits.refused["upload"]) == (41, 1)


def test_the_bodies_of_one_caller_have_half_of_the_budget() -> None:
    server_limits = ServerLimits(LimitSettings(upload_bytes=100))
    server_limits.begin_upload(30, "ann")
    server_limits.begin_upload(20, "ann")
    with pytest.raises(Error, match=r"the caller ann sends .* \(half of upload_bytes = 100\)") as refused:
        server_limits.begin_upload(1, "ann", 20)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after_ms) == (503, "upload", 1000)
    server_limits.begin_upload(10, "bob")
    server_limits.end_upload(20, "ann")
    server_limits.begin_upload(1, "ann", 30)
    server_limits.end_upload(31, "ann")
    server_limits.end_upload(10, "bob")
    assert (server_limits.uploading, server_limits._uploads) == (0, {})


def test_one_body_alone_may_have_more_than_half_of_the_budget() -> None:
    """A worker's share of it may be no more than one `max_body`."""
    server_limits = ServerLimits(LimitSettings(upload_bytes=100))
    server_limits.begin_upload(60, "ann")
    server_limits.begin_upload(0, "ann")  # another body, of which nothing has come or which is passed on
    server_limits.begin_passing(1000, 0, "ann", 0)
    with pytest.raises(Error, match="the caller ann sends"):
        server_limits.begin_upload(1, "ann")
    server_limits.begin_upload(40, "ann", 60)
    server_limits.end_upload(100, "ann")
    server_limits.begin_upload(0, "ann")
    assert server_limits._uploads == {}


def test_callers_without_a_name_may_have_the_whole_budget() -> None:
    server_limits = ServerLimits(LimitSettings(upload_bytes=100))
    server_limits.begin_upload(60)
    server_limits.begin_upload(40)
    assert server_limits.uploading == 100


def test_bodies_that_are_passed_on_count_for_their_caller_as_far_as_they_are_in_memory() -> None:
    server_limits = ServerLimits(LimitSettings(upload_bytes=100, lane_body=1000))
    server_limits.begin_passing(400, 30, "ann")
    server_limits.begin_passing(400, 20, "ann")
    with pytest.raises(Error, match="the caller ann sends"):
        server_limits.begin_passing(1, 1, "ann")
    server_limits.begin_passing(1, 0, "ann", 20)
    server_limits.end_passing(401, 20, "ann")
    server_limits.end_passing(400, 30, "ann")
    assert (server_limits.uploading, server_limits._uploads) == (0, {})


def test_bodies_that_are_passed_on_have_a_budget_of_their_own() -> None:
    """One body may have all of it, however little may be held in memory."""
    server_limits = ServerLimits(LimitSettings(upload_bytes=10, lane_body=100))
    server_limits.begin_passing(60, 4)
    server_limits.begin_passing(40, 0)
    with pytest.raises(Error, match="lane_body"):
        server_limits.begin_passing(1, 0)
    server_limits.end_passing(100, 4)
    server_limits.begin_passing(10, 10)
    with pytest.raises(Error, match="upload_bytes"):
        server_limits.begin_passing(1, 1)
    assert (server_limits.uploading, server_limits.refused["upload"]) == (10, 2)


async def test_one_worker_never_asks() -> None:
    server_limits = ServerLimits(LimitSettings(streams=1))
    assert not server_limits.must_ask("ann", 1, 1)
    with pytest.raises(Error, match="streams = 1"):
        server_limits.admit("s", "ann", 1, 1)
    assert server_limits.admit("s", "ann", 0, 0) is None
    assert not server_limits.has_room(0)
    server_limits.is_short_of_memory = True
    assert refusal(server_limits, 0, 0) is None, "it has a place"
    server_limits.is_short_of_memory = False
    assert refusal(server_limits, 1, 1) == (503, "overloaded", "streams", 1000)
    assert server_limits.ended("s", "ann") is None
    assert server_limits.has_room(0)


# -- several workers --


class _Supervisor(SharedHome):
    """The supervisor's state, in this process."""

    def __init__(self, home: Home, worker: str) -> None:
        self._home = home
        self._worker = worker
        self.asked = 0
        self.fails = False

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def exchange(
        self, number: int, entries: Sequence[SpendEntry], reports: Sequence[Report]
    ) -> Sequence[ReportAnswer] | None:
        await asyncio.sleep(0)
        if self.fails:
            raise StoreError("unreachable", "the supervisor does not answer")
        self.asked += sum(len(report.demands) for report in reports)
        return self._home.exchange(self._worker, number, entries, reports)

    async def spend(self, by: object, since: str | None, until: str | None) -> list[SpendRow]:
        raise AssertionError("the server spends nothing")

    async def spent(self, key: str, label: str) -> int:
        raise AssertionError("the server spends nothing")

    async def reset(self, key: str, labels: Sequence[str]) -> None:
        raise AssertionError("nobody resets the server's limits")


class Worker:
    """One worker: its limits, and its streams as an engine counts them."""

    def __init__(self, home: Home, name: str, limits: LimitSettings) -> None:
        self.supervisor = _Supervisor(home, name)
        self.ledger = SharedLedger(self.supervisor, fails_open=True)
        self.limits = ServerLimits(limits, self.ledger, WORKERS)
        self.streams: dict[str, str] = {}

    def of(self, caller: str) -> int:
        return sum(each == caller for each in self.streams.values())

    async def start(self, stream_id: str, caller: str = "ann") -> bool:
        """Starts a stream as a request does; returns whether it was admitted."""
        try:
            if self.limits.must_ask(caller, len(self.streams), self.of(caller)):
                await self.ask(stream_id, caller)
            self.limits.check(stream_id, caller, len(self.streams), self.of(caller))
        except Error:
            return False
        self.streams[stream_id] = caller
        return True

    async def ask(self, stream_id: str, caller: str = "ann") -> None:
        """Admits a stream."""
        asking = self.limits.admit(stream_id, caller, len(self.streams), self.of(caller))
        if asking is not None:
            await asking

    async def end(self, stream_id: str) -> None:
        """Ends a stream, and waits for what its client waits for."""
        returned = self.limits.ended(stream_id, self.streams.pop(stream_id))
        if returned is not None:
            await returned


class Server:
    """The workers of one server."""

    def __init__(self) -> None:
        self.home = Home(time.monotonic)
        self.workers: list[Worker] = []

    async def open(self, limits: LimitSettings) -> list[Worker]:
        self.workers = [Worker(self.home, str(number), limits) for number in range(WORKERS)]
        for worker in self.workers:
            await worker.ledger.open()
        return self.workers


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    for worker in server.workers:
        await worker.ledger.close()


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 8, 9, 40])
async def test_the_streams_of_all_workers_together_are_the_limit(server: Server, total: int) -> None:
    workers = await server.open(LimitSettings(streams=total))
    admitted = [await workers[number % WORKERS].start(str(number)) for number in range(3 * total)]
    assert sum(admitted) == total
    assert sum(worker.limits.refused["streams"] for worker in workers) == 2 * total


@pytest.mark.parametrize("total", [1, 2, 5, 9])
async def test_the_streams_of_a_caller_in_all_workers_together_are_the_limit(server: Server, total: int) -> None:
    workers = await server.open(LimitSettings(streams_per_caller=total))
    for caller in ("ann", "bob"):
        started = [workers[number % WORKERS].start(f"{caller}{number}", caller) for number in range(3 * total)]
        assert sum(await asyncio.gather(*started)) == total
    assert sum(worker.limits.refused["streams_per_caller"] for worker in workers) == 4 * total


async def test_a_limit_of_one_serves_one_stream_after_the_other_whichever_worker_accepts_it(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=1))
    for number in range(3 * WORKERS):
        worker = workers[number % WORKERS]
        assert await worker.start(str(number))
        assert not await workers[(number + 1) % WORKERS].start("another")
        assert not await worker.start("another")
        await worker.end(str(number))


async def test_a_refusal_by_the_limit_of_a_caller_takes_no_place_of_the_server(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=3, streams_per_caller=2))
    assert all([await workers[number].start(f"ann{number}", "ann") for number in range(2)])
    for number in range(3 * WORKERS):
        assert not await workers[number % WORKERS].start("ann", "ann")
        assert await workers[(number + 1) % WORKERS].start("bob", "bob"), "two of three streams are under way"
        await workers[(number + 1) % WORKERS].end("bob")
    assert sum(worker.limits.refused["streams"] for worker in workers) == 0


async def test_a_stream_within_the_part_of_its_worker_asks_nothing(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=80, streams_per_caller=40))
    assert all([await workers[0].start(str(number)) for number in range(5)])
    assert workers[0].supervisor.asked == 0
    assert await workers[0].start("6")  # the caller's part is 5, the server's 10
    assert workers[0].supervisor.asked == 1
    await workers[0].end("0")
    assert await workers[0].start("7")
    assert workers[0].supervisor.asked == 1


async def test_one_worker_starts_as_many_streams_as_the_others_leave(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=40, streams_per_caller=40))
    started = await asyncio.gather(*(workers[0].start(str(number)) for number in range(40)))
    assert sum(started) == 25, "its part, and all of the common half"
    assert all([await worker.start(f"{at}") for at, worker in enumerate(workers[1:])])


async def test_a_request_that_is_cancelled_while_it_asks_takes_no_place(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=1))
    asked = asyncio.ensure_future(workers[0].start("a"))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait((asked,), timeout=10)
    await until_answered(partial(workers[1].start, "b"))
    assert workers[0].limits._callers == {}


async def test_an_admitted_stream_that_does_not_start_returns_its_place(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=1))
    await workers[0].ask("a")
    returned = workers[0].limits.ended("a", "ann")
    assert returned is not None
    await returned
    assert await workers[1].start("b")


async def test_streams_that_start_count_for_the_part_of_their_worker(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=8))
    await workers[0].ask("a")
    assert workers[0].supervisor.asked == 0
    assert workers[0].limits.must_ask("bob", 0, 0), "its part is one stream, and one is starting"


async def test_the_places_of_a_dead_worker_are_free(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=1))
    assert await workers[0].start("a")
    assert not await workers[1].start("b")
    server.home.forget("0")
    assert await workers[1].start("b")


async def test_other_limits_apply_to_the_streams_that_follow(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=1))
    assert await workers[0].start("a")
    for worker in workers:
        worker.limits.use(LimitSettings(streams=2))
    assert await workers[1].start("b")
    assert not await workers[2].start("c")


async def test_while_the_supervisor_does_not_answer_streams_are_admitted_as_configured(server: Server) -> None:
    workers = await server.open(LimitSettings(streams=1))
    workers[0].supervisor.fails = True
    assert await workers[0].start("a")
    assert await workers[0].start("b")


def test_without_keys_callers_have_no_limit_since_everybody_is_one() -> None:
    server_limits = ServerLimits(LimitSettings(streams=3000, streams_per_caller=1))
    server_limits.check("s", ANONYMOUS, 2000, 2000)
    assert not server_limits.must_ask(ANONYMOUS, 2000, 2000)
    with pytest.raises(Error, match=r"streams = 3000"):
        server_limits.check("s", ANONYMOUS, 3000, 3000)


@pytest.mark.parametrize(
    ("limits", "running", "of_caller", "text"),
    [
        ({"streams_per_caller": 2}, 2, 2, r"the caller ann has as many streams .* \(streams_per_caller = 2\)"),
        ({"streams": 2}, 2, 0, r"the server has as many streams .* \(streams = 2\)"),
    ],
)
def test_a_refusal_names_setting_and_number_and_the_log_names_its_caller_once_a_minute(
    limits: dict[str, int], running: int, of_caller: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gai_fast.limits")
    server_limits = ServerLimits(LimitSettings(**limits))
    for _ in range(3):
        with pytest.raises(Error, match=text):
            server_limits.check("s", "ann", running, of_caller)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gai_fast.limits"]
    assert re.search(f"^a request of ann is refused: {text}$", line)


def test_other_refusals_name_their_setting_and_number() -> None:
    server_limits = ServerLimits(LimitSettings(connections=7, upload_bytes=9, memory_high_water=70_000_000))
    assert "connections = 7" in server_limits.no_place().message
    with pytest.raises(Error, match="upload_bytes = 9"):
        server_limits.begin_upload(10)
    server_limits.is_short_of_memory = True
    with pytest.raises(Error, match="memory_high_water: 70000000"):
        server_limits.check("s", "ann", 0, 0)


# -- the connections to an upstream --


async def lent(share: ConnectionShare) -> bool:
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    share.borrow(answer.set_result)
    return await answer


async def test_connections_to_an_upstream_are_divided_as_streams_are(server: Server) -> None:
    assert ServerLimits(LimitSettings()).share("up", 10) is None, "one worker has all of them"
    workers = await server.open(LimitSettings(streams=1))
    shares = [worker.limits.share("up", 20) for worker in workers]
    assert [(share.part, share.most) for share in shares if share is not None] == [(2, 14)] * WORKERS
    first, second, *_ = [share for share in shares if share is not None]
    assert sum([await lent(first) for _ in range(9)]) == 9
    assert [await lent(second) for _ in range(4)] == [True, True, True, False]
    other = workers[1].limits.share("other", 20)
    assert other is not None
    assert await lent(other), "each upstream has its own"
    assert await workers[2].start("a"), "streams are counted apart"
    first.give_back()
    await until_answered(partial(lent, second))
    server.home.forget("0")
    assert await lent(second), "a dead worker has none"


async def test_places_of_two_pools_of_one_upstream_are_apart(server: Server) -> None:
    workers = await server.open(LimitSettings())
    former, new = workers[0].limits.share("up", 1), workers[0].limits.share("up", 2)
    assert former is not None
    assert new is not None
    assert await lent(former)
    assert await lent(new)
    former.give_back()
    new.give_back()

    async def is_free() -> bool:
        return await lent(former)

    await until_answered(is_free)


async def test_a_share_without_a_supervisor_lends_nothing_where_limits_fail_closed() -> None:
    supervisor = _Supervisor(Home(time.monotonic), "0")
    supervisor.fails = True
    ledger = SharedLedger(supervisor, fails_open=False)
    await ledger.open()
    share = ServerLimits(LimitSettings(), ledger, 2).share("up", 1)
    assert share is not None
    assert not await lent(share)
    await ledger.close()
    assert not await lent(share), "after the end, too"
