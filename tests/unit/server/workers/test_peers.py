"""The streams of other workers: the questions, the answers, and the keys that the supervisor has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import CacheSettings, ModelSettings, Settings, TargetSettings, UpstreamSettings
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime import ids
from gai_fast.server.admin.bodies import Target
from gai_fast.server.admin.drained import DRAINED, DrainedTargets, DrainedTargetsHome
from gai_fast.server.admin.last_hour import LastHour
from gai_fast.server.admin.recent_requests import RecentRequests
from gai_fast.server.admin.running_streams import RunningSums
from gai_fast.server.admin.watch import Watches
from gai_fast.server.observe.metrics import PrometheusSink
from gai_fast.server.requests.durable import RunningStream
from gai_fast.server.workers.bus import Bus, WorkerBusy, WorkerGone
from gai_fast.server.workers.peers import RECORDS, PeerAnswers, PeerBackend, Peers, RecordHome
from gai_fast.server.workers.supervisor import WORKERS
from gai_fast.stores import Claim, Ending, LogHeader, StreamLog
from gai_fast.stores.backend import ANSWERS, CANCEL, StoreError
from gai_fast.stores.store import _digest
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.records import free, take, taken
from tests.waiting import SECONDS, until

SERVER = "AbC-"


class Supervisor:
    """Knows the keys, unless it is gone."""

    def __init__(self) -> None:
        self.highest_number = 2
        self.is_gone = False
        self.workers = [1, 2]
        self._records = RecordHome()
        self._drained = DrainedTargetsHome()

    async def ask(self, kind: str, *items: Any) -> Any:
        if self.is_gone:
            raise Error("overloaded", "gone", reason="workers")
        if kind == WORKERS:
            return self.workers
        if kind == DRAINED:
            return self._drained.answer(items)
        assert kind == RECORDS
        return self._records.answer(items)


class Pair:
    """Two workers: `one` asks for `peers`, `two` has the streams."""

    def __init__(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self.supervisor = Supervisor()
        self.buses = [Bus(folder, 1), Bus(folder, 2)]
        self.two = Engine(Settings(), loop)
        self.two.store.worker = "b" * 22 + SERVER + "2.machine.1.1"
        self.peers = Peers(self.buses[0], self.supervisor, SERVER, 1)
        self.backend = PeerBackend(self.peers, self.supervisor)
        self.one = Engine(Settings(), loop, self.backend)
        self.answers = [answers_of(engine) for engine in (self.one, self.two)]

    def log(self, letter: str = "a", **header: Any) -> StreamLog:
        """Returns a log of worker 2."""
        fields = {"caller": "anonymous", "model": "m", "format": "gai", "framing": "sse", **header}
        return self.two.store.create(LogHeader(letter * 22 + SERVER + "2", **fields))


def answers_of(engine: Engine) -> PeerAnswers:
    return PeerAnswers(
        engine, Watches(engine), RecentRequests(), LastHour(PrometheusSink([]), lambda: RunningSums(0, 0, 0))
    )


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[Pair]:
    both = Pair(folder)
    for bus, answers in zip(both.buses, both.answers, strict=True):
        await bus.open(answers.handlers)
    await both.one.store.open()
    try:
        async with asyncio.timeout(SECONDS):
            yield both
    finally:
        await both.one.close()
        await both.two.close()
        for bus in both.buses:
            bus.close()
        await asyncio.sleep(0.01)


def frame(log: StreamLog, seq: int) -> bytes:
    """Returns a frame in the form of the log."""
    if not log.header.is_numbered:
        return b'{"n":%d}\n' % seq
    if log.header.framing == "ndjson":
        return b'{"type":"text.delta","seq":%d,"text":"%d"}\n' % (seq, seq)
    return b'event: text.delta\nid: %b.%d\ndata: {"type":"text.delta","text":"%d"}\n\n' % (
        log.header.stream_id.encode(),
        seq,
        seq,
    )


def all_of(log: StreamLog) -> bytes:
    return b"".join(log.read(0, 1 << 30).pieces)


class Over:
    """Waits for the end of a log."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def advanced(self, piece: bytes, last_seq: int) -> None:
        """More of it has come."""

    def ended(self) -> None:
        self.event.set()


async def until_over(log: StreamLog) -> None:
    if not log.is_over:
        over = Over()
        log.watch(over)
        await over.event.wait()


@pytest.mark.parametrize(
    ("stream_id", "owner"),
    [
        ("x" * 22 + SERVER + "2", 2),
        ("x" * 22 + SERVER + "1", None),
        ("x" * 22 + SERVER + "3", None),
        ("x" * 22 + SERVER + "0", None),
        ("x" * 22 + "other2", None),
        ("x" * 22, None),
        ("", None),
    ],
)
def test_a_stream_id_names_its_worker(stream_id: str, owner: int | None, tmp_path: Path) -> None:
    assert Peers(Bus(tmp_path, 1), Supervisor(), SERVER, 1).owner_of(stream_id) == owner


def test_the_ids_of_a_worker_name_it() -> None:
    server = ids.new_server_name()
    try:
        ids.name_worker(server, 300)
        made = ids.new_stream_id()
        assert len(made) == 22 + 4 + 3
        assert ids.worker_of(made, server) == 300
    finally:
        ids._worker[0] = ""
        ids._stream_ids.clear()


@pytest.mark.parametrize(
    "form",
    [{}, {"framing": "ndjson"}, {"format": "openai"}, {"format": "openai", "framing": "ndjson"}],
    ids=["gai", "gai ndjson", "openai", "openai ndjson"],
)
async def test_a_log_is_read_from_the_memory_of_its_worker_to_its_end(tmp_path: Path, form: dict[str, str]) -> None:
    async with pair(tmp_path) as both:
        log = both.log(**form)
        for seq in (1, 2, 3):
            log.append(frame(log, seq), seq)
        mirror = await both.one.store.find(log.header.stream_id)
        assert mirror is not None
        assert mirror.header == log.header
        for seq in range(4, 400):
            log.append(frame(log, seq), seq)
            if not seq % 50:
                await asyncio.sleep(0.005)
        log.end(Ending("finished", "stop"))
        await until_over(mirror)
        assert all_of(mirror) == all_of(log)
        assert mirror.ending == Ending("finished", "stop")
        assert both.one.store.durability == "memory"


async def test_the_worker_of_a_stream_hears_that_it_is_followed_in_another(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        log = both.log()
        assert log.followed_at == -math.inf
        mirror = await both.one.store.find(log.header.stream_id)
        assert mirror is not None
        first = log.followed_at
        assert first > -math.inf
        mirror.watch(Over())
        await until(lambda: log.followed_at > first)
        assert await both.two.store.followed_ago(log) < math.inf
        assert await both.backend.followed_ago(log.header.stream_id) is None
        await both.backend.note_followers(["z" * 22 + SERVER + "2", "unknown"])


async def test_a_log_that_has_dropped_its_beginning_tells_its_text(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        log = both.log()
        for seq in range(1, 200):
            log.append(frame(log, seq), seq)
        log.trim(4096)
        mirror = await both.one.store.find(log.header.stream_id)
        assert mirror is not None
        here, there = mirror.read(0, 1 << 30), log.read(0, 1 << 30)
        assert here.lost == there.lost > 0
        assert here.text == there.text
        assert b"".join(here.pieces) == b"".join(there.pieces)


async def test_a_stream_that_nobody_has_is_none_and_one_of_a_worker_that_is_gone_is_lost(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        assert await both.one.store.find("x" * 22 + SERVER + "2") is None
        assert await both.one.store.find("x" * 22 + SERVER + "9") is None
        log = both.log()
        log.append(frame(log, 1), 1)
        mirror = await both.one.store.find(log.header.stream_id)
        assert mirror is not None
        both.buses[1].close()
        await until_over(mirror)
        assert mirror.broken is not None
        assert mirror.broken.reason == "worker_lost"
        for ask in (both.one.store.find, lambda stream_id: both.peers.cancel(stream_id, "anonymous")):
            with pytest.raises(Error) as lost:
                await ask("y" * 22 + SERVER + "2")
            assert (lost.value.code, lost.value.reason) == ("network", "worker_lost")


async def test_followers_of_a_log_that_is_broken_off_in_its_worker_hear_of_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        log = both.log()
        log.append(frame(log, 1), 1)
        mirror = await both.one.store.find(log.header.stream_id)
        assert mirror is not None
        log.break_off(Error("internal"))
        await until_over(mirror)
        assert mirror.broken is not None
        assert mirror.broken.reason == "worker_lost"


async def test_another_callers_stream_is_unknown(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        log = both.log(caller="alice")
        log.append(frame(log, 1), 1)
        log.end(Ending("finished"))
        assert await both.peers.cancel(log.header.stream_id, "bob") is None
        state = await both.peers.cancel(log.header.stream_id, "alice")
        assert state is not None
        assert state["state"] == "finished"
        assert await both.peers.running(log.header.stream_id, "bob") is None
        assert await both.peers.running(log.header.stream_id, "alice") == RunningStream("m", is_durable=True)
        assert await both.peers.running("z" * 22 + SERVER + "2", "alice") is None


async def test_a_worker_that_is_busy_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair(tmp_path) as both:
        stream_id = both.log().header.stream_id
        assert not await both.peers.is_gone(stream_id)

        async def ask(owner: int, kind: str, *items: Any) -> None:
            raise WorkerBusy

        with monkeypatch.context() as patch:
            patch.setattr(both.buses[0], "ask", ask)
            assert not await both.peers.is_gone(stream_id)
            for about in (both.one.store.find, lambda stream_id: both.peers.cancel(stream_id, "anonymous")):
                with pytest.raises(Error) as busy:
                    await about(stream_id)
                assert (busy.value.status, busy.value.reason) == (503, "worker")
            assert await both.peers.is_gone(both.two.store.worker) is False
            assert await both.backend.leased([both.two.store.worker]) == {both.two.store.worker}
            assert set(await both.backend.kept([stream_id, "unknown"])) == {stream_id}
        assert set(await both.backend.kept([stream_id, "y" * 22 + SERVER + "2"])) == {stream_id}
        both.buses[1].close()
        assert await both.peers.is_gone(stream_id)
        assert await both.backend.leased([both.two.store.worker]) == set()
        assert await both.peers.is_gone("another servers name") is None
        assert not await both.backend.kept([stream_id])


async def test_followers_of_a_busy_worker_are_not_notified_that_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> None:
    change_limits(lease_renewal=0.0)
    async with pair(tmp_path) as both:
        log = both.log()
        log.append(frame(log, 1), 1)
        mirror = await both.one.store.find(log.header.stream_id)
        assert mirror is not None
        looks = 0

        async def ask(owner: int, kind: str, *items: Any, wait: float = 0.0) -> None:
            nonlocal looks
            looks += kind == "kept"
            raise WorkerBusy

        with monkeypatch.context() as patch:
            patch.setattr(both.buses[0], "ask", ask)
            await until(lambda: looks > 2)
            assert not mirror.is_over
        log.append(frame(log, 2), 2)
        log.end(Ending("finished", "stop"))
        await until_over(mirror)
        assert mirror.ending == Ending("finished", "stop")


async def test_a_worker_that_hangs_keeps_no_other_from_knowing_that_its_streams_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits
) -> None:
    """A stream that is not known to be followed is ended."""
    change_limits(lease_renewal=0.01)
    async with pair(tmp_path) as both:
        both.supervisor.highest_number = 3
        bus, does_hang = both.buses[0].ask, False

        async def ask(worker: int, kind: str, *items: Any, wait: float = SECONDS) -> Any:
            if worker == 3 and does_hang:
                await asyncio.sleep(wait)
                raise WorkerBusy
            return await bus(2, kind, *items)

        monkeypatch.setattr(both.buses[0], "ask", ask)
        log = both.log()
        other = both.two.store.create(log.header._replace(stream_id="b" * 22 + SERVER + "3"))
        for each in (log, other):
            mirror = await both.one.store.find(each.header.stream_id)
            assert mirror is not None
            mirror.watch(Over())
        does_hang = True
        for _ in range(3):
            last = log.followed_at
            await until(lambda: log.followed_at > last)  # noqa: B023  # called within this round


async def test_keys_are_the_supervisors_and_outlive_every_worker(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        first, second = Claim("s1", "f1"), Claim("s2", "f2")
        assert await take(both.backend, "key", first, 60.0) is None
        assert await take(both.backend, "key", first, 60.0) is None
        assert await take(both.backend, "key", second, 60.0) == first
        assert not await free(both.backend, "key", second)
        assert await free(both.backend, "key", first)
        assert await take(both.backend, "key", second, 60.0) is None
        both.supervisor.is_gone = True
        with pytest.raises(StoreError):
            await take(both.backend, "key", second, 60.0)


async def test_a_supervisor_that_answers_again_is_no_failing_store(tmp_path: Path) -> None:
    """The worker was degraded for ever, and a key whose answer was late stayed taken."""
    async with pair(tmp_path) as both:
        store = both.one.store
        claim = Claim("a" * 22, "f")
        await take(both.backend, _digest("key"), claim, 60)
        both.supervisor.is_gone = True
        with pytest.raises(Error):
            await store.claim("key", claim)
        assert store.is_degraded
        both.supervisor.is_gone = False
        await until(lambda: not store.is_degraded)
        assert await store.claim("key", claim._replace(stream_id="b" * 22)) is None


async def test_the_supervisor_holds_so_many_keys(tmp_path: Path, change_limits: ChangeLimits) -> None:
    """Each worker counts its own alone, and the counts of gone workers are still taken."""
    change_limits(records=4)
    async with pair(tmp_path) as both:
        for key in "ab":
            assert await take(both.backend, key, Claim(key, "f"), 60.0) is None
        for _ in range(2):
            with pytest.raises(Error) as refused:
                await take(both.backend, "c", Claim("c", "f"), 60.0)
            assert (refused.value.code, refused.value.reason) == ("overloaded", "store")
        assert await take(both.backend, "a", Claim("a", "f"), 60.0) is None, "it has that one already"
        assert await take(both.backend, "d", Claim("d", "f"), 60.0, "another caller") is None
        assert await free(both.backend, "d", Claim("d", "f"))
        assert await free(both.backend, "a", Claim("a", "f"))
        assert await take(both.backend, "c", Claim("c", "f"), 60.0) is None


# ---- what one answer tells ---------------------------------------------------------------------------------------


async def test_an_answer_is_bounded_and_every_log_has_its_turn(tmp_path: Path, change_limits: ChangeLimits) -> None:
    """A worker that follows many streams of another one asks for all of them together."""
    change_limits(store_reply=1000)
    async with pair(tmp_path) as both:
        tail = answers_of(both.two).tail
        logs = [both.log(letter) for letter in "abcdefgh"]
        positions = {log.header.stream_id: 0 for log in logs}
        for _ in range(len(logs)):
            for log in logs:  # the first ones are never read to their end
                for _ in range(10):
                    seq = log.last_seq + 1
                    log.append(frame(log, seq), seq)
            answer = await tail(positions, 0.0)
            sizes = [len(news[2]) for news in answer.values()]
            assert sum(sizes) <= 1000 + max(sizes)
            positions |= {stream_id: news[1] for stream_id, news in answer.items()}
        assert all(positions.values())


async def test_the_text_of_a_dropped_beginning_is_reported_up_to_a_size(
    tmp_path: Path, change_limits: ChangeLimits
) -> None:
    async with pair(tmp_path) as both:
        log = both.log()
        for seq in range(1, 200):
            log.append(frame(log, seq), seq)
        log.trim(4096)
        load = answers_of(both.two).load
        _, lost, text, *_ = await load(log.header.stream_id)
        assert text == log.read(0, 0).text
        change_limits(store_reply=len(text) - 1)
        assert (await load(log.header.stream_id))[1:3] == [lost, None]


async def test_news_of_a_log_without_numbers_begin_where_its_reader_is_though_its_beginning_was_dropped(
    tmp_path: Path,
) -> None:
    """It was read from its beginning each time, and the known bytes were left out: too many if some are gone."""
    async with pair(tmp_path) as both:
        log = both.log(format="openai", framing="ndjson")
        for seq in range(1, 11):
            log.append(frame(log, seq), seq)
        log.trim(log.size - 300)
        assert 0 < log.lost < 6
        answer = await PeerAnswers(
            both.two, Watches(both.two), RecentRequests(), LastHour(PrometheusSink([]), lambda: RunningSums(0, 0, 0))
        ).tail({log.header.stream_id: 6}, 0.0)
        begins, last, piece, ending, has_more = answer[log.header.stream_id]
        assert (begins, last, ending, has_more) == (6, 10, None, False)
        assert piece == b"".join(frame(log, seq) for seq in range(7, 11))


# ---- several workers -------------------------------------------------------------------------------------------------


class Busy:
    """A bus: the second worker always has news, and the third one, too, but tells them later."""

    async def ask(
        self, worker: int, kind: str, positions: dict[str, int], wait_there: float, *, wait: float = 0.0
    ) -> dict[str, Any]:
        for _ in range(20 if worker == 3 else 1):
            await asyncio.sleep(0)
        return {stream_id: [after, after + 1, b"x", None, False] for stream_id, after in positions.items()}


@pytest.mark.parametrize("wait", [0.0, 0.1])
async def test_a_worker_that_answers_later_than_another_has_its_turn(wait: float) -> None:
    """Its answer was dropped with each answer of the other: its followers got nothing as long as that went on."""
    supervisor = Supervisor()
    supervisor.highest_number = 3
    bus: Any = Busy()
    backend = PeerBackend(Peers(bus, supervisor, SERVER, 1), supervisor)
    positions = {"a" * 22 + SERVER + "2": 0, "b" * 22 + SERVER + "3": 0}
    for _ in range(50):
        for stream_id, news in (await backend.tail(positions, wait)).items():
            positions[stream_id] = news.records[-1].last_seq
    assert all(positions.values())
    assert 2 not in backend._asked, "an answer whose news are taken is not kept"
    await backend.close()


class Leaving:
    """A bus: the second worker answers one question, late, and is gone after it; the third one has news at once."""

    def __init__(self) -> None:
        self.late: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(
        self, worker: int, kind: str, positions: dict[str, int], wait_there: float, *, wait: float = 0.0
    ) -> dict[str, Any]:
        if worker == 2:
            if self.late.done():
                raise WorkerGone
            await self.late
        return {stream_id: [after, after + 1, b"x", None, False] for stream_id, after in positions.items()}


async def test_news_that_have_come_are_not_lost_with_their_worker() -> None:
    """They were thrown away with the question, which was asked again, but no worker was left."""
    supervisor = Supervisor()
    supervisor.highest_number = 3
    bus: Any = Leaving()
    backend = PeerBackend(Peers(bus, supervisor, SERVER, 1), supervisor)
    one, two, three = ("a" * 22 + SERVER + "2", "b" * 22 + SERVER + "2", "c" * 22 + SERVER + "3")
    assert {*await backend.tail({one: 0, two: 0, three: 0}, 0.1)} == {three}
    bus.late.set_result(None)
    await asyncio.sleep(0)
    news = await backend.tail({one: 0}, 0.0)
    assert {stream_id: each.records[-1].last_seq for stream_id, each in news.items()} == {one: 1}
    assert await backend.tail({one: 0}, 0.0) == {}, "they get it once"
    assert await backend.tail({two: 7}, 0.0) == {}, "they begin elsewhere"
    assert {*await backend.tail({one: 1, two: 0, three: 1}, 0.1)} == {two}
    await backend.close()


async def test_the_streams_of_other_workers_are_listed_and_cancelled_whoever_they_belong_to(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        assert await both.peers.all_streams() == [{"total": 0, "deltas": 0, "bytes": 0, "data": []}]
        cancelled: list[str] = []
        stream_id = "a" * 22 + SERVER + "2"
        shown: list[Any] = []
        both.two.streams[stream_id] = cast(Any, SimpleNamespace(watch=shown.append))
        assert await both.peers.watch(stream_id, 0) == (0, b"", False)
        shown[0].event({"type": "done", "finished": True})
        news = await both.peers.watch(stream_id, 0)
        assert news == (1, b'event: done\ndata: {"type":"done","finished":true}\n\n', False)
        assert await both.peers.watch("no id", 0) is None
        del both.two.streams[stream_id]
        assert await both.peers.cancel_any(stream_id) is False
        assert await both.peers.cancel_any("no id") is False
        both.answers[1]._engine = cast(Any, SimpleNamespace(cancel=lambda name: cancelled.append(name) is None))
        assert await both.peers.cancel_any(stream_id) is True
        assert cancelled == [stream_id]


@pytest.mark.interpreted  # a compiled engine takes no other session
async def test_a_message_reaches_the_owner_of_its_stream_over_the_bus(tmp_path: Path) -> None:
    """A cancel ends the stream; a message of a later release, and one about another stream, change nothing."""
    async with pair(tmp_path) as both:
        cancelled: list[bool] = []
        stream_id, worker = "a" * 22 + SERVER + "2", both.two.store.worker
        both.two.streams[stream_id] = cast(Any, SimpleNamespace(cancel=lambda: cancelled.append(True)))
        await both.backend.tell(worker, stream_id, "pause")
        await both.backend.tell(worker, "no id", CANCEL)
        await both.backend.tell("of another server", stream_id, CANCEL)
        assert not cancelled
        await both.backend.tell(worker, stream_id, CANCEL)
        del both.two.streams[stream_id]
        assert cancelled == [True]
        assert [*await both.backend.messages("any", 0.0)] == []
        both.buses[1].close()
        with pytest.raises(Error) as lost:
            await both.backend.tell(worker, stream_id, CANCEL)
        assert lost.value.reason == "worker_lost"


@pytest.mark.interpreted  # a compiled engine takes no other session
async def test_the_store_of_a_worker_cancels_another_workers_stream_and_waits_for_its_end(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        log = both.log()
        log.append(b"event: a\n\n", 1)
        session = SimpleNamespace(cancel=lambda: log.end(Ending("cancelled", "cancelled")))
        both.two.streams[log.header.stream_id] = cast(Any, session)
        mirror = await both.one.store.find(log.header.stream_id)
        assert mirror is not None
        await both.one.store.cancel(mirror)
        del both.two.streams[log.header.stream_id]
        assert mirror.ending == Ending("cancelled", "cancelled")


async def test_other_workers_report_their_spend_when_they_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as both:
        reported: list[str] = []

        async def report() -> None:
            reported.append("two")

        monkeypatch.setattr(both.two.ledger, "report", report)
        await both.peers.report_spend()
        assert reported == ["two"]


async def test_a_worker_that_is_gone_has_no_streams(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        both.supervisor.workers = [1, 2, 3]
        both.supervisor.highest_number = 3
        assert await both.peers.all_streams() == [{"total": 0, "deltas": 0, "bytes": 0, "data": []}]
        assert [len(slots) for slots in await both.peers.all_slots()] == [1]
        assert await both.peers.cancel_any("a" * 22 + SERVER + "3") is False


UPSTREAMS = {name: UpstreamSettings(name, "openai", f"http://{name}.test/v1") for name in ("east", "west")}
TARGETS = tuple(TargetSettings(each, "gpt") for each in UPSTREAMS.values())
BALANCED = Settings(upstreams=UPSTREAMS, models={"m": ModelSettings("m", UPSTREAMS["east"], "gpt", targets=TARGETS)})
WEST = Target(model="m", upstream="west", id="gpt")


async def test_a_target_is_drained_in_all_workers_and_in_one_that_starts_while_the_others_are_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that started asked the others, and had no drained targets if none answered in time."""

    def conditions(engine: Engine) -> list[str]:
        return [condition for _, _, condition, _ in engine.list_targets()]

    async with pair(tmp_path) as both:
        both.two.use(BALANCED)
        await both.peers.set_drained(WEST, is_drained=True)
        assert conditions(both.two) == ["ready", "drained"]

        async def ask(owner: int, kind: str, *items: Any) -> None:
            raise WorkerBusy

        with monkeypatch.context() as patch:
            patch.setattr(both.buses[0], "ask", ask)
            both.one.use(BALANCED)
            DrainedTargets(both.one).take(*await both.peers.drained())
            assert conditions(both.one) == ["ready", "drained"]
            with pytest.raises(Error) as busy:
                await both.peers.set_drained(WEST, is_drained=False)
            assert (busy.value.code, busy.value.reason) == ("overloaded", "worker")
        await both.peers.set_drained(WEST, is_drained=False)
        assert "drained" not in conditions(both.two)


async def test_of_two_admins_who_change_a_target_at_once_the_later_one_counts_in_all_workers(tmp_path: Path) -> None:
    """The worker of the later admin had put the target back, then got the former list, and never its own."""
    async with pair(tmp_path) as both:
        for engine in (both.one, both.two):
            engine.use(BALANCED)
        former = await both.supervisor.ask(DRAINED, WEST.model, WEST.upstream, WEST.id, True)
        ask = both.supervisor.ask

        async def ask_and_hear_of_the_former_change(kind: str, *items: Any) -> Any:
            answer = await ask(kind, *items)
            if kind == DRAINED:
                await both.buses[1].ask(1, "drained", *former)
            return answer

        both.supervisor.ask = ask_and_hear_of_the_former_change
        await both.peers.set_drained(WEST, is_drained=False)
        for engine in (both.one, both.two):
            assert "drained" not in [condition for _, _, condition, _ in engine.list_targets()]


async def test_keys_of_shared_answers_take_no_room_from_idempotency_keys(
    tmp_path: Path, change_limits: ChangeLimits
) -> None:
    change_limits(records=4)
    async with pair(tmp_path) as both:
        for number in range(2):
            assert await both.backend.swap(ANSWERS, f"key {number}", None, b"s", 60.0) is None
        with pytest.raises(Error):
            await both.backend.put(ANSWERS, "key 2", b"s", 60.0)
        assert await take(both.backend, "key 0", Claim("t", "f")) is None
        assert await both.backend.get(ANSWERS, "key 0") == b"s"
        assert await both.backend.delete(ANSWERS, "key 0")
        assert await taken(both.backend, "key 0") == Claim("t", "f")


async def test_a_record_that_is_too_large_does_not_reach_the_supervisor(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        for call in (both.backend.put, lambda *rest: both.backend.swap(*rest[:2], None, *rest[2:])):
            with pytest.raises(StoreError, match="is larger than"):
                await call(ANSWERS, "key", bytes(LIMITS.record + 1), None)
        assert await both.backend.get(ANSWERS, "key") is None


async def test_the_logs_of_shared_answers_are_found_by_other_workers(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        both.two.use(Settings(cache=CacheSettings(ttl=60.0)))
        answers = both.two.shared_answers(lambda: 0)
        assert answers is not None
        header = LogHeader("a" * 22 + SERVER + "2", "answers anna", "m", "upstream", "ndjson")
        answers.store.create(header).append(b'{"seq":1,"at":0}\n', 1)
        found = await both.backend.load(header.stream_id)
        assert found is not None
        assert [record.piece for record in found.news.records] == [b'{"seq":1,"at":0}\n']
