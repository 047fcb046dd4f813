"""Servers that are forked from a process which has imported them: each takes half a second of a core less to start.

A server forks its workers in the same way. What a start itself does is tested by `test_cli.py`, in new processes.
"""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import os
import signal
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from gai_fast.cli import main
from gai_fast.server.limits import LIMITS

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__, "tests.integration.preloaded"])

Arguments = tuple[str | socket.socket, ...]


class ForkedProcess:
    """A running command line; as `asyncio.subprocess.Process`, as far as tests of servers use it.

    Args:
        arguments: Those of the command line; a socket becomes the number of its descriptor, which the process inherits.
        folder: The working directory.
        environment: All variables.
        patience: The time for the end of a server.
        stderr: Its standard error: a descriptor, or a pipe.
    """

    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader | None = None

    def __init__(
        self, arguments: Arguments, folder: Path, environment: dict[str, str], patience: float, stderr: int
    ) -> None:
        self._output, output = FORKS.Pipe(duplex=False)
        self._errors: Connection | None = None
        if stderr == asyncio.subprocess.PIPE:
            self._errors, errors = FORKS.Pipe(duplex=False)
        else:
            errors = Connection(os.dup(stderr), readable=False)
        with output, errors:
            self._process = FORKS.Process(
                target=run, args=(arguments, folder, environment, patience, output, errors), daemon=True
            )
            self._process.start()
        assert self._process.pid is not None
        self._pid = self._process.pid
        self._transports: list[asyncio.ReadTransport] = []
        self._has_ended = asyncio.Event()
        self._code: int | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._process.sentinel, self._end)

    async def __aenter__(self) -> ForkedProcess:
        """Begins to read what it prints."""
        self.stdout = await self._reader(self._output)
        if self._errors is not None:
            self.stderr = await self._reader(self._errors)
        return self

    async def __aexit__(self, *problem: object) -> None:
        """Ends it, and no longer reads what its workers print that may still be there."""
        if self.returncode is None:
            self.kill()
        await self.wait()
        for transport in self._transports:
            transport.close()
        self._process.close()  # its pipes, which `multiprocessing` keeps until the next process

    async def _reader(self, pipe: Connection) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        with pipe:
            file = os.fdopen(os.dup(pipe.fileno()), "rb", buffering=0)
        transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        self._transports.append(transport)
        return reader

    def _end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        self._code = self._process.exitcode
        self._has_ended.set()

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def returncode(self) -> int | None:
        return self._code if self._has_ended.is_set() else self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process, unless it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Returns the exit code, below zero if a signal ended it."""
        await self._has_ended.wait()
        assert self._code is not None
        return self._code


def run(arguments: Arguments, folder: Path, environment: dict[str, str], patience: float, *streams: Connection) -> None:
    """Runs the command line in the forked process."""
    for number, stream in enumerate(streams, 1):
        with stream:
            os.dup2(stream.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)
    os.chdir(folder)
    sys.path.insert(0, "")
    os.environ.clear()
    os.environ.update(environment)
    for name in ("closing", "final_frame", "worker_end"):
        object.__setattr__(LIMITS, name, patience)
    try:
        main([each if isinstance(each, str) else str(each.detach()) for each in arguments], prog_name="gai-fast")
    finally:
        atexit._run_exitfuncs()  # which `multiprocessing` does not, and each exit of an interpreter does
