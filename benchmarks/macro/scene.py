"""The processes of one scenario on loopback, and the program that measures scenarios and prints their tables."""

from __future__ import annotations

import shutil
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, TypeVar

from benchmarks.macro.environments import ROOT
from benchmarks.macro.measuring import LIMIT_SECONDS
from benchmarks.macro.running import Fault, Process, free_port, pinned
from benchmarks.macro.scenarios import WORDS

Row = Sequence[object]


class Scene:
    """The processes of one scenario.

    Args:
        folder: An empty folder for files of this run.
        stack: Ends what is started.
    """

    priority: ClassVar[int] = 0
    """That of its processes, as for `pinned`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.words = folder / "words"
        self.words.write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")

    def gateway(self, name: str, configuration: str, *arguments: str) -> tuple[Process, int]:
        """Starts a gateway, with more arguments of its command line; returns it and its port."""
        config, port = self.folder / f"{name}.toml", free_port()
        config.write_text(configuration)
        command = [sys.executable, "-m", "gai_fast", "serve", "-c", str(config), "--port", str(port), *arguments]
        return self.start(name, command, port, relay=True), port

    def redis(self) -> int:
        """Starts a redis-server; returns its port.

        Raises:
            Fault: There is none.
        """
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise Fault("no redis-server")
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.start(f"redis {port}", [program, *options], port)
        return port

    def start(self, name: str, command: Sequence[str], port: int, *, relay: bool = False) -> Process:
        """Starts a process, and returns it when it listens."""
        environment = {"PYTHONPATH": str(ROOT), "GAI_FAST_REQUIRE_EXTENSIONS": "1"}
        log = self.folder / f"{name}.log"
        placed = pinned(command, relay=relay, priority=self.priority)
        process = Process(name, placed, log, environment, self.folder)
        self._stack.callback(process.stop)
        process.wait_until_it_listens(port, LIMIT_SECONDS)
        return process


def check(figures: Mapping[str, float], most: Mapping[str, float]) -> None:
    """Checks figures by their bounds.

    Args:
        figures: The figures, by name.
        most: The bound of each.

    Raises:
        Fault: One is above its bound.
    """
    beyond = [f"{name} is {value:.2f}, at most {most[name]:g}" for name, value in figures.items() if value > most[name]]
    if beyond:
        raise Fault("; ".join(beyond))


def reported(rows: list[Row], figures: Mapping[str, float], most: Mapping[str, float]) -> list[Row]:
    """Returns the rows of a scenario; arguments as for `check`.

    Raises:
        Fault: As `check`. The rows are printed first.
    """
    try:
        check(figures, most)
    except Fault:
        for row in rows:
            print(*row, sep="  ", file=sys.stderr)
        raise
    return rows


AnyScene = TypeVar("AnyScene", bound=Scene)


def argument_parser(module: str, doc: str, scenarios: Mapping[str, object], rounds: int) -> ArgumentParser:
    """Returns the parser of the arguments: the scenarios, and the number of rounds.

    Args:
        module: The name of the module that is run.
        doc: Its docstring, whose first line is `` `command`: description``.
        scenarios: The scenarios, by key.
        rounds: The usual number of rounds.
    """
    parser = ArgumentParser(prog=f"python -m {module}", description=doc.partition("\n")[0].partition(": ")[2])
    parser.add_argument("keys", nargs="*", metavar="KEY", help=f"only these: {', '.join(scenarios)}")
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def measure(
    parser: ArgumentParser,
    scenarios: Mapping[str, Callable[[AnyScene, int], list[Row]]],
    make: Callable[[Path, ExitStack], AnyScene],
    keys: Sequence[str],
    rounds: int,
) -> int:
    """Measures scenarios and prints a table of each; returns the exit code.

    Args:
        parser: Reports wrong arguments.
        scenarios: The scenarios, by key.
        make: Makes the scene of a scenario.
        keys: The scenarios to measure; empty for all.
        rounds: The rounds of each.
    """
    unknown = set(keys) - scenarios.keys()
    if unknown or rounds < 1:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}" if unknown else "no rounds")
    for key in keys or scenarios:
        try:
            with tempfile.TemporaryDirectory(prefix="gai-fast-bench-") as folder, ExitStack() as stack:
                rows = scenarios[key](make(Path(folder), stack), rounds)
        except Fault as fault:
            print(f"error: {key}: {fault}", file=sys.stderr)
            return 1
        print(f"{key} (medians of {rounds} rounds)")
        widths = [max(len(str(row[at])) for row in rows) for at in range(len(rows[0]))]
        for row in rows:
            print("  " + "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
