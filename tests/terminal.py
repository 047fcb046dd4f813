"""A terminal for the standard output of a program that a test runs."""

from __future__ import annotations

import asyncio
import os
import termios
from io import FileIO
from types import TracebackType
from typing import Self


class Terminal:
    """A pseudo terminal, which changes nothing of what is written to it.

    Attributes:
        descriptor: The program's end; hand it over as its standard output.
        reader: What the program has written.
    """

    reader: asyncio.StreamReader

    async def __aenter__(self) -> Self:
        ours, self.descriptor = os.openpty()
        attributes = termios.tcgetattr(self.descriptor)
        attributes[1] &= ~termios.OPOST  # else a line feed becomes two characters
        termios.tcsetattr(self.descriptor, termios.TCSANOW, attributes)
        self.reader = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.reader), FileIO(ours)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()
        os.close(self.descriptor)
