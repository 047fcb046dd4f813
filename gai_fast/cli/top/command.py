"""`gai-fast top`: shows a running server in the terminal, with the figures of its admin API."""

from __future__ import annotations

import sys
from contextlib import aclosing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from gai_fast.cli import Failure, api_key_option, json_option, print_json, url_option
from gai_fast.model.settings import Secret
from gai_fast.model.version import installing

if TYPE_CHECKING:
    from gai_fast.cli.admin_client import AdminClient
    from gai_fast.server.admin.bodies import Sample


async def _first(client: AdminClient, *, with_rates: bool) -> tuple[dict[str, Any], Sample]:
    """Returns the first figures. If rates are needed and the first figures have none, returns the next ones.

    Raises:
        AdminError: The server sends no figures.
    """
    from gai_fast.cli.admin_client import AdminError

    first: tuple[dict[str, Any], Sample] | None = None
    async with aclosing(client.samples()) as samples:
        async for each in samples:
            if not with_rates or each[1].rates is not None or first is not None:
                return each
            first = each
    if first is None:
        raise AdminError("the server ended its answer before the first sample")
    return first


async def _top(url: str, key: Secret | None, *, as_json: bool) -> None:
    from gai_fast.cli.admin_client import AdminClient, AdminError
    from gai_fast.cli.top.lines import printable

    async with AdminClient(url, key) as client:
        try:
            raw, sample = await _first(client, with_rates=as_json)
        except AdminError as problem:
            raise Failure(printable(f"{url}: {problem}")) from None
        if as_json:
            print_json(raw)
            return
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.UsageError("this is no terminal: use --json")
        from gai_fast.cli.top.screen import show

        await show(client, sample)


@click.command()
@url_option(default="http://127.0.0.1:8080", help="The server, without a path.")
@api_key_option()
@json_option
def command(url: str, api_key: Secret | None, json: bool) -> None:
    """Show a running server: streams, rates, errors, spend.

    q ends it, s and r sort, c cancels the stream under the cursor after a question. --json prints the figures once.
    Exit code 1: no server answers, or it refuses.
    """
    from gai_fast.cli.serve import run_async

    if not json and find_spec("textual") is None:
        raise Failure(f"this needs a package that is not installed: {installing('tui')}; --json needs none")
    run_async(_top(url, api_key, as_json=json))
