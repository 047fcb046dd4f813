"""One gateway for all targets, and the lines that the run ends with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.requests.gateway import Bench
from tests.requests.judge import Judge, sources

SUMMARIES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """Yields the gateway and the fakes."""
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture(scope="session")
def judge(bench: Bench) -> Judge:
    """Judges targets, each once."""
    return Judge(bench)


@pytest.fixture(scope="session")
def summaries(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run."""
    return request.config.stash.setdefault(SUMMARIES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Writes what was accepted and kept, one line for each provider that was judged, and of which requests."""
    lines = config.stash.get(SUMMARIES, [])
    for line in [*lines, sources()] if lines else ():
        terminalreporter.write_line(line)
