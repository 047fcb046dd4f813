"""`AdminClient`: the client of a server's admin API, for `gai-fast top`.

Owns the requests. The server at the URL is not trusted: size and time of a response are limited, and its form is
checked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from gai_fast.cli.client_errors import explain
from gai_fast.cli.limits import LIMITS
from gai_fast.kernels import SSEParser
from gai_fast.model.settings import Secret
from gai_fast.model.version import __version__

_NO_GATEWAY: Final = "no gai-fast with an admin API of this release answers there"


class AdminError(Exception):
    """The server cannot be reached, or refuses; the text has the reason."""


class LiveStream(Struct, frozen=True):
    """A running stream; fields as in docs/admin.md."""

    id: str
    key: str
    model: str
    upstream: str
    duration_ms: float
    ttft_ms: float | None
    deltas: int


class Bucket(Struct, frozen=True):
    """A bucket of a histogram: `count` values above the previous bucket's bound, up to `le` seconds. If `le` is None,
    the bucket has no bound."""

    le: float | None
    count: int


class ErrorCount(Struct, frozen=True):
    """The number of errors with a code."""

    code: str
    provider: str
    count: int


class KeySpend(Struct, frozen=True):
    """The spend of a key."""

    key: str
    amount: float
    currency: str


class Spend(Struct, frozen=True):
    """The spend of a UTC day, the largest amounts first."""

    keys: list[KeySpend]


class Sample(Struct, frozen=True):
    """The figures of a server at one moment; fields as in docs/admin.md."""

    at: str
    active: int
    streams: list[LiveStream]
    rates: dict[str, float] | None
    first_token_seconds: list[Bucket]
    gap_seconds: list[Bucket]
    errors: list[ErrorCount]
    breakers: dict[str, float]
    limited: dict[str, float]
    memory_bytes: float | None
    spend: Spend | None


class AdminClient:
    """Sends requests to one server. A context manager.

    Args:
        url: The server's URL, without a path.
        key: An admin's key, or None if the server has no keys.
    """

    def __init__(self, url: str, key: Secret | None) -> None:
        self.url = url
        self._key = key
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> AdminClient:
        headers = {"user-agent": f"gai-fast/{__version__}"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key.reveal()}"
        wait = LIMITS.admin_wait
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=wait, sock_read=wait),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def samples(self) -> AsyncGenerator[tuple[dict[str, Any], Sample], None]:
        """Yields the figures each second until the server ends the response: the JSON object and the parsed sample.

        Raises:
            AdminError: The server cannot be reached, refuses, or has no figures now.
        """
        parser = SSEParser(LIMITS.admin_body)
        try:
            async with self._session.get(f"{self.url}/admin/v1/events", allow_redirects=False) as response:
                await self._check(response)
                if response.content_type != "text/event-stream":
                    raise AdminError(_NO_GATEWAY)
                async for data in response.content.iter_any():
                    for event in parser.feed(data):
                        if event.type == "sample":
                            yield _read_sample(event.data)
                        elif event.type == "unavailable":
                            raise AdminError(_error_of(event.data.encode()) or "the server has no figures now")
        except (aiohttp.ClientError, OSError) as problem:
            raise AdminError(explain(problem, LIMITS.admin_wait)) from None
        except ValueError:  # an event above the limit, or not of the expected form
            raise AdminError(_NO_GATEWAY) from None

    async def cancel(self, stream_id: str) -> None:
        """Cancels a stream.

        Args:
            stream_id: Its id.

        Raises:
            AdminError: The server cannot be reached, or refuses: the stream may have ended.
        """
        url = f"{self.url}/admin/v1/streams/{quote(stream_id, safe='')}"
        try:
            async with self._session.delete(url, allow_redirects=False) as response:
                await self._check(response)
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise AdminError(explain(problem, LIMITS.admin_wait)) from None

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raises an `AdminError` with the server's message if a response is not a success."""
        status = response.status
        if status in (200, 202):
            return
        if status == 401:
            needs = "the server needs an admin's key" if self._key is None else "the server does not know this key"
            raise AdminError(f"{needs}: set GAI_FAST_TOP_API_KEY")
        message = _error_of(await _body(response))
        raise AdminError(_NO_GATEWAY if message is None else f"the server refuses ({status}): {message}")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Returns a body of at most `limits.admin_body` bytes."""
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > LIMITS.admin_body:
            raise AdminError(_NO_GATEWAY)
    return bytes(body)


def _read_sample(text: str) -> tuple[dict[str, Any], Sample]:
    raw = msgspec.json.decode(text)
    return raw, msgspec.convert(raw, Sample)


def _error_of(body: bytes) -> str | None:
    """Returns the message of a gateway's error body, or None if the body has another form."""
    try:
        error = msgspec.json.decode(body)["error"]
        return str(error["message"])
    except (ValueError, KeyError, TypeError):
        return None
