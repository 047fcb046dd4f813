"""`gai-fast chat`: a conversation with a model in the terminal, in this process, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from gai_fast.cli import Failure, config_option, json_option, load_config, log_bugs_only, option
from gai_fast.cli.limits import LIMITS
from gai_fast.cli.serve import run_async
from gai_fast.config import wants_color
from gai_fast.core.collector import ReadCollector
from gai_fast.core.result import Result
from gai_fast.formats import StreamContext, get_format
from gai_fast.library.gateway import Gateway
from gai_fast.model.errors import Error
from gai_fast.providers import get_provider
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_request_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gai_fast.library.gateway import GatewayStream
    from gai_fast.model.events import Event
    from gai_fast.model.settings import ModelSettings, Settings

# A model's text must not move the cursor, set the title or make the terminal send input (CWE-150).
_TERMINAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


class Wrapped:
    """Breaks lines of a growing text at words, as a terminal breaks them anywhere.

    A word is held back until it is complete; between wide characters a line may be broken anywhere. What may be copied
    stays as it is: a word longer than a line, and the code between lines that begin with three backticks, which may be
    indented. The work is linear in the text, as what is held back is bounded.

    Args:
        width: The width of a line, in cells.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._word = ""
        self._word_cells = 0
        self._column = 0
        self._line = ""
        """The start of the line without its blanks, while it may become a code fence."""
        self._is_code = False
        self._is_long = False  # the present word is longer than a line

    def add(self, text: str) -> str:
        """Returns the printable part of the text so far."""
        out: list[str] = []
        for character in text:
            if len(self._line) < len(_FENCE) and (self._line or character not in " \t"):
                self._line += character
            if character == "\n":
                out += [self.rest(), character]
                self._is_code ^= self._line.startswith(_FENCE)
                self._column, self._line, self._is_long = 0, "", False
            elif self._is_code or self._line.startswith(_FENCE):
                out += [self.rest(), character]
            elif character in " \t":
                out.append(self.rest())
                self._is_long = False
                if self._column < self._width:  # else the next word begins a line
                    out.append(character)
                    self._column += 1
            elif self._is_long:
                out.append(character)
                self._column = (self._column + _cells(character)) % self._width
            elif unicodedata.east_asian_width(character) in "WF":
                out.append(self.rest())
                self._hold(character)
                out.append(self.rest())
            else:
                self._hold(character)
                if self._word_cells >= self._width or len(self._word) >= LIMITS.word_held:
                    out.append(self.rest())
                    self._is_long = True
        return "".join(out)

    def rest(self) -> str:
        """Returns the word that is held back, on a line of its own if the present one has no room for it."""
        word, cells = self._word, self._word_cells
        self._word, self._word_cells = "", 0
        is_new = cells > 0 and self._column > 0 and self._column + cells > self._width
        self._column = (0 if is_new else self._column) + cells
        return f"\n{word}" if is_new else word

    def _hold(self, character: str) -> None:
        self._word += character
        self._word_cells += _cells(character)


_FENCE: Final = "```"


def _cells(character: str) -> int:
    """Returns the cells that a character takes on a terminal: 0 for marks and format characters, such as joiners."""
    if unicodedata.category(character) in _WITHOUT_CELL:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


_WITHOUT_CELL: Final = frozenset(("Mn", "Me", "Cf"))


class _Printer:
    """Prints an answer as it arrives. On a terminal its lines are broken at words, and its reasoning is dimmed; it is
    printed to a terminal only."""

    def __init__(self) -> None:
        self._is_terminal = _is_terminal()
        self._wrapped: Wrapped | None = None
        self._begin_line()
        self._color = self._is_terminal and wants_color()
        self._kind = ""
        self._last = "\n"

    def event(self, event: Event) -> None:
        kind = event["type"]
        if event.get("choice"):
            return
        if kind in ("text.delta", "refusal.delta"):
            self._write("text", event["text"])
        elif kind == "reasoning.delta" and self._is_terminal:
            self._write("reasoning", event["text"])
        elif kind == "tool.call":
            call = event["tool_call"]
            name = _TERMINAL.sub("", call["name"])
            is_made = event.get("executed_by") == "gateway"
            self._note(f"the model calls {name}" if is_made else f"{name} is called; chat runs no tools of its own")
        elif kind == "tool.result" and event.get("is_error"):
            self._note(f"the call has failed: {_TERMINAL.sub('', str(event['tool_result']))}")
        elif kind == "approval.required":
            self._flush()
        elif kind == "done":
            self._flush()
            if self._last != "\n":
                click.echo()

    def _note(self, text: str) -> None:
        """Prints a line beside the answer."""
        self._flush()
        click.echo(f"\n[{text}]", err=True)
        self._begin_line()

    def _write(self, kind: str, text: str) -> None:
        if self._kind not in ("", kind):
            self._flush()
            click.echo("\n")
            self._begin_line()
        self._kind = kind
        self._print(text if self._wrapped is None else self._wrapped.add(_TERMINAL.sub("", text)))

    def _begin_line(self) -> None:
        if self._is_terminal:
            self._wrapped = Wrapped(shutil.get_terminal_size().columns)

    def _flush(self) -> None:
        """Prints the word that is held back."""
        if self._wrapped is not None:
            self._print(self._wrapped.rest())

    def _print(self, text: str) -> None:
        self._last = text[-1:] or self._last
        is_dim = self._kind == "reasoning" and self._color
        click.echo(click.style(text, dim=True) if is_dim and text else text, nl=False)


class _JSONPrinter:
    """Prints the events as NDJSON."""

    def __init__(self, model: str, request_id: str) -> None:
        context = StreamContext("", request_id, None, model, now_ms, envelope="full")
        self._encoder = get_format("gai").encoder("ndjson", context)

    def event(self, event: Event) -> None:
        self._encoder.event(event)
        click.echo(self._encoder.take(), nl=False)


class _Approver:
    """Asks the person at the terminal whether calls of tools are made. Any answer but yes is no.

    Args:
        loop: The loop, which goes on while the person thinks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._typed: asyncio.Future[str | None] | None = None

    async def ask(self, stream: GatewayStream, approval: Mapping[str, Any]) -> None:
        """Asks about a call, and decides it."""
        name = ".".join(part for part in (approval.get("server"), approval["tool"]) if part)
        shown = f"{name} {json.dumps(approval['input'])}"  # in ASCII: nothing moves the cursor, or the text's direction
        click.echo(f"\n[{_TERMINAL.sub('', shown)}: make this call? y/N] ", err=True, nl=False)
        answer = await self._line()
        if answer is None:
            return
        decision: Literal["approve", "deny"] = "approve" if answer.strip().lower() in ("y", "yes") else "deny"
        try:
            await stream.decide(approval["id"], decision, approval["digest"])
        except Error as problem:
            click.echo(f"[{problem}]", err=True)

    def interrupt(self) -> None:
        """Ends the prompt, because the answer was cancelled."""
        if self._typed is not None and not self._typed.done():
            self._typed.set_result(None)

    async def _line(self) -> str | None:
        """Returns the line that the person types. None if the answer is cancelled before its end."""
        typed: asyncio.Future[str | None] = self._loop.create_future()
        self._typed = typed

        def read() -> None:
            if not typed.done():
                typed.set_result(sys.stdin.readline())

        self._loop.add_reader(sys.stdin.fileno(), read)
        try:
            return await typed
        finally:
            self._loop.remove_reader(sys.stdin.fileno())


class Conversation:
    """A conversation with one model."""

    def __init__(self, settings: Settings, model: ModelSettings, *, as_json: bool) -> None:
        self._settings = settings
        self._model = model
        self._as_json = as_json
        self._asks = not as_json and sys.stdin.isatty()
        self._messages: list[dict[str, Any]] = []

    def say(self, prompt: str) -> Result:
        """Sends a prompt, prints the answer as it arrives, and keeps both for the next turn.

        Raises:
            Error: The answer failed; neither prompt nor answer is kept.
        """
        question = {"role": "user", "content": prompt.encode("utf-8", "replace").decode()}
        collector = ReadCollector()
        messages = [*self._messages, question]
        request = {"model": self._model.name, "messages": messages, "request_id": new_request_id()}
        if not self._asks:
            request["approvals"] = "deny"
        run_async(self._ask(request, collector))
        result = collector.result()
        if result.message["content"]:
            self._messages += [question, *result.messages]
        return result

    async def _ask(self, request: dict[str, Any], collector: ReadCollector) -> None:
        loop = asyncio.get_running_loop()
        cancelling: list[asyncio.Task[None]] = []
        printer = _JSONPrinter(self._model.name, request["request_id"]) if self._as_json else _Printer()
        try:
            async with Gateway(self._settings) as gateway, gateway.stream(request) as stream:
                approver = _Approver(loop)

                def cancel() -> None:
                    approver.interrupt()
                    cancelling.append(loop.create_task(stream.cancel()))

                loop.add_signal_handler(signal.SIGINT, cancel)
                async for event in stream:
                    collector.event(event)
                    printer.event(event)
                    if self._asks and event["type"] == "approval.required":
                        await approver.ask(stream, event["approval"])
        finally:
            loop.remove_signal_handler(signal.SIGINT)


def _chosen(settings: Settings, name: str | None) -> ModelSettings:
    try:
        return settings.chosen(name)
    except Error as problem:
        raise click.BadParameter(str(problem), param_hint="--model") from None


@click.command()
@config_option
@option("-m", "--model", help="The model to ask; by default the configuration's.")
@json_option
@click.argument("prompt", required=False)
def command(config_path: Path | None, model: str | None, json: bool, prompt: str | None) -> None:
    """Stream an answer to the terminal.

    PROMPT - reads it from the standard input; without one a conversation begins. Ctrl-C cancels the answer, Ctrl-D ends
    the conversation.
    """
    settings = load_config(config_path).settings
    log_bugs_only()
    chosen = _chosen(settings, model)
    if _is_terminal() and not json:
        description = get_provider(chosen.upstream.provider).description
        about = description or " or ".join(f"{each.upstream.name}/{each.id}" for each in chosen.targets or (chosen,))
        click.echo(_TERMINAL.sub("", f"[{chosen.name}: {about}]"), err=True)
    conversation = Conversation(settings, chosen, as_json=json)
    if prompt is None:
        _converse(conversation)
        return
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise click.BadParameter("the prompt is empty", param_hint="PROMPT")
    try:
        result = conversation.say(text)
    except Error as problem:
        raise Failure(f"{problem.code}: {problem}") from None
    if result.finish_reason == "cancelled":
        raise click.exceptions.Exit(1)


def _converse(conversation: Conversation) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # line editing and history for input()
    sign = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            prompt = input(sign)
        except (EOFError, KeyboardInterrupt):
            if sign:
                click.echo()
            return
        if not prompt.strip():
            continue
        try:
            conversation.say(prompt)
        except Error as problem:
            click.echo(f"error: {problem.code}: {problem}", err=True)
