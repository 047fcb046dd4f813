"""The worker bus: questions, answers, and workers that are gone."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gai_fast.server.workers.bus import Bus, Handler, WorkerBusy, WorkerGone
from tests.conftest import ChangeLimits
from tests.waiting import SECONDS, until


@asynccontextmanager
async def buses(folder: Path, *handlers: dict[str, Handler]) -> AsyncIterator[list[Bus]]:
    made = [Bus(folder, number) for number in range(1, len(handlers) + 1)]
    for bus, each in zip(made, handlers, strict=True):
        await bus.open(each)
    try:
        yield made
    finally:
        for bus in made:
            bus.close()
        await asyncio.sleep(0.01)


async def double(value: Any) -> Any:
    return value * 2


async def test_a_question_gets_its_answer_and_one_connection_carries_many(tmp_path: Path) -> None:
    later = asyncio.Event()

    async def wait(word: str) -> str:
        if word == "late":
            await later.wait()
        else:
            later.set()
        return word

    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"double": double, "wait": wait}) as (one, _):
        assert await one.ask(2, "double", "ab") == "abab"
        assert await one.ask(2, "double", b"x" * 1_000_000) == b"x" * 2_000_000
        assert await asyncio.gather(one.ask(2, "wait", "late"), one.ask(2, "wait", "soon")) == ["late", "soon"]
        assert len(one._peers) == 1


async def test_a_worker_that_was_never_there_or_is_gone_is_reported_at_once(tmp_path: Path) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"never": never, "double": double}) as (one, two):
        with pytest.raises(WorkerGone, match="worker 9"):
            await one.ask(9, "double", 1)
        asked = asyncio.create_task(one.ask(2, "never", wait=600))
        assert await one.ask(2, "double", 1) == 2
        two.close()
        for ask in (asked, one.ask(2, "double", 1)):
            with pytest.raises(WorkerGone):
                await ask


async def test_nothing_is_kept_of_a_worker_that_is_gone(tmp_path: Path) -> None:
    """A connection to each dead worker, and its part of an answer, once stayed for ever."""
    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"double": double}) as (one, two):
        assert await one.ask(2, "double", 1) == 2
        two.close()
        await until(lambda: not one._peers)
        for number in (2, 9):
            with pytest.raises(WorkerGone):
                await one.ask(number, "double", 1)
        assert not one._peers


async def test_of_a_question_that_cannot_be_written_nothing_is_kept(tmp_path: Path) -> None:
    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"double": double}) as (one, _):
        assert await one.ask(2, "double", 1) == 2
        for _ in range(3):
            with pytest.raises(UnicodeEncodeError):
                await one.ask(2, "double", "\udcff")
        assert not one._peers[2]._asked
        assert await one.ask(2, "double", 2) == 4


async def test_a_worker_that_does_not_answer_in_time_is_busy(tmp_path: Path) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"never": never, "double": double}) as (one, _):
        with pytest.raises(WorkerBusy):
            await one.ask(2, "never", wait=0.01)
        assert await one.ask(2, "double", 1) == 2, "and others are answered"


async def test_a_bug_of_the_worker_that_is_asked_ends_the_question(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"fail": fail, "double": double}) as (one, _):
        with pytest.raises(WorkerBusy):
            await one.ask(2, "fail")
        assert await one.ask(2, "double", 1) == 2
    record = caplog.records[0]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_question_that_is_none_ends_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"double": double}) as (one, _):
        with caplog.at_level(logging.ERROR), pytest.raises(WorkerGone):
            await one.ask(2, "unknown")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "2")
        writer.write(b"\xff\xff\xff\xff")
        assert await reader.read() == b""
        writer.close()
        assert len(caplog.records) == 2
        assert await one.ask(2, "double", 1) == 2, "the next one has a connection of its own"


async def test_a_connection_that_fails_for_a_bug_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise ZeroDivisionError

    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"double": double}) as (one, _):
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "create_unix_connection", fail)
            with pytest.raises(ZeroDivisionError):
                await one.ask(2, "double", 1)
        assert await one.ask(2, "double", 1) == 2


async def test_a_worker_that_cannot_be_asked_for_want_of_a_descriptor_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with asyncio.timeout(SECONDS), buses(tmp_path, {}, {"double": double}) as (one, _):
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "create_unix_connection", fail)
            with pytest.raises(WorkerBusy):
                await one.ask(2, "double", 1)
        assert await one.ask(2, "double", 1) == 2


async def test_a_worker_that_reads_no_questions_is_asked_no_more(tmp_path: Path, change_limits: ChangeLimits) -> None:
    change_limits(link_unsent=100_000)
    hung: list[asyncio.StreamWriter] = []

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.append(writer)
        writer.transport.pause_reading()

    async with asyncio.timeout(SECONDS):
        server = await asyncio.start_unix_server(hang, tmp_path / "2", limit=1)
        bus = Bus(tmp_path, 1)
        for _ in range(10):
            with pytest.raises(WorkerBusy):
                await bus.ask(2, "double", b"x" * 1_000_000, wait=0.05)
        transport = bus._peers[2]._transport
        assert transport is not None
        assert transport.get_write_buffer_size() < 2_000_000
        bus.close()
        for writer in hung:
            writer.close()
        server.close()
