"""Log lines on a full pipe, a full disk and a closed file. `faults/test_host.py` runs a server on them."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from gai_fast.server.observe import log_queue
from gai_fast.server.observe.log_queue import QueuedStream
from tests.integration.test_cli import environment
from tests.limits import LIMITS
from tests.waiting import until

LINE = "x" * 999 + "\n"
MANY = LIMITS.stderr_waiting // 1000
"""As many lines as wait at most, or somewhat more."""


class Pipe:
    """A pipe with a queued stream at its one end."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.stream = QueuedStream(writer, "utf-8")
        self.writer = writer

    def read(self, size: int) -> str:
        """Returns the next bytes, as many as asked for."""
        data = b""
        while len(data) < size:
            data += os.read(self.reader, size - len(data))
        return data.decode()

    def line(self) -> str:
        """Returns the next line."""
        line = ""
        while not line.endswith("\n"):
            line += self.read(1)
        return line

    def lead(self, path: str) -> None:
        """Leads the writer to another file."""
        other = os.open(path, os.O_WRONLY)
        os.dup2(other, self.writer)
        os.close(other)

    def fill(self) -> int:
        """Fills it with as many bytes as it takes, which are returned."""
        os.set_blocking(self.writer, False)
        size = 0
        try:
            while True:
                size += os.write(self.writer, b"-" * select.PIPE_BUF)
        except BlockingIOError:
            os.set_blocking(self.writer, True)
        return size


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.set_blocking(pipe.reader, False)
    while pipe.stream._waiting:  # its thread must not write to the file that gets the number next
        try:
            os.read(pipe.reader, 1 << 20)
        except BlockingIOError:
            select.select([pipe.reader], [], [], 0.01)
    os.close(pipe.reader)
    os.close(pipe.writer)


@pytest.fixture
def logger(pipe: Pipe) -> Iterator[logging.Logger]:
    """Yields a logger that writes to the pipe, as the logger of dropped lines does."""
    handler = logging.StreamHandler(pipe.stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("gai_fast.server")
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def test_lines_come_in_order_and_none_is_lost(pipe: Pipe) -> None:
    lines = [f"{number} é\n" for number in range(10_000)]
    size = len("".join(lines).encode())
    reading = threading.Thread(target=lambda: seen.append(pipe.read(size)))
    seen: list[str] = []
    reading.start()
    for each in lines:
        assert pipe.stream.write(each) == len(each)
    assert pipe.stream.drain()
    reading.join()
    assert seen == ["".join(lines)]
    assert pipe.stream.dropped == 0


def test_lines_of_several_writers_of_a_pipe_are_not_mixed(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe takes up to `PIPE_BUF` bytes in one piece; a longer line is written by itself."""
    writes: list[bytes] = []

    def write(descriptor: int, data: bytes) -> bytes:
        if not writes:
            may_write.wait()
        writes.append(data)
        return b""

    may_write = threading.Event()
    monkeypatch.setattr(log_queue, "_write", write)
    long = "y" * select.PIPE_BUF + "\n"
    lines = ["first\n", *[LINE] * 10, long, "last\n"]
    for each in lines:
        pipe.stream.write(each)
    may_write.set()
    assert pipe.stream.drain()
    assert b"".join(writes).decode() == "".join(lines)
    assert all(each.endswith(b"\n") for each in writes)
    assert [len(each) > select.PIPE_BUF for each in writes].count(True) == 1
    assert len(writes) < len(lines) / 2


async def test_a_full_pipe_holds_nobody_up_and_the_log_says_what_was_dropped(
    pipe: Pipe, logger: logging.Logger
) -> None:
    filled = pipe.fill()
    written = MANY + 100
    for number in range(written):
        pipe.stream.write(f"{number:0999}\n")
    dropped = pipe.stream.dropped
    assert 100 <= dropped < written
    assert not pipe.stream.drain()
    pipe.read(filled)
    kept = [int(pipe.read(1000)) for _ in range(written - dropped)]
    assert kept == list(range(len(kept))), "the oldest ones are kept"
    assert pipe.line() == f"ERROR {dropped} log lines were dropped\n"
    pipe.stream.write("later\n")
    assert pipe.line() == "later\n"
    assert pipe.stream.drain()
    assert pipe.stream.dropped == dropped


@pytest.mark.parametrize("problem", ["a full disk", "a pipe whose reader is gone", "a closed file"])
async def test_a_write_that_fails_is_counted_and_reported_once_one_succeeds(
    pipe: Pipe, logger: logging.Logger, problem: str
) -> None:
    pipe.stream.write("before\n")
    assert pipe.line() == "before\n"
    kept = os.dup(pipe.writer)
    match problem:
        case "a full disk":
            pipe.lead("/dev/full")
        case "a closed file":
            pipe.lead(os.devnull)
            os.close(pipe.writer)
        case _:
            reader, writer = os.pipe()
            os.dup2(writer, pipe.writer)
            os.close(reader)
            os.close(writer)
    pipe.stream.write("a\nb\n")
    pipe.stream.write("c\n")
    await until(lambda: pipe.stream.dropped == 3)
    assert pipe.stream.drain()
    os.dup2(kept, pipe.writer)
    os.close(kept)
    pipe.stream.write("after\n")
    assert [pipe.line(), pipe.line()] == ["after\n", "ERROR 3 log lines were dropped\n"]


def test_of_a_write_that_fails_half_way_the_rest_is_counted(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: bytes) -> int:
        if data.startswith(b"a"):
            return 3
        raise OSError

    monkeypatch.setattr(os, "write", write)
    pipe.stream.write("a\nb\nc\n")
    assert pipe.stream.drain()
    assert pipe.stream.dropped == 2


def test_a_pipe_that_somebody_has_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    filled = pipe.fill()
    os.set_blocking(pipe.writer, False)
    pipe.stream.write("a\n")
    pipe.stream.write("b\n")
    assert not pipe.stream.drain()
    pipe.read(filled)
    assert pipe.read(4) == "a\nb\n"
    assert pipe.stream.drain()
    assert pipe.stream.dropped == 0


async def test_lines_that_no_thread_can_write_are_counted(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        pipe.stream.write("a\n")
    assert pipe.stream.dropped == 1
    pipe.stream.write("b\n")
    assert pipe.line() == "b\n"


def test_a_line_that_waits_keeps_no_exception_alive(
    pipe: Pipe, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Held:
        """An object that a frame refers to."""

    def fail() -> None:
        held = Held()
        references.append(weakref.ref(held))
        raise ValueError("no")

    references: list[weakref.ref[Held]] = []
    monkeypatch.setattr(logger, "propagate", False)  # pytest keeps what it captures
    filled = pipe.fill()
    try:
        fail()
    except ValueError:
        logger.exception("failed")
    assert references[0]() is None
    pipe.read(filled)
    assert pipe.line() == "ERROR failed\n"


def test_it_is_a_text_file_whose_odd_characters_are_escapes(pipe: Pipe) -> None:
    stream = QueuedStream(pipe.writer, "ascii")
    print("é", "\udcff", file=stream, flush=True)
    assert pipe.line() == "\\xe9 \\udcff\n"
    assert (stream.encoding, stream.errors, stream.isatty(), stream.writable()) == (
        "ascii",
        "backslashreplace",
        False,
        True,
    )
    assert stream.fileno() == pipe.writer


def test_where_the_standard_error_is_in_memory_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    former = sys.stderr
    log_queue.install()
    assert sys.stderr is former
    assert log_queue.dropped() == 0
    log_queue.drain()


START = """
import atexit, logging, os, sys
from gai_fast.server.observe import log_queue
atexit.register(lambda: print("late", file=sys.stderr))
log_queue.install()
logging.basicConfig()
"""


def test_the_last_words_of_a_process_are_written() -> None:
    script = """
atexit.register(lambda: print("at the end", file=sys.stderr))
logging.warning("a line")
raise ValueError("a bug")
"""
    process = subprocess.run(
        [sys.executable, "-c", START + script],
        stderr=subprocess.PIPE, env=environment(), text=True, timeout=60, check=False,
    )  # fmt: skip
    assert process.returncode == 1
    lines = process.stderr.splitlines()
    assert lines[:2] == ["WARNING:root:a line", "Traceback (most recent call last):"]
    assert lines[-3:] == ["ValueError: a bug", "at the end", "late"]


def test_a_process_begins_anew_when_it_has_forked(pipe: Pipe) -> None:
    """The parent's thread may be waiting for the pipe; the parent's lines are written once."""
    script = """
log_queue._stream._waiting = log_queue.LIMITS.stderr_waiting - 100
logging.warning("of the parent")
logging.warning("dropped")
assert log_queue.dropped() == 1
log_queue._stream._waiting -= log_queue.LIMITS.stderr_waiting - 100
child = os.fork()
if not child:
    print(log_queue.dropped(), flush=True)
    logging.warning("of the child")
    while log_queue._stream._waiting: log_queue.drain()
    os._exit(0)
os.waitpid(child, 0)
while log_queue._stream._waiting: log_queue.drain()
"""
    filled = pipe.fill()
    command = [sys.executable, "-W", "ignore", "-c", START + script]  # Python 3.12 warns of a fork beside a thread
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=pipe.writer, env=environment())
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        pipe.read(filled)
        assert sorted(pipe.line() for _ in range(3)) == [
            "ERROR:gai_fast.server:1 log lines were dropped\n",
            "WARNING:root:of the child\n",
            "WARNING:root:of the parent\n",
        ]
        assert process.wait(60) == 0
