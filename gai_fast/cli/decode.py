"""`gai-fast decode`: prints a recorded response body as events."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from gai_fast.cli import Failure, WholeRange, header_option, option
from gai_fast.config import checks
from gai_fast.core.relay import Relay
from gai_fast.formats import FORMATS, StreamContext, get_format
from gai_fast.providers import get_provider, provider_names
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.ids import new_request_id, new_stream_id

READ_SIZE = 65536


def _provider(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return checks.provider(value)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


@click.command()
@option(
    "--provider",
    required=True,
    callback=_provider,
    metavar="NAME",
    help=f"The provider of the answer: {', '.join(provider_names())}; NAME:API if it has several.",
)
@option("--status", type=WholeRange(100, 599), default=200, help="The answer's HTTP status.")
@header_option(help="One of its headers.")
@option("--format", type=click.Choice(list(FORMATS)), default="gai", help="What to print.")
@option("--framing", type=click.Choice(["ndjson", "sse"]), help="How to frame it; NDJSON if the format has it.")
@click.argument("file", type=click.File("rb"), default="-")
def command(
    provider: str, status: int, header: dict[str, str], format: str, framing: str | None, file: io.BufferedReader
) -> None:
    """Read a recorded response body and print its normalized events.

    FILE is the body as it was received; - or nothing reads the standard input as it arrives. An error of the provider
    is output, too: the exit code is 0.
    """
    chosen = get_format(format)
    wanted = framing or chosen.framings[-1]
    taken = next((known for known in chosen.framings if known == wanted), None)
    if taken is None:
        raise click.BadParameter(f"format {format} has no framing {framing}", param_hint="--framing")
    context = StreamContext(
        stream_id=new_stream_id(),
        request_id=new_request_id(),
        trace_id=None,
        model="",
        clock=now_ms,
        envelope="full",
    )
    encoder = chosen.encoder(taken, context)
    frames: Any = encoder if chosen.copies_upstream else None
    relay = Relay(get_provider(provider).adapter(), encoder, frames=frames)
    relay.receive_head(status, header)
    while (relay.awaits_tail or not relay.is_over) and (chunk := _read(file)):
        relay.receive_data(chunk, now_ms())
        _write(encoder.take())
    relay.receive_eof(None, now_ms())
    _write(encoder.take())


def _read(file: io.BufferedReader) -> bytes:
    """Reads the available bytes, so that a pipe is decoded while it is written."""
    try:
        return file.read1(READ_SIZE)
    except OSError as problem:
        raise Failure(f"cannot read {file.name}: {problem.strerror}") from None


def _write(data: bytes) -> None:
    if data:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
