"""`gai-fast check`: validates the configuration, and sends a request to each upstream if `--probe` is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gai_fast.cli import (
    ConfigFailure,
    certificate_problem,
    check_app,
    config_option,
    json_option,
    load_config,
    log_bugs_only,
    option,
    print_json,
)
from gai_fast.cli.checks.guards import closed, guard_warnings, held
from gai_fast.cli.diagnosis import Check, missing_routes, other_base_url, short_times, start_warnings
from gai_fast.guards import growth
from gai_fast.model.settings import StoreSettings

if TYPE_CHECKING:
    from gai_fast.config import Loaded
    from gai_fast.library.gateway import Gateway
    from gai_fast.model.settings import Settings, UpstreamSettings

PROBE_SECONDS = 10.0
PROBE = {"query": "Hi", "max_tokens": 16}
"""A request for a short answer; 16 tokens is the smallest limit that reasoning models accept."""
NO_MODEL = "gai-fast-probe"


def _check_certificate(loaded: Loaded) -> Iterator[str]:
    """Reads the server's certificate.

    Yields:
        A warning if it expires soon or has expired.

    Raises:
        ConfigFailure: The certificate cannot be used.
    """
    server = loaded.settings.server
    if server.tls_cert is None or server.tls_key is None:
        return
    from gai_fast.server.edge.certificate import CertificateError, certificate_of

    try:
        certificate = certificate_of(server)
    except CertificateError as problem:
        raise ConfigFailure(certificate_problem(loaded, problem)) from None
    if certificate is not None:
        yield certificate.expiry_problem(time.time())


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

    if upstream.takes_credentials:
        return Probe(upstream.name, "", True, 0, "is not asked: each caller sends a credential of its own")
    if upstream.identity is not None:
        from gai_fast.cli.checks.identity import check_identity

        begun = time.monotonic()
        identity, grant = await check_identity(upstream, upstream.identity)
        if grant is None:
            ms = round((time.monotonic() - begun) * 1000)
            return Probe(upstream.name, "", False, ms, f"{identity.detail} -> {identity.fix}")
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
        is_of_model = "model" in str(problem).lower()
        ok = known is None and problem.code in ("not_found", "invalid_request") and is_of_model
        message = "answers; no [[model]] names it" if ok else f"{problem.code}: {problem}"
        # An upstream's 405 is `invalid_request` too, and concerns the method.
        is_of_path = problem.code == "not_found" or "method" in str(problem).lower()
        if is_of_path and not is_of_model:
            message += f" -> {other_base_url(upstream)}"
    return Probe(upstream.name, known or NO_MODEL, ok, round((time.monotonic() - begun) * 1000), message)


def _model_ids(upstream: UpstreamSettings, settings: Settings) -> Iterator[str]:
    """Yields an upstream's ids of the configured models; its key may not have the usual ones."""
    for model in settings.models.values():
        for target in model.targets or (model,):
            if target.upstream is upstream and settings.usual.get(target.id) != model.name:
                yield target.id


async def _probe_all(settings: Settings, found: list[Probe], checks: dict[str, list[Check]]) -> None:
    """Asks all that the configuration names.

    Args:
        settings: The configuration.
        found: Gets the results of the upstreams.
        checks: Gets those of all else, by the word that JSON has for them.
    """
    from gai_fast.cli.checks.issuer import check_issuer
    from gai_fast.cli.checks.store import check_store
    from gai_fast.cli.checks.tool_servers import check_tool_server
    from gai_fast.library.gateway import Gateway

    checks["store"] = [await check_store(settings.store)]
    checks["issuers"] = await asyncio.gather(*map(check_issuer, settings.issuers))
    checks["tool_servers"] = await asyncio.gather(*map(check_tool_server, settings.tool_servers))
    # The store was checked: the upstreams are asked even if it cannot be used.
    settings = replace(settings, store=StoreSettings())
    async with Gateway(settings) as gateway:
        found += await asyncio.gather(*(_probe(gateway, one) for one in settings.upstreams.values()))


@click.command()
@config_option
@option(
    "--probe", is_flag=True, help="Open the store, fetch issuers' keys, list tools, ask each upstream's first model."
)
@json_option
def command(config_path: Path | None, probe: bool, json: bool) -> None:
    """Validate the configuration: line, key, nearest known name.

    Exit code 2: the configuration is wrong; 1: the store, an issuer, a server of tools or an upstream does
    not answer.
    """
    try:
        loaded = load_config(config_path)
        check_app(loaded)
        warnings = [*filter(None, _check_certificate(loaded))]
        warnings += [*start_warnings(loaded.settings), *missing_routes(loaded.settings), *short_times(loaded)]
        warnings += [*guard_warnings(loaded.settings), *growth.warnings(loaded.settings.guards)]
    except ConfigFailure as problem:
        if json:
            print_json({"ok": False, "problems": problem.message.splitlines()})
            raise click.exceptions.Exit(problem.exit_code) from None
        raise
    settings = loaded.settings
    probes: list[Probe] = []
    checks: dict[str, list[Check]] = {}
    if probe:
        from gai_fast.cli.serve import run_async

        log_bugs_only()
        run_async(_probe_all(settings, probes, checks))
    failed = not all(one.ok for one in probes) or any(each.status == "error" for each in chain(*checks.values()))
    own = [model for model in settings.models.values() if model.upstream.name in settings.upstreams]
    if json:
        shown: dict[str, Any] = {
            "ok": not failed,
            "problems": [],
            "warnings": warnings,
            "file": None if loaded.path is None else str(loaded.path),
            "upstreams": len(settings.upstreams),
            "models": len(own),
        }
        probed = {
            "probes": [asdict(one) for one in probes],
            **{word: [asdict(each) for each in found] for word, found in checks.items()},
        }
        guarded = {
            "guards": [asdict(each) for each in held(settings)],
            "closed": [asdict(each) for each in closed(settings)],
        }
        print_json({**shown, **(guarded if settings.guards else {}), **(probed if probe else {})})
    else:
        demo = " and the demo" if len(own) < len(settings.models) else ""
        what = f"{_count(len(settings.upstreams), 'upstream')}, {_count(len(own), 'model')}{demo}"
        file = "no file" if loaded.path is None else click.format_filename(loaded.path)
        click.echo(f"config OK ({what}): {file}")
        for line in (*(each.line for each in held(settings)), *(each.line for each in closed(settings))):
            click.echo(line)
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        width = max((len(one.upstream) for one in probes), default=0)
        for one in probes:
            click.echo(f"{one.upstream:{width}}  {'ok' if one.ok else 'FAILED':6}  {one.ms:5} ms  {one.message}")
        for each in chain(*checks.values()):
            fix = f" -> {each.fix}" if each.fix else ""
            click.echo(f"{each.name}: {each.status}: {each.detail}{fix}")
    if failed:
        raise click.exceptions.Exit(1)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
