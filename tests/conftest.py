"""Shared by all tests: the recordings, the treatment of missing things, and a check that no loop hides an error."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NoReturn, TypeVar

import aiohttp
import pytest

from gai_fast.kernels import MODULES
from tests.corpus.summary import lines as summary
from tests.integration.certificates import Authority
from tests.kernels import IMPLEMENTATIONS, is_set, use_profile
from tests.limits import LIMITS, set_limit
from tests.steady import SteadyLoop
from tests.waiting import SECONDS

use_profile()
gc.disable()  # while tests are collected: visiting what only becomes more takes 1.6 of 10 s of a core for `unit/`

ROOT = Path(__file__).parents[1]

ChangeLimits = Callable[..., None]


def pytest_sessionstart() -> None:
    """Refuses to run after a compiled module was edited: its old state would be tested."""
    suffix = EXTENSION_SUFFIXES[0]
    library = ROOT / f"gai_fast/_compiled__mypyc{suffix}"
    if not library.exists():
        return
    sources = [path.with_name(path.name.removesuffix(suffix) + ".py") for path in library.parent.rglob(f"*{suffix}")]
    old = [path for path in sources if path.exists() and path.stat().st_mtime > library.stat().st_mtime]
    if old:
        named = ", ".join(sorted(str(path.relative_to(ROOT)) for path in old))
        pytest.exit(f"edited since they were compiled: {named} (make install)", returncode=1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes how many recordings are exact, and equal for each client, if any was judged; why tests were repeated."""
    for line in summary():
        terminalreporter.write_line(line)
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"repeated: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests of an implementation that this run does not test."""
    left_out = [item for item in items if not is_of_this_run(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if is_of_this_run(item)]


def is_of_this_run(item: pytest.Item) -> bool:
    """Returns whether a test is about what runs here: compiled modules, the native kernels, or neither."""
    if item.get_closest_marker("interpreted") is not None and MODULES == "compiled":
        return False
    return "native" in IMPLEMENTATIONS or not is_native(item)


def is_native(item: pytest.Item) -> bool:
    """Returns whether a test needs the native kernels: by its marker, or by a fixture that gives them."""
    fixtures = getattr(item, "fixturenames", ())
    return item.get_closest_marker("native") is not None or "native" in fixtures or "both" in fixtures


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip is a failure if `GAI_FAST_REQUIRE_ALL` is set."""
    return required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that is skipped as a whole."""
    return required((yield))


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def required(report: Report) -> Report:
    """Returns the report, a failure if it is a skip and everything is required."""
    if report.skipped and is_set("GAI_FAST_REQUIRE_ALL"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"required here (GAI_FAST_REQUIRE_ALL): {reason}"
    return report


def pytest_asyncio_loop_factories() -> dict[str, type[asyncio.AbstractEventLoop]]:
    """Tests that are coroutines run on a loop whose time does not depend on the machine."""
    return {"steady": SteadyLoop}


def pytest_collection_finish() -> None:
    """Takes modules and tests out of what the collector visits, 400,000 objects."""
    freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Takes out what the tests of a folder have left as well: pytest keeps their reports, and their imports stay."""
    yield
    if nextitem is not None and nextitem.path.parent != item.path.parent:
        freeze()


def freeze() -> None:
    """The collector visits none of today's objects again: scenarios and tests of leaks collect what they alone left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], NoReturn]:
    """Skips the test, which needs something that this machine lacks."""

    def skip(what: str) -> NoReturn:
        pytest.skip(f"missing on this machine: {what}")

    return skip


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of recorded provider streams, which is not part of this repository: `GAI_FAST_CORPUS` names it."""
    folder = Path(os.environ.get("GAI_FAST_CORPUS") or ROOT / "../shared/streams")
    if not (folder / "expected.json").is_file():
        pytest.skip("no recordings: GAI_FAST_CORPUS names their folder")
    return folder.resolve()


@pytest.fixture
def change_limits() -> Iterator[ChangeLimits]:
    """Changes limits until the test ends, for all modules alike: `change_limits(config_file=1000)`."""
    former: dict[str, object] = {}

    def change(**limits: float) -> None:
        for name, value in limits.items():
            former.setdefault(name, getattr(LIMITS, name))
            set_limit(name, value)

    yield change
    for name, value in former.items():
        set_limit(name, value)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Certificates; no test changes those that are there."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Yields an HTTP client whose requests end."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session:
        yield session


class _LoopErrors(logging.Handler):
    """Every loop, uvloop's too, reports what nobody handles to the logger `asyncio`."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


@pytest.fixture(autouse=True)
def loop_errors() -> Iterator[list[str]]:
    """Fails the test when a callback, a protocol or a forgotten task raised; a test that means it clears the list."""
    handler = _LoopErrors()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield handler.messages
    logger.removeHandler(handler)
    assert not handler.messages, "an event loop had to report:\n" + "\n".join(handler.messages)
