"""Finds proxies that delay, compress or cut a gateway's streams: `gai-fast doctor --url`.

`GET /probe` of the gateway sends events with known timing, a silence, and a last event (`server.routes.probe.py`).
Their arrival shows whether a proxy buffers events, compresses them, or cuts a silent stream.
"""

from __future__ import annotations

import re
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gai_fast.cli.diagnosis import Check
from gai_fast.cli.limits import LIMITS
from gai_fast.model.addresses import is_loopback
from gai_fast.model.limits import SHARED
from gai_fast.server.routes.probe import EVENTS

if TYPE_CHECKING:
    import aiohttp

_EVENT: Final = re.compile(rb"^data: ?\{\"number\":(\d+)\}$", re.M)
_GZIP: Final = 31
"""zlib's `wbits` for gzip."""

_UNBUFFERED: Final = (
    "nginx: proxy_buffering off, and neither proxy_ignore_headers nor proxy_hide_header of X-Accel-Buffering; "
    "Caddy: flush_interval -1 in reverse_proxy; Cloudflare: no cache rule and no transformation for this path; "
    "ALB: does not buffer, but a Lambda or WAF body inspection behind it does"
)
_UNCOMPRESSED: Final = (
    "nginx: gzip off, or gzip_types without text/event-stream; Caddy: an encode with a matcher that leaves "
    "text/event-stream out; Cloudflare: a compression rule that disables it for this path; ALB: does not compress"
)
_PATIENT: Final = (
    "nginx: proxy_read_timeout 300s; Caddy: no read_timeout in transport http; Cloudflare: cuts after 100 s, so keep "
    "heartbeat below; ALB: idle_timeout.timeout_seconds=300; or a smaller heartbeat in [stream] of the gateway"
)

_CLOSED: Final = (
    'behind a proxy, configure an admin\'s key: `gai-fast key new NAME --role admin`, or role = "admin" in [[key]]'
)


@dataclass(slots=True)
class ProxiedAnswer:
    """The response to a probe. Times are in seconds since the request.

    Attributes:
        coding: Its content coding.
        arrivals: The time at which each event arrived.
        ended: The time of its end.
    """

    coding: str = ""
    arrivals: list[float] = field(default_factory=list)
    ended: float = 0.0


def findings(answer: ProxiedAnswer, idle: float, heartbeat: float) -> list[Check]:
    """Returns the results of all checks of a response.

    Args:
        answer: The response.
        idle: The requested seconds of silence.
        heartbeat: The gateway's `heartbeat`; 0: it sends no keep-alives.
    """
    return [_buffering(answer), _compression(answer), _timeout(answer, idle, heartbeat)]


def _buffering(answer: ProxiedAnswer) -> Check:
    sent = (EVENTS - 1) * SHARED.stream_probe_interval
    before = answer.arrivals[:EVENTS]
    took = before[-1] - before[0] if before else 0.0
    if len(before) < EVENTS or took < sent / 2:
        arrived = f"{len(before)} of {EVENTS} events arrived within {took:.2f} s" if before else "no event arrived"
        text = f"a proxy buffers the stream, as with proxy_buffering: {arrived}, sent over {sent:.2f} s"
        return Check("proxy.buffering", "error", text, _UNBUFFERED)
    return Check("proxy.buffering", "ok", "each event arrives when it is sent: no proxy_buffering")


def _compression(answer: ProxiedAnswer) -> Check:
    if answer.coding not in ("", "identity"):
        text = f"a proxy applies compression ({answer.coding}) to the stream, which may hold events back"
        return Check("proxy.compression", "warning", text, _UNCOMPRESSED)
    return Check("proxy.compression", "ok", "no compression on the way")


def _timeout(answer: ProxiedAnswer, idle: float, heartbeat: float) -> Check:
    if len(answer.arrivals) > EVENTS:
        return Check("proxy.timeout", "ok", f"no timeout: a silence of {idle:g} s is survived")
    silent = max(answer.ended - EVENTS * SHARED.stream_probe_interval, 0.0)
    text = f"a timeout of a proxy cuts the stream after about {silent:.0f} s of silence, of {idle:g} s"
    if 0 < heartbeat < silent:
        text += f"; the gateway's keep-alives (heartbeat = {heartbeat:g}) come before"
        return Check("proxy.timeout", "warning", text, _PATIENT)
    return Check("proxy.timeout", "error", text, _PATIENT)


async def check_proxies(
    session: aiohttp.ClientSession, url: str | None, idle: float, heartbeat: float, dates: list[str]
) -> list[Check]:
    """Requests a probe from a gateway, and checks the proxies in front of it.

    Args:
        session: The session for the request.
        url: The gateway's URL for clients. If it is None, the check is skipped.
        idle: Seconds of silence to request.
        heartbeat: As for `findings`.
        dates: The `Date` header is appended to it.
    """
    import aiohttp

    from gai_fast.cli.client_errors import explain

    if url is None:
        return [Check("proxy", "skipped", "no --url: the proxies in front are not looked at")]
    answer = None
    begun = time.monotonic()
    longest = aiohttp.ClientTimeout(total=idle + EVENTS * SHARED.stream_probe_interval + LIMITS.doctor)
    try:
        async with session.get(
            f"{url}/probe",
            params={"idle": f"{idle:.3f}"},
            headers={"accept": "text/event-stream", "accept-encoding": "gzip"},
            auto_decompress=False,
            allow_redirects=False,
            timeout=longest,
        ) as response:
            dates.append(response.headers.get("date", ""))
            if response.status != 200 or response.content_type != "text/event-stream":
                return [_no_probe(response.status)]
            answer = ProxiedAnswer(response.headers.get("content-encoding", "").lower())
            await _read(response.content, answer, begun)
    except (aiohttp.ClientError, OSError, zlib.error) as problem:  # TimeoutError is an OSError
        if answer is None:
            return [Check("proxy", "error", explain(problem, longest.total or 0), _fix_of(problem))]
        answer.ended = time.monotonic() - begun  # the stream was cut
    found = [Check("proxy", "ok", "the gateway answers"), *findings(answer, idle, heartbeat)]
    try:
        async with session.get(f"{url}/admin/v1/targets", allow_redirects=False) as response:
            found.append(_operators(url, response.status))
    except (aiohttp.ClientError, TimeoutError) as problem:
        found.append(Check("proxy.admin", "error", explain(problem, LIMITS.doctor), _fix_of(problem)))
    return found


def _operators(url: str, status: int) -> Check:
    """Checks that the admin API is closed to clients without a key.

    Args:
        url: As for `check_proxies`.
        status: The status of a request without a key.
    """
    if status != 200:
        return Check("proxy.admin", "ok", f"without a key the admin API is answered with status {status}")
    is_here = is_loopback(urlsplit(url).hostname or "")
    text = "the admin API answers without a key: a proxy that adds no header looks like a client on the same machine"
    return Check("proxy.admin", "warning" if is_here else "error", text, _CLOSED)


async def _read(content: aiohttp.StreamReader, answer: ProxiedAnswer, begun: float) -> None:
    """Reads the body to its end, and notes when events arrive."""
    decoder = zlib.decompressobj(_GZIP) if answer.coding == "gzip" else None
    body = b""
    async for data in content.iter_any():
        body += data if decoder is None else decoder.decompress(data, LIMITS.stream_probe_body)
        if len(body) > LIMITS.stream_probe_body:
            break  # not a probe: the checks report missing events
        now = time.monotonic() - begun
        answer.arrivals += [now] * (len(_EVENT.findall(body)) - len(answer.arrivals))
    answer.ended = time.monotonic() - begun


def _fix_of(problem: Exception) -> str:
    """Returns the remedy for a probe without a response."""
    import aiohttp

    if isinstance(problem, aiohttp.ClientConnectorCertificateError):
        return "check the certificate, and that it is for this host; an authority of your own: SSL_CERT_FILE=its file"
    if isinstance(problem, aiohttp.ClientSSLError):
        return "check --url: http:// instead of https://"
    return "check --url (https:// if TLS is spoken), and that the proxy and the gateway are running"


def _no_probe(status: int) -> Check:
    why, fix = "no gateway of this release, or a proxy keeps the path", "check --url; a proxy must pass /probe on"
    if 300 <= status < 400:
        why, fix = "a redirect", "give --url the address that it leads to: clients do not send a POST there"
    elif status in (502, 503, 504):
        why = "a proxy does not reach the gateway, or the gateway refuses"
        fix = "check that the gateway is running, and the address that the proxy has of it"
    return Check("proxy", "error", f"GET /probe is answered with status {status}: {why}", fix)
