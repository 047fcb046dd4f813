"""The screen of `gai-fast top`, without a terminal; `integration/test_top.py` has one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from gai_fast.cli.admin_client import AdminClient, AdminError
from gai_fast.cli.top.screen import ConfirmCancel, Top, show
from gai_fast.server.admin.bodies import RunningStream, Sample
from tests.conftest import ChangeLimits
from tests.unit.cli.top.test_lines import HOSTILE, sample, stream
from tests.waiting import until

ROWS = [
    stream(id="old", key="ben", model="b", upstream="x", duration_ms=9000.0),
    stream(id="mid", key="carl", model="a", upstream="z", duration_ms=5000.0, ttft_ms=None, deltas=0),
    stream(id="new", key="anna", model="c", upstream="y", duration_ms=1000.0, ttft_ms=500.0),
]


class Server:
    """A server whose figures are what a test says."""

    url = "http://host"

    def __init__(self) -> None:
        self.pushed: asyncio.Queue[Sample | Exception | None] = asyncio.Queue()
        self.asked = 0
        self.cancelled: list[str] = []
        self.refusal: AdminError | None = None

    async def samples(self) -> AsyncGenerator[tuple[dict[str, Any], Sample], None]:
        self.asked += 1
        while (pushed := await self.pushed.get()) is not None:
            if isinstance(pushed, Exception):
                raise pushed
            yield {}, pushed

    async def cancel(self, stream_id: str) -> None:
        self.cancelled.append(stream_id)
        if self.refusal is not None:
            raise self.refusal


@asynccontextmanager
async def shown(
    server: Server, streams: list[RunningStream], size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[Top, Pilot[None]]]:
    app = Top(cast(AdminClient, server), sample(streams=streams))
    async with app.run_test(size=size) as pilot:
        yield app, pilot


def ids(app: Top) -> list[str]:
    return [row.id for row in app._rows]


def status(app: Top) -> str:
    return str(app.screen_stack[0].query_one("#status", Static).content)


def chosen(app: Top) -> str:
    row = app._chosen()
    assert row is not None
    return row.id


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 12)])
async def test_the_parts_fit_the_terminal_and_follow_its_size(size: tuple[int, int]) -> None:
    async with shown(Server(), ROWS) as (app, pilot):
        await pilot.resize_terminal(*size)
        await pilot.pause()
        table = app.query_one(DataTable)
        assert table.size.height >= 2
        assert table.virtual_size.width <= size[0]
        bottom = app.query_one("Footer").region.bottom
        assert bottom == size[1]


async def test_streams_are_sorted_by_each_column_both_ways() -> None:
    async with shown(Server(), ROWS) as (app, pilot):
        orders = {}
        for _ in range(7):
            title = next(
                str(each.label)
                for each in app.query_one(DataTable).ordered_columns
                if "▲" in str(each.label) or "▼" in str(each.label)
            )
            orders[title] = ids(app)
            await pilot.press("s")
        assert orders == {
            "age▼": ["old", "mid", "new"],
            "ttft▼": ["old", "new", "mid"],
            "tok/s▼": ["new", "old", "mid"],
            "key▲": ["new", "old", "mid"],
            "model▲": ["mid", "old", "new"],
            "upstream▲": ["old", "new", "mid"],
            "id▲": ["mid", "new", "old"],
        }
        await pilot.press("r")
        assert ids(app) == ["new", "mid", "old"]


async def test_the_cursor_stays_at_its_stream() -> None:
    server = Server()
    async with shown(server, ROWS) as (app, pilot):
        await pilot.press("down")
        assert chosen(app) == "mid"
        younger = stream(id="first", duration_ms=20_000.0)
        server.pushed.put_nowait(sample(streams=[younger, *ROWS]))
        await until(lambda: len(app._rows) == 4)
        assert chosen(app) == "mid"
        server.pushed.put_nowait(sample(streams=[younger]))
        await until(lambda: len(app._rows) == 1)
        assert chosen(app) == "first"
        server.pushed.put_nowait(sample(streams=[]))
        await until(lambda: not app._rows)
        await pilot.press("c")
        assert status(app) == "there is no stream to cancel"


async def test_a_stream_is_cancelled_after_a_question_only() -> None:
    server = Server()
    async with shown(server, ROWS) as (app, pilot):
        for answer in ("n", "escape"):
            await pilot.press("c")
            assert isinstance(app.screen, ConfirmCancel)
            await pilot.press(answer)
            assert not isinstance(app.screen, ConfirmCancel)
        assert not server.cancelled
        await pilot.press("c")
        asked = str(app.screen.query_one(Static).content)
        assert asked.startswith("Cancel the stream old?\nkey ben, model b, upstream x\n")
        server.pushed.put_nowait(sample(streams=ROWS[1:]))  # the table changes below the question
        await until(lambda: len(app._rows) == 2)
        await pilot.press("y")
        await until(lambda: status(app) == "cancelled old")
        server.refusal = AdminError("the server refuses (404): no stream")
        await pilot.press("c", "y")
        await until(lambda: status(app) == "mid is not cancelled: the server refuses (404): no stream")
        assert server.cancelled == ["old", "mid"]


async def test_a_server_that_is_gone_is_reported_and_asked_again(change_limits: ChangeLimits) -> None:
    change_limits(admin_again=0.001)
    server = Server()
    async with shown(server, ROWS) as (app, _):
        line = app.query_one("#status")
        server.pushed.put_nowait(AdminError("the connection was lost"))
        await until(lambda: status(app) == "no figures, trying again: the connection was lost")
        assert line.has_class("problem")
        assert ids(app) == ["old", "mid", "new"], "the last figures stay"
        server.pushed.put_nowait(sample(streams=[]))
        await until(lambda: not app._rows)
        assert (status(app), line.has_class("problem")) == ("", False)
        server.pushed.put_nowait(None)  # as after a reload
        await until(lambda: server.asked == 3)


async def test_no_name_controls_the_terminal() -> None:
    hostile = stream(**dict.fromkeys(("id", "key", "model", "upstream"), HOSTILE + "[bold]"))
    server = Server()
    server.refusal = AdminError(HOSTILE)
    async with shown(server, [hostile]) as (app, pilot):
        await pilot.press("c")
        texts = [str(app.screen.query_one(Static).content)]
        await pilot.press("y")
        await until(lambda: "is not cancelled" in status(app))
        texts += [status(app), *(str(cell) for cell in app.query_one(DataTable).get_row_at(0))]
        assert all(text.replace("\n", "").isprintable() for text in texts)
        assert sum("[bold]" in text for text in texts) == 6, "it is no markup"


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> list[Top]:
    """Returns the screens that `show` makes from now on; they have no terminal."""
    made: list[Top] = []
    run = Top.run_async

    async def run_headless(self: Top, **_: Any) -> None:
        made.append(self)
        await run(self, headless=True)

    monkeypatch.setattr(Top, "run_async", run_headless)
    return made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_early", [True, False])
async def test_a_signal_ends_it_at_any_time(apps: list[Top], number: signal.Signals, is_early: bool) -> None:
    running = asyncio.create_task(show(cast(AdminClient, Server()), sample()))
    await until(lambda: apps and (is_early or apps[0]._tasks))
    signal.raise_signal(number)
    await running
    assert (apps[0].return_code, apps[0].fault, apps[0]._tasks) == (0, None, set())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


async def test_nothing_is_drawn_while_its_parts_are_taken_down() -> None:
    async with shown(Server(), ROWS) as (app, _):
        app.exit()
        assert [bool(task.cancelling()) for task in app._tasks] == [True]
    assert app.fault is None


async def test_a_bug_ends_it_and_is_not_lost(apps: list[Top]) -> None:
    server = Server()
    server.pushed.put_nowait(KeyError("a bug"))
    with pytest.raises(KeyError):
        await show(cast(AdminClient, server), sample())


async def test_a_bug_of_its_screen_is_a_failure(apps: list[Top], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> list[str]:
        raise KeyError("a bug")

    monkeypatch.setattr("gai_fast.cli.top.screen.head", fail)
    with pytest.raises(SystemExit) as ended:
        await show(cast(AdminClient, Server()), sample())
    assert ended.value.code == 1
