"""`gai-fast chat`: a conversation with a model in the terminal, in this process, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gai_fast.cli import Failure, config_option, json_option, load_config, log_bugs_only, option
from gai_fast.cli.serve import run_async
from gai_fast.config import wants_color
from gai_fast.core.result import ReadCollector, Result
from gai_fast.formats import StreamContext, get_format
from gai_fast.library.gateway import Gateway
from gai_fast.model.errors import Error
from gai_fast.providers import get_provider
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_request_id

if TYPE_CHECKING:
    from gai_fast.model.events import Event
    from gai_fast.model.settings import ModelSettings, Settings

# A model's text must not move the cursor, set the title or make the terminal send input (CWE-150).
_TERMINAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


class _Printer:
    """Prints an answer as it arrives. Reasoning is dimmed, and only printed to a terminal."""

    def __init__(self) -> None:
        self._is_terminal = _is_terminal()
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
            click.echo(f"\n[{name} is called; chat runs no tools]", err=True)
        elif kind == "done" and self._last != "\n":
            click.echo()

    def _write(self, kind: str, text: str) -> None:
        if self._is_terminal:
            text = _TERMINAL.sub("", text)
        if self._kind not in ("", kind):
            click.echo("\n")
        self._kind = kind
        self._last = text[-1:] or self._last
        click.echo(click.style(text, dim=True) if kind == "reasoning" and self._color else text, nl=False)


class _JSONPrinter:
    """Prints the events as NDJSON."""

    def __init__(self, model: str, request_id: str) -> None:
        context = StreamContext("", request_id, None, model, now_ms, envelope="full")
        self._encoder = get_format("gai").encoder("ndjson", context)

    def event(self, event: Event) -> None:
        self._encoder.event(event)
        click.echo(self._encoder.take(), nl=False)


class Conversation:
    """A conversation with one model."""

    def __init__(self, settings: Settings, model: ModelSettings, *, as_json: bool) -> None:
        self._settings = settings
        self._model = model
        self._as_json = as_json
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
        run_async(self._ask(request, collector))
        result = collector.result()
        if result.message["content"]:
            self._messages += [question, result.message]
        return result

    async def _ask(self, request: dict[str, Any], collector: ReadCollector) -> None:
        loop = asyncio.get_running_loop()
        cancelling: list[asyncio.Task[None]] = []
        printer = _JSONPrinter(self._model.name, request["request_id"]) if self._as_json else _Printer()
        try:
            async with Gateway(self._settings) as gateway, gateway.stream(request) as stream:
                loop.add_signal_handler(signal.SIGINT, lambda: cancelling.append(loop.create_task(stream.cancel())))
                async for event in stream:
                    collector.event(event)
                    printer.event(event)
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
    description = get_provider(chosen.upstream.provider).description
    if description and _is_terminal() and not json:
        click.echo(f"[{chosen.name}: {description}]", err=True)
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
