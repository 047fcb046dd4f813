"""A server of tools that is a process: a message is a line of its standard input or output.

Owns the process: its start, its end, and what it may leave behind. It must not know the meaning of methods.

1. A line of the output that is no message is ignored: many servers log there. A process that sends
   `limits.lines_unasked` lines without an answer is ended.
2. The process has a session and a group of its own: Ctrl-C does not reach it, and its children end with it.
3. It is ended so: its input ends; after `limits.exit_wait` its group gets SIGTERM, after as long again SIGKILL. Once it
   has ended, what is left of its group is killed. Only a child with a group of its own can outlive it.
   If the gateway itself is killed, a shell that waits for the end of a pipe ends the group.
4. A process that has ended, or closed its input, is started again by the next request. What it was asked for is not
   sent again here. Its end is noticed even if a child holds its output: within `limits.exit_look`, or by the next
   request. What it has written before is read first.
5. Writing is not awaited: a process that leaves `limits.unread_input` bytes unread is asked for nothing more.
6. Its pipes are the loop's: nothing is closed before the loop has got both, and then only by the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from gai_fast.kernels import LineFramer
from gai_fast.model.limits import SHARED
from gai_fast.net.attempts.recording import secrets_of
from gai_fast.net.tools.crashes import Crash
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.tools.message_reader import Beside, MessageReader
from gai_fast.net.tools.protocol import Agreement
from gai_fast.net.tools.rpc import (
    Fault,
    Notice,
    ServerMessage,
    ServerQuestion,
    ServerReply,
    ToolServerError,
    answer_bytes,
    notice_bytes,
    request_bytes,
)
from gai_fast.net.tools.wire import ToolRequest, Wire


class StdioWire(Wire):
    """The way to a process.

    Args:
        command: The program and its arguments.
        env: Its environment. None means this process's own.
        secrets: Values in it that no error may have.
        credentials: As `Wire.credentials`. None means the secrets.
        shows_errors: Whether its standard error is this process's own. If not, it is discarded: it may hold secrets.
        loop: The running loop.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        secrets: Iterable[str] = (),
        credentials: Collection[bytes] | None = None,
        shows_errors: bool = False,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._command = [*command]
        self._env = env
        self._credentials = credentials
        self._shows_errors = shows_errors
        self._hint = "" if shows_errors else _HINT
        self._loop = loop
        self._process: _Process | None = None
        self._ending: set[asyncio.Task[None]] = set()
        values = [text for value in secrets if len(value) >= SHARED.secret for text in secrets_of(value, {})]
        self._secrets = frozenset(values).union(credentials or ())  # a password in a value, too

    @property
    def secrets(self) -> Collection[bytes]:
        """As `Wire.secrets`."""
        return self._secrets

    @property
    def credentials(self) -> Collection[bytes]:
        """As `Wire.credentials`."""
        return self._secrets if self._credentials is None else self._credentials

    async def start(self) -> bool:
        """As `Wire.start`: starts the process if none runs."""
        if self._process is not None and self._process.is_running:
            return False
        self._end()
        process = self._process = _Process(
            self._loop, *self._launched(), self._lost, self._secrets, self._hint, self.beside
        )
        await process.connect()
        return True

    async def ask(self, request: ToolRequest, agreed: Agreement | None) -> ServerReply:
        """As `Wire.ask`."""
        process = self._running()
        outcome = process.expect(request, answers_questions=agreed is not None and not agreed.is_stateless)
        try:
            process.write(request_bytes(request.id, request.method, request.params))
            request.was_sent = True
            return await outcome
        except asyncio.CancelledError:
            if process.is_running and agreed is not None:
                with contextlib.suppress(ToolServerError):
                    process.write(notice_bytes("notifications/cancelled", {"requestId": request.id}))
            raise
        finally:
            process.forget(request)

    async def tell(self, method: str, agreed: Agreement) -> None:
        """As `Wire.tell`."""
        self._running().write(notice_bytes(method, {}))

    async def close(self, agreed: Agreement | None) -> None:
        """As `Wire.close`: rule 3."""
        if self._process is not None:
            self._process.is_wanted = False
        self._end()
        if self._ending:
            await asyncio.gather(*self._ending)

    def _running(self) -> _Process:
        if self._process is None or not self._process.is_running:
            raise ToolServerError("its process has ended", "session")
        return self._process

    def _launched(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        """Starts the server. Returns its process, and the shell that ends it if this process is killed."""
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if self._shows_errors else subprocess.DEVNULL,
                env=self._env,
                start_new_session=True,
            )
        except (OSError, ValueError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "it holds a null character"
            raise ToolServerError(f"its command cannot be run: {why}", "unreachable") from None
        try:
            return process, _started_heir(process.pid)
        except OSError as problem:
            with process:
                process.kill()
            text = f"it is not left without a shell that can end it: {problem.strerror}"
            raise ToolServerError(text, "unreachable") from None

    def _lost(self, process: _Process) -> None:
        if self._process is process:
            self._end()  # what it has left behind, too

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            task = self._loop.create_task(process.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


_ENDING: Final = 'read -r _; kill -s TERM -- "-$1"; sleep "$2"; kill -s KILL -- "-$1"'


def _started_heir(group: int) -> subprocess.Popen[bytes]:
    """Starts a shell that ends a group of processes once this process has ended, however it did.

    The shell waits for the end of its input, in a group of its own. `PR_SET_PDEATHSIG` exists on Linux alone, and does
    not reach processes that a child has forked.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _ENDING, "sh", str(group), str(LIMITS.exit_wait)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


_MESSAGE: Final = re.compile(r"\s*[{\[]")
_ID: Final = re.compile(rb'"id" ?: ?([0-9]{1,15})\b')
_HINT: Final = ": run it by `gai-fast tools probe -- COMMAND` to see why"


class _Process(asyncio.Protocol):
    """A process, and the protocol of its standard output.

    Args:
        loop: The loop.
        process: The process.
        heir: Ends it if this process is killed.
        lost: Called once it must be ended.
        secrets: Texts that it may repeat.
        hint: What helps once it has ended.
        beside: Reads large lines.

    Attributes:
        is_wanted: Whether its end is a crash.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        process: subprocess.Popen[bytes],
        heir: subprocess.Popen[bytes],
        lost: Callable[[_Process], object],
        secrets: Collection[bytes],
        hint: str,
        beside: Beside | None,
    ) -> None:
        self.is_wanted = True
        self._lost = lost
        self._loop = loop
        self._process = process
        self._secrets = secrets
        self._hint = hint
        self._lines = LineFramer(LIMITS.tool_message)
        self._messages = MessageReader(beside, self._take, self._large_lines)
        self._lines_left = LIMITS.lines_unasked
        self._unread = b""  # if not empty, reading is paused
        self._received = 0  # bytes
        self._requests: dict[int, tuple[ToolRequest, asyncio.Future[ServerReply]]] = {}
        self._questions = 0  # that may still be answered
        self._is_connected = False
        self._is_reaped = False  # its id may be another's
        self._looks: asyncio.TimerHandle | None = None  # only while requests wait
        self._heir = heir
        self._fate: asyncio.Future[str] = loop.create_future()  # why no more answers come
        self._input: asyncio.WriteTransport | None = None
        self._output: asyncio.ReadTransport | None = None
        self._opening = loop.create_task(self._open())

    @property
    def is_running(self) -> bool:
        """Whether it can be asked."""
        if not self._is_connected or self._input is None or self._output is None:
            return False
        if self._fate.done() or self._input.is_closing() or self._output.is_closing():
            return False
        return not self._has_exited()

    async def connect(self) -> None:
        """Returns once the loop has its pipes.

        Raises:
            ToolServerError: It has ended.
        """
        await asyncio.shield(self._opening)
        if self._fate.done() or self._output is None or self._output.is_closing():
            raise ToolServerError(await asyncio.shield(self._fate), "unreachable")
        self._is_connected = True

    async def _open(self) -> None:
        await self._loop.connect_read_pipe(lambda: self, self._process.stdout)
        self._input, _ = await self._loop.connect_write_pipe(asyncio.BaseProtocol, self._process.stdin)

    def expect(self, request: ToolRequest, *, answers_questions: bool) -> asyncio.Future[ServerReply]:
        """Notes a request; returns its answer."""
        outcome: asyncio.Future[ServerReply] = self._loop.create_future()
        self._requests[request.id] = request, outcome
        self._questions = LIMITS.answered_pings if answers_questions else 0
        if self._looks is None:
            self._looks = self._loop.call_later(LIMITS.exit_look, self._look)
        return outcome

    def _look(self) -> None:
        """Ends it if it has exited and a child holds its output."""
        self._looks = None
        if self._fate.done() or not self._requests:
            return
        if not self._has_exited():
            self._looks = self._loop.call_later(LIMITS.exit_look, self._look)

    def forget(self, request: ToolRequest) -> None:
        """Drops a request that has ended."""
        self._requests.pop(request.id, None)

    def write(self, line: bytes) -> None:
        """Writes a message.

        Raises:
            ToolServerError: The process does not read.
        """
        assert self._input is not None
        if self._input.get_write_buffer_size() > LIMITS.unread_input:
            raise ToolServerError("its process does not read its standard input", "unreachable")
        self._input.write(line + b"\n")

    async def end(self) -> None:
        """Ends it: rule 3. If this is cancelled, it is killed at once."""
        try:
            await self._finish()
        finally:
            self._release()

    def _release(self) -> None:
        """Kills it if it still runs, and closes its output."""
        if not self._has_exited():
            self._signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LIMITS.exit_wait)
        self._heir.kill()
        self._heir.communicate()
        if self._output is not None:
            self._output.close()
        if self._looks is not None:
            self._looks.cancel()
        self._lose(self._how_it_ended())

    def _how_it_ended(self) -> str:
        code = self._process.poll()
        how = "" if code is None else f" (exit code {code})" if code >= 0 else f" (signal {-code})"
        return f"its process has ended{how}{self._hint}"

    async def _finish(self) -> None:
        await asyncio.wait((self._opening,))  # rule 6
        if self._has_exited():
            await self._read_rest()
        if self._output is not None and not self._output.is_closing():
            self._lose(self._how_it_ended() if self._has_exited() else "it is being ended")
        if self._input is not None and not self._input.is_closing():
            self._input.abort()
        if not await self._exits():
            self._signal(signal.SIGTERM)
            if not await self._exits():
                self._signal(signal.SIGKILL)
                await self._exits()

    async def _read_rest(self) -> None:
        """Returns once all that it has written is read, if requests wait: an answer may be the last of it."""
        until, received = self._loop.time() + LIMITS.exit_wait, -1
        while (
            self._requests
            and not self._fate.done()
            and (self._unread or self._messages.is_busy or received != self._received)
        ):
            if self._loop.time() >= until:
                return  # a child writes on
            received = self._received
            await asyncio.sleep(LIMITS.exit_check)
            await asyncio.sleep(0)  # uvloop reads after its timers

    async def _exits(self) -> bool:
        """Waits `limits.exit_wait` seconds for its end. Returns whether it has ended."""
        until = self._loop.time() + LIMITS.exit_wait
        while not self._has_exited():
            if self._loop.time() >= until:
                return False
            await asyncio.sleep(LIMITS.exit_check)
        return True

    def _has_exited(self) -> bool:
        """Returns whether it has ended. What it leaves behind is then killed, once: later its id may be another's."""
        if not self._is_reaped and self._process.poll() is not None:
            self._signal(signal.SIGKILL)
            self._is_reaped = True
            self._loop.call_soon(self._lost, self)  # the shell, too, must forget the group
        return self._is_reaped

    def _signal(self, number: int) -> None:
        """Sends a signal to its group, unless it is known to have ended."""
        if not self._is_reaped:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: the latter if the group has ended
                os.killpg(self._process.pid, number)

    # -- as a protocol --

    def connection_made(self, transport: Any) -> None:
        self._output = transport

    def data_received(self, data: bytes) -> None:
        self._unread = data
        self._received += len(data)
        if len(data) > LIMITS.output_turn and self._output is not None:
            self._output.pause_reading()
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)

    def _read(self) -> None:
        """Reads a part of what has come; other work has its turn before the next one."""
        part, self._unread = self._unread[: LIMITS.output_turn], self._unread[LIMITS.output_turn :]
        if self._fate.done():
            return
        try:
            lines = self._lines.feed(part)
        except ValueError:
            self._kill(f"it sends a line of more than {LIMITS.tool_message} bytes (limit tool_message)")
            return
        self._lines_left -= len(lines)
        # Not `lstrip`: a line of 8 MiB would be copied.
        texts = [line.data.encode() for line in lines if line.data is not None and _MESSAGE.match(line.data)]
        self._messages.read(texts, self._caller_of)
        if self._lines_left < 0:
            self._kill(f"it sends more than {LIMITS.lines_unasked} lines without an answer (limit lines_unasked)")
        elif self._messages.is_busy:
            pass  # `_large_lines` goes on
        elif self._unread:
            self._loop.call_soon(self._read)
        elif self._output is not None and not self._output.is_closing():
            self._output.resume_reading()

    def _kill(self, text: str) -> None:
        self._lose(text, "form")
        self._signal(signal.SIGKILL)
        self._lost(self)

    def _lose(self, text: str, fault: Fault = "lost") -> None:
        """Fails all requests, if this has not happened yet."""
        if self._fate.done():
            return
        self._messages.stop()
        self._fate.set_result(text)
        lost = [each for each in self._requests.values() if not each[1].done()]
        callers = frozenset([request.caller for request, _ in lost if request.caller])
        crash = Crash(callers) if callers and self.is_wanted else None
        for request, outcome in lost:
            outcome.set_exception(ToolServerError(text, fault, may_have_run=request.was_sent, crash=crash))

    def _large_lines(self, are_read: bool) -> None:
        """Reads nothing more while large lines are read."""
        if self._fate.done() or self._output is None or self._output.is_closing():
            return
        if are_read:
            self._output.pause_reading()
        else:
            self._read()

    def _caller_of(self, line: bytes) -> str:
        """Returns the name of the caller for which a line was sent, as far as its beginning says it."""
        number = _ID.search(line, 0, LIMITS.output_turn)
        found = self._requests.get(int(number[1])) if number is not None else None
        return "" if found is None else found[0].caller

    def _take(self, messages: Sequence[ServerMessage] | ToolServerError) -> None:
        if isinstance(messages, ToolServerError):
            return  # rule 1
        for message in messages:
            if isinstance(message, Notice):
                self._notice(message)
            elif isinstance(message, ServerQuestion):
                if self._questions and self.is_running:
                    self._questions -= 1
                    with contextlib.suppress(ToolServerError):
                        self.write(answer_bytes(message))
            elif message.id is not None and message.id in self._requests:
                self._lines_left = LIMITS.lines_unasked
                _, outcome = self._requests[message.id]
                if not outcome.done():
                    outcome.set_result(message)

    def _notice(self, notice: Notice) -> None:
        token = notice.params.get("progressToken")
        if type(token) is int and token in self._requests:
            self._requests[token][0].noticed(notice, self._secrets)
