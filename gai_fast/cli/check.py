"""`gai-fast check`: validates the configuration, and sends a request to each upstream if `--probe` is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gai_fast.cli import (
    ConfigFailure,
    check_app,
    config_option,
    json_option,
    load_config,
    log_bugs_only,
    option,
    print_json,
)

if TYPE_CHECKING:
    from gai_fast.library.gateway import Gateway
    from gai_fast.model.settings import ServerSettings, Settings, UpstreamSettings

PROBE_SECONDS = 10.0
PROBE = {"query": "Hi", "max_tokens": 16}
"""A request for a short answer; 16 tokens is the smallest limit that reasoning models accept."""
NO_MODEL = "gai-fast-probe"


def _check_certificate(server: ServerSettings) -> None:
    """Reads the server's certificate, if there is one.

    Raises:
        ConfigFailure: The certificate cannot be used.
    """
    if server.tls_cert is None or server.tls_key is None:
        return
    from gai_fast.server.edge.certificate import Certificate, CertificateError

    try:
        Certificate(server.tls_cert, server.tls_key)
    except CertificateError as problem:
        raise ConfigFailure(str(problem)) from None


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of one request to one upstream."""

    upstream: str
    model: str
    ok: bool
    ms: int
    message: str


async def _probe(gateway: Gateway, upstream: UpstreamSettings) -> Probe:
    """Sends a request to the first model of the upstream, or to an unknown model if there is none: a refusal of that
    model proves that the upstream answers."""
    from gai_fast.model.errors import Error

    known = next(_model_ids(upstream, gateway.settings), None)
    name = f"{upstream.name}/{known or NO_MODEL}"
    begun = time.monotonic()
    ok, message = False, f"no answer within {PROBE_SECONDS:g} s"
    try:
        async with asyncio.timeout(PROBE_SECONDS), gateway.stream({"model": name, **PROBE}) as stream:
            await stream.result()
            ok, message = True, "answers"
    except TimeoutError:
        pass
    except Error as problem:
        ok = known is None and problem.code in ("not_found", "invalid_request") and "model" in str(problem).lower()
        message = "answers; no [[model]] names it" if ok else f"{problem.code}: {problem}"
    return Probe(upstream.name, known or NO_MODEL, ok, round((time.monotonic() - begun) * 1000), message)


def _model_ids(upstream: UpstreamSettings, settings: Settings) -> Iterator[str]:
    """Yields an upstream's ids of the configured models."""
    for model in settings.models.values():
        for target in model.targets or (model,):
            if target.upstream is upstream:
                yield target.id


async def _probe_all(settings: Settings, found: list[Probe]) -> None:
    from gai_fast.library.gateway import Gateway

    async with Gateway(settings) as gateway:
        found += await asyncio.gather(*(_probe(gateway, one) for one in settings.upstreams.values()))


@click.command()
@config_option
@option("--probe", is_flag=True, help="Ask each upstream's first model for a few tokens.")
@json_option
def command(config_path: Path | None, probe: bool, json: bool) -> None:
    """Validate the configuration: line, key, nearest known name.

    Exit code 2: the configuration is wrong; 1: a probed upstream does not answer.
    """
    try:
        loaded = load_config(config_path)
        check_app(loaded)
        _check_certificate(loaded.settings.server)
    except ConfigFailure as problem:
        if json:
            print_json({"ok": False, "problems": problem.message.splitlines()})
            raise click.exceptions.Exit(problem.exit_code) from None
        raise
    settings = loaded.settings
    probes: list[Probe] = []
    if probe:
        from gai_fast.cli.serve import run_async

        log_bugs_only()
        run_async(_probe_all(settings, probes))
    failed = not all(one.ok for one in probes)
    own = [model for model in settings.models.values() if model.upstream.name in settings.upstreams]
    if json:
        shown: dict[str, Any] = {
            "ok": not failed,
            "problems": [],
            "file": None if loaded.path is None else str(loaded.path),
            "upstreams": len(settings.upstreams),
            "models": len(own),
        }
        print_json({**shown, **({"probes": [asdict(one) for one in probes]} if probe else {})})
    else:
        demo = " and the demo" if len(own) < len(settings.models) else ""
        what = f"{_count(len(settings.upstreams), 'upstream')}, {_count(len(own), 'model')}{demo}"
        file = "no file" if loaded.path is None else click.format_filename(loaded.path)
        click.echo(f"config OK ({what}): {file}")
        width = max((len(one.upstream) for one in probes), default=0)
        for one in probes:
            click.echo(f"{one.upstream:{width}}  {'ok' if one.ok else 'FAILED':6}  {one.ms:5} ms  {one.message}")
    if failed:
        raise click.exceptions.Exit(1)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
