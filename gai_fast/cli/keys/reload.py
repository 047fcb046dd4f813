"""`gai-fast reload`: lets a running server read its configuration again, and prints what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gai_fast.cli import api_key_option, json_option, print_json, url_option
from gai_fast.cli.keys.server_key import at_server

if TYPE_CHECKING:
    from gai_fast.model.settings import Secret


@click.command()
@url_option(default="http://127.0.0.1:8080", help="The server, without a path.")
@api_key_option()
@json_option
def command(url: str, api_key: Secret | None, json: bool) -> None:
    """Let a running server read its configuration again.

    SIGHUP does the same. Exit code 1: no server answers, or it keeps its former configuration.
    """
    from gai_fast.cli.top.lines import printable

    raw, report = at_server(url, api_key, lambda client: client.reload(), "GAI_FAST_RELOAD_API_KEY", "--url")
    if json:
        print_json(raw)
        return
    click.echo(f"reloaded, {len(report.changes) or 'no'} change{'' if len(report.changes) == 1 else 's'}")
    for change in report.changes:
        click.echo(printable(f"{change.what}: {change.change}"))
    if report.needs_restart:
        click.echo(printable(f"what has changed in {', '.join(report.needs_restart)} needs a restart"), err=True)
