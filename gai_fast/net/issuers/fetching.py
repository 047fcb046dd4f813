"""Fetches the keys of an issuer: its discovery document (OpenID Connect Discovery 1.0, 4), and the key set named there.

Owns what is asked, and the bounds: https, or http on loopback; no redirect, no proxy of the environment, no link-local
or metadata address, `limits.issuer_document` bytes each, `limits.issuer_fetch` seconds together.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final

from aiohttp import ClientError, ClientSession, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from gai_fast.model.addresses import is_forbidden_address, is_https_or_loopback
from gai_fast.model.version import __version__
from gai_fast.net.issuers.key_set import KeySet, KeySetError
from gai_fast.net.limits import LIMITS

_DISCOVERY: Final = "/.well-known/openid-configuration"
_HEADERS: Final = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "user-agent": f"gai-fast/{__version__}",
}
_OK: Final = 200


class IssuerError(Exception):
    """An issuer's keys could not be fetched. The text says why, and contains nothing that the issuer sent."""


async def fetch_keys(url: str) -> KeySet:
    """Fetches the keys of an issuer.

    Args:
        url: Its URL.

    Raises:
        IssuerError: They cannot be fetched or used.
    """
    try:
        async with (
            asyncio.timeout(LIMITS.issuer_fetch),
            ClientSession(
                connector=TCPConnector(resolver=_Resolver()),
                headers=_HEADERS,
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
            ) as session,
        ):
            found = await _document(session, url.rstrip("/") + _DISCOVERY, "discovery document")
            if found.get("issuer") != url:
                raise IssuerError("its discovery document has another `issuer`: write `url` exactly as it has it")
            place = found.get("jwks_uri")
            if not isinstance(place, str) or not is_https_or_loopback(place):
                raise IssuerError("its discovery document has no `jwks_uri` with https (or http on loopback)")
            return KeySet(await _document(session, place, "key set"))
    except TimeoutError:
        raise IssuerError(f"it does not answer within {LIMITS.issuer_fetch:g} s") from None
    except KeySetError as problem:
        raise IssuerError(str(problem)) from None
    except (ClientError, OSError, ValueError) as problem:
        raise IssuerError(f"it cannot be reached ({type(problem).__name__})") from None


async def _document(session: ClientSession, url: str, what: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != _OK:
            raise IssuerError(f"its {what} is answered with status {response.status}")
        received = bytearray()
        async for piece in response.content.iter_any():
            received += piece
            if len(received) > LIMITS.issuer_document:
                response.close()
                raise IssuerError(f"its {what} has more than {LIMITS.issuer_document} bytes")
    try:
        found = json.loads(received)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise IssuerError(f"its {what} is no JSON object")
    return found


class _Resolver(AbstractResolver):
    """Looks names up; refuses hosts that have a link-local or metadata address."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Returns the addresses of a host.

        Raises:
            OSError: It has none, or a forbidden one.
        """
        found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        if any(is_forbidden_address(str(address[0])) for *_, address in found):
            raise OSError(f"{host} is a link-local or metadata address")
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Does nothing: it has no sockets."""
