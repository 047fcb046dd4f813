"""Programs of the operator that print a secret: a token, or the keys of the store.

Blocks, so the event loop calls it in a thread. A program gets no shell and no input, and its own session, so that one
that hangs ends with everything that it has started. Its standard error is discarded: it may hold secrets.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Literal


class ProgramError(Exception):
    """A program did not print what it should.

    Args:
        text: What happened, to follow the program's name; nothing of what it printed.
        fault: It cannot be run, failed, prints too much, or has not ended in time.
    """

    def __init__(self, text: str, fault: Literal["missing", "failed", "output", "late"]) -> None:
        super().__init__(text)
        self.fault = fault


class Cancellation:
    """Ends a running program from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ends the running program, if there is one, and every program that is started later."""
        with self._lock:
            self._cancelled.set()
            if self._process is not None:
                _kill(self._process)

    def wait(self, seconds: float) -> bool:
        """Waits for `cancel`.

        Args:
            seconds: The longest wait.

        Returns:
            Whether it was called.
        """
        return self._cancelled.wait(seconds)

    def holds(self, process: subprocess.Popen[bytes] | None) -> None:
        """Notes the program that runs. None if none does."""
        with self._lock:
            self._process = process
            if process is not None and self._cancelled.is_set():
                _kill(process)


def output_of(command: Sequence[str], cancellation: Cancellation, *, seconds: float, most: int) -> bytes:
    """Runs a program and returns what it prints.

    Args:
        command: The program and its arguments.
        cancellation: Ends the program.
        seconds: The time that it may take.
        most: Bytes that it may print.

    Raises:
        ProgramError: It failed.
    """
    try:
        process = subprocess.Popen(
            [*command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it holds a null character"
        raise ProgramError(f"cannot be run: {why}", "missing") from None
    cancellation.holds(process)
    try:
        printed = _read(process, seconds, most)
    finally:
        _kill(process)
        code = process.wait()
        cancellation.holds(None)
        if process.stdout is not None:
            process.stdout.close()
    if code:
        raise ProgramError(f"exited with code {code}" if code > 0 else f"was ended by signal {-code}", "failed")
    return printed


def _read(process: subprocess.Popen[bytes], seconds: float, most: int) -> bytes:
    """Returns what a program prints; it has ended then."""
    assert process.stdout is not None
    until = time.monotonic() + seconds
    printed = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            data = os.read(process.stdout.fileno(), most)
            printed += data
            if len(printed) > most:
                raise ProgramError(f"prints more than {most} bytes", "output")
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
                    return bytes(printed)
                break
    raise ProgramError(f"has not ended within {seconds:g} s", "late")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a program and what it has started, which are one session. Does nothing if it has ended by itself."""
    if process.returncode is not None:  # another program may have its id
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: the latter for a group that has ended
        os.killpg(process.pid, signal.SIGKILL)
