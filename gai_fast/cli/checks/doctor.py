"""`gai-fast doctor`: finds faults of the machine, the store, the upstreams and the proxies, and how to fix them.

Owns the checks of this machine and of the upstreams; `proxy_check.py` has the checks of proxies in front of the
gateway. The checks cost no money: an upstream is only asked for its list of models. Each response has
`limits.doctor` seconds. Upstream text is never printed: it may contain a key.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import asdict
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from gai_fast.cli import FiniteRange, config_option, json_option, load_config, option, print_json, url_option
from gai_fast.cli.diagnosis import Check, missing_key, other_base_url, worst
from gai_fast.cli.ends import ends
from gai_fast.cli.limits import LIMITS
from gai_fast.model.limits import SHARED

if TYPE_CHECKING:
    import aiohttp

    from gai_fast.model.settings import Secret, ServerSettings, Settings, UpstreamSettings
    from gai_fast.net.identity.grant import Grant

_REFUSED: Final = (401, 403)


# ---- this machine ----------------------------------------------------------------------------------------------------


def check_descriptors(hard: int) -> Check:
    """Checks how many files and connections the server may open. The server raises its limit to the hard limit.

    Args:
        hard: The hard limit of this process.
    """
    detail = f"{hard} open files: some {hard // 3} streams at once"
    fix = "raise it: LimitNOFILE=65536 in a unit of systemd, `ulimit -Hn` in a shell, `ulimits` in compose"
    if hard < LIMITS.few_descriptors:
        return Check("limit", "error" if hard < LIMITS.too_few_descriptors else "warning", detail, fix)
    return Check("limit", "ok", detail)


def check_clock(dates: Sequence[str], now: float) -> Check:
    """Compares this machine's clock with the clocks of the servers that answered.

    Args:
        dates: The servers' `Date` headers.
        now: Unix seconds.
    """
    offsets = []
    for text in dates:
        try:
            offsets.append(now - parsedate_to_datetime(text).timestamp())
        except ValueError:  # not a date
            continue
    if not offsets:
        return Check("clock", "skipped", "no server has sent a date")
    offset = min(offsets, key=abs)
    if abs(offset) > LIMITS.clock_offset:
        text = f"this machine's clock is {abs(offset):.0f} s {'ahead' if offset > 0 else 'behind'}"
        return Check("clock", "warning", text, "run an NTP client (chrony, systemd-timesyncd)")
    return Check("clock", "ok", f"within {LIMITS.clock_offset:g} s of the servers' time")


def check_certificate(server: ServerSettings) -> Check:
    """Checks the certificate that clients get: whether it can be used, and how long.

    Args:
        server: `[server]`.
    """
    from gai_fast.server.edge.certificate import CertificateError, certificate_of

    try:
        certificate = certificate_of(server)
    except CertificateError as unusable:
        return Check("certificate", "error", str(unusable), "see `tls_cert` and `tls_key` in [server]")
    if certificate is None:
        return Check("certificate", "skipped", "the server has none: clients reach it without TLS, or through a proxy")
    problem, is_refused = certificate.validity(time.time())
    if is_refused:
        return Check("certificate", "error", problem, "renew it: clients refuse it")
    if problem:
        return Check("certificate", "warning", problem, "renew it before clients refuse it")
    return Check("certificate", "ok", "valid for more than two weeks")


def check_client_certificate(upstream: UpstreamSettings) -> Check:
    """Checks the certificate that an upstream gets: whether it can be used, and how long.

    Args:
        upstream: An upstream with a `client_cert`.
    """
    from gai_fast.server.edge.certificate import client_validity

    name = f"client_cert.{upstream.name}"
    try:
        problem, is_refused = client_validity(upstream, time.time())
    except OSError as unusable:
        return Check(name, "error", f"it cannot be used: {unusable}", "see `client_cert` and `client_key`")
    if is_refused:
        return Check(name, "error", problem, "renew it: the upstream refuses it")
    if problem:
        return Check(name, "warning", problem, "renew it before the upstream refuses it")
    return Check(name, "ok", "valid for more than two weeks")


# ---- upstreams -------------------------------------------------------------------------------------------------------


async def _check_dns(upstream: UpstreamSettings) -> Check:
    url = urlsplit(upstream.base_url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    begun = time.monotonic()
    try:
        async with asyncio.timeout(LIMITS.doctor):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        detail = f"{host}: no answer within {LIMITS.doctor:g} s"
    except OSError as problem:
        detail = f"{host}: {problem.strerror}"
    else:
        ms = (time.monotonic() - begun) * 1000
        number = len({each[4][0] for each in found})
        return Check("dns", "ok", f"{host}: {number} address{'' if number == 1 else 'es'} in {ms:.0f} ms")
    return Check("dns", "error", detail, f"check base_url of {upstream.name}, and the resolver (/etc/resolv.conf)")


async def _check_tls(upstream: UpstreamSettings) -> Check:
    from gai_fast.net.upstream.tls import TLSFiles, said

    url = urlsplit(upstream.base_url)
    host = url.hostname or ""
    context = TLSFiles.of(upstream.peer).context()
    fix = f"check base_url of {upstream.name}, and ca_file if it has an authority of its own"
    writer = None
    try:
        async with asyncio.timeout(LIMITS.doctor):
            _, writer = await asyncio.open_connection(host, url.port or 443, ssl=context)
            stream: ssl.SSLObject = writer.get_extra_info("ssl_object")
            return Check("tls", "ok", f"{host}: {stream.version()}, the certificate is valid")
    except TimeoutError:
        return Check("tls", "error", f"{host}: no handshake within {LIMITS.doctor:g} s", fix)
    except OSError as problem:
        return Check("tls", "error", f"{host}: {said(problem)}", fix)
    finally:
        if writer is not None:
            writer.close()


async def _ask(
    session: aiohttp.ClientSession,
    upstream: UpstreamSettings,
    key: Secret | None,
    dates: list[str],
    grant: Grant | None = None,
) -> Check:
    """Requests an upstream's list of models with one of its keys, or a token."""
    import aiohttp

    from gai_fast.cli.client_errors import explain
    from gai_fast.net.upstream.tls import TLSFiles
    from gai_fast.providers import get_provider
    from gai_fast.providers.requests.target import Target

    name = f"upstream.{upstream.name}"
    api = get_provider(upstream.provider)
    target = Target("", None if key is None else key.reveal())
    credential = [] if grant is None else grant.headers("GET", upstream.base_url, api.models_path, b"")
    headers = {**dict(api.headers(target)), **dict(credential), **upstream.headers}
    context = TLSFiles.of(upstream.peer).context()
    proxy = None if upstream.proxy is None else upstream.proxy.reveal()
    begun = time.monotonic()
    try:
        async with session.get(
            upstream.base_url.rstrip("/") + api.models_path,
            headers=headers,
            ssl=context,
            proxy=proxy,
            allow_redirects=False,
        ) as response:
            ms, status = (time.monotonic() - begun) * 1000, response.status
            dates.append(response.headers.get("date", ""))
    except (aiohttp.ClientError, TimeoutError) as problem:
        places = "base_url" if proxy is None else "base_url and proxy"
        fix = f"check {places} of {upstream.name}, and that it is running"
        return Check(name, "error", explain(problem, LIMITS.doctor), fix)
    answered = f"status {status} in {ms:.0f} ms"
    what = "key" if grant is None else "token"
    if status in _REFUSED:
        fix = f"check {upstream.credential} of {upstream.name}"
        return Check(name, "error", f"the {what} is refused: {answered}", fix)
    if status == 404:
        text = f"no list of models: {answered}"
        return Check(name, "warning", text, other_base_url(upstream))
    if status == 429:
        return Check(
            name, "warning", f"limits this {what}: {answered}", f"check the limits of {upstream.name}'s account"
        )
    if status >= 300:
        return Check(name, "error", f"cannot be used: {answered}", f"check base_url of {upstream.name}, and its status")
    return Check(name, "ok", f"{'answers' if key is None and grant is None else f'takes the {what}'}: {answered}")


async def _check_upstream(session: aiohttp.ClientSession, upstream: UpstreamSettings, dates: list[str]) -> list[Check]:
    """Checks an upstream, and its identity before it if it has one. A function was imported with the configuration."""
    if upstream.function is not None:
        return [Check(f"upstream.{upstream.name}", "ok", f"{upstream.function.reference} can be imported")]
    if upstream.identity is None:
        return [await _check_keys(session, upstream, dates)]
    from gai_fast.cli.checks.identity import check_identity

    identity, grant = await check_identity(upstream, upstream.identity)
    return [identity, await _check_keys(session, upstream, dates, grant)]


async def _check_keys(
    session: aiohttp.ClientSession, upstream: UpstreamSettings, dates: list[str], grant: Grant | None = None
) -> Check:
    from gai_fast.providers import get_provider

    name = f"upstream.{upstream.name}"
    if upstream.identity is not None and grant is None:
        return Check(name, "skipped", "there is no token to ask with")
    if (missing := missing_key(upstream)) is not None:
        return missing
    if not get_provider(upstream.provider).models_path:
        text = f"{upstream.provider} has no request that costs nothing: `gai-fast check --probe` asks for a few tokens"
        return Check(name, "skipped", text)
    if grant is not None:
        return await _ask(session, upstream, None, dates, grant)
    keys = (upstream.api_key, *upstream.more_api_keys)
    answers = await asyncio.gather(*(_ask(session, upstream, key, dates) for key in keys))
    return answers[0] if len(answers) == 1 else worst(name, _numbered(answers), "")


def _numbered(answers: Sequence[Check]) -> list[Check]:
    return [
        Check(each.name, each.status, f"key {number}: {each.detail}", each.fix)
        for number, each in enumerate(answers, 1)
    ]


async def _check_all(settings: Settings, url: str | None, idle: float, found: list[Check]) -> None:
    import aiohttp

    from gai_fast.cli.checks.issuer import check_issuer
    from gai_fast.cli.checks.proxy import check_proxies
    from gai_fast.cli.checks.store import check_store

    upstreams = list(settings.upstreams.values())
    direct = [each for each in upstreams if each.proxy is None and each.function is None]
    over_tls = [each for each in direct if each.base_url.startswith("https:")]
    dates: list[str] = []
    timeout = aiohttp.ClientTimeout(total=LIMITS.doctor)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        dns, tls, asked, issuers, store, proxies = await asyncio.gather(
            asyncio.gather(*map(_check_dns, direct)),
            asyncio.gather(*map(_check_tls, over_tls)),
            asyncio.gather(*(_check_upstream(session, each, dates) for each in upstreams)),
            asyncio.gather(*map(check_issuer, settings.issuers)),
            check_store(settings.store),
            check_proxies(session, url, idle, settings.stream.heartbeat, dates),
        )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    found.append(check_descriptors(LIMITS.all_descriptors if hard == resource.RLIM_INFINITY else hard))
    found.append(check_clock(dates, time.time()))
    found.append(worst("dns", dns, "no upstream is looked up here"))
    found.append(worst("tls", tls, "no upstream is reached over TLS from here"))
    found.append(check_certificate(settings.server))
    found += [check_client_certificate(each) for each in upstreams if each.client_cert is not None]
    found += [each for each in ends(settings, time.time()) if not each.name.startswith("client_cert.")]
    found += issuers
    found.append(store)
    found += [check for checks in asked for check in checks] or [
        Check("upstream", "skipped", "there is no [[upstream]]")
    ]
    found += proxies


@click.command()
@config_option
@url_option(help="The gateway as its clients reach it: also checks the proxies in front of it.")
@option(
    "--idle",
    type=FiniteRange(0, SHARED.stream_probe_idle),
    default=20.0,
    help="Seconds of silence that a stream must survive, with --url.",
)
@json_option
def command(config_path: Path | None, url: str | None, idle: float, json: bool) -> None:
    """Find faults of the machine, the upstreams, the proxies.

    Each fault comes with its fix. Exit code 1: there is an error.
    """
    from gai_fast.cli.serve import run_async

    settings = load_config(config_path).settings
    found: list[Check] = []
    run_async(_check_all(settings, url, idle, found))
    if json:
        print_json([asdict(each) for each in found])
    else:
        width = max(len(each.name) for each in found)
        for each in found:
            click.echo(f"{each.status:8} {each.name:{width}}  {each.detail}")
            if each.fix:
                click.echo(f"{'':8} {'':{width}}  -> {each.fix}")
    if any(each.status == "error" for each in found):
        raise click.exceptions.Exit(1)
