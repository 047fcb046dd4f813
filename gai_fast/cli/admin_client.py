"""`AdminClient`: the client of a server's admin API, for `gai-fast top` and `gai-fast key --server`.

Owns the requests. The server at the URL is not trusted: size and time of a response are limited, and its form is
checked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
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
from gai_fast.server.admin.bodies import Key, Keys, Reloaded, Sample

_NO_GATEWAY: Final = "no gai-fast with an admin API of this release answers there"


class AdminError(Exception):
    """The server cannot be reached, or refuses; the text has the reason."""


class NewSecret(Struct, frozen=True):
    """What is needed of a `bodies.MadeKey`: no other member that is missing or new may cost the secret."""

    name: str
    secret: str
    warning: str = ""


class AdminClient:
    """Sends requests to one server. A context manager.

    Args:
        url: The server's URL, without a path.
        key: An admin's key, or None if the server has no keys.
        variable: The variable that the key may come from.
        option: The option of the command that has the URL.
    """

    def __init__(
        self, url: str, key: Secret | None, variable: str = "GAI_FAST_TOP_API_KEY", option: str = "--url"
    ) -> None:
        self.url = url
        self._option = option
        self._key = key
        self._variable = variable
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
            raise self._failure(problem) from None
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
            raise self._failure(problem) from None

    async def keys(self) -> tuple[list[dict[str, Any]], list[Key]]:
        """Returns the keys: their JSON objects, and the same parsed.

        Raises:
            AdminError: The server cannot be reached, or refuses.
        """
        raw = await self._ask("GET", "/keys")
        try:
            shown = msgspec.convert(raw, Keys).data
        except ValueError:
            raise AdminError(_NO_GATEWAY) from None
        if not all(text.isprintable() for key in shown for text in (key.name, *key.models, *key.limits)):
            raise AdminError(_NO_GATEWAY)
        return raw["data"], shown

    async def new_key(self, values: Mapping[str, Any]) -> NewSecret:
        """Makes a key.

        Args:
            values: The members of the request.

        Raises:
            AdminError: As `keys`.
        """
        return _read_made(await self._ask("POST", "/keys", values))

    async def rotate_key(self, name: str, grace: float) -> NewSecret:
        """Gives a key another secret.

        Args:
            name: The key's name.
            grace: Seconds for which the former secret stays valid.

        Raises:
            AdminError: As `keys`.
        """
        return _read_made(await self._ask("POST", f"/keys/{quote(name, safe='')}/rotate", {"grace": grace}))

    async def revoke_key(self, name: str) -> None:
        """Removes a key.

        Args:
            name: The key's name.

        Raises:
            AdminError: As `keys`.
        """
        await self._ask("DELETE", f"/keys/{quote(name, safe='')}")

    async def reload(self) -> tuple[dict[str, Any], Reloaded]:
        """Lets the server read its configuration again; returns the JSON object, and the same parsed.

        Raises:
            AdminError: The server cannot be reached, or keeps its former configuration.
        """
        raw = await self._ask("POST", "/reload")
        try:
            return raw, msgspec.convert(raw, Reloaded)
        except ValueError:
            raise AdminError(_NO_GATEWAY) from None

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sends a request; returns the JSON object of the response."""
        url = f"{self.url}/admin/v1{path}"
        try:
            async with self._session.request(method, url, json=body, allow_redirects=False) as response:
                await self._check(response)
                return msgspec.json.decode(await _body(response, LIMITS.admin_keys), type=dict[str, Any])
        except (aiohttp.ClientError, OSError) as problem:
            raise self._failure(problem) from None
        except ValueError:
            raise AdminError(_NO_GATEWAY) from None

    def _failure(self, problem: Exception) -> AdminError:
        """Returns the error for a failed request."""
        text = explain(problem, LIMITS.admin_wait)
        if isinstance(problem, aiohttp.ClientConnectorError) and not isinstance(problem, aiohttp.ClientSSLError):
            text += f": check {self._option}, and that `gai-fast serve` runs there"
        return AdminError(text)

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raises an `AdminError` with the server's message if a response is not a success."""
        status = response.status
        if status in (200, 201, 202):
            return
        message = _error_of(await _body(response, LIMITS.admin_body))
        if status == 401:
            if self._key is None:
                raise AdminError(f"the server needs an admin's key: set {self._variable}")
            why = message or "the server does not know this key"  # or it has expired
            raise AdminError(f"{why}; set {self._variable}")
        raise AdminError(_NO_GATEWAY if message is None else f"the server refuses ({status}): {message}")


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Returns a body, which may have at most `most` bytes."""
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > most:
            raise AdminError(_NO_GATEWAY)
    return bytes(body)


def _read_sample(text: str) -> tuple[dict[str, Any], Sample]:
    raw = msgspec.json.decode(text)
    return raw, msgspec.convert(raw, Sample)


def _read_made(raw: dict[str, Any]) -> NewSecret:
    try:
        key = msgspec.convert(raw, NewSecret)
    except ValueError:
        raise AdminError(_NO_GATEWAY) from None
    if not key.secret.isascii() or not all(map(str.isprintable, (key.name, key.secret, key.warning))):
        raise AdminError(_NO_GATEWAY)
    return key


def _error_of(body: bytes) -> str | None:
    """Returns the message of a gateway's error body, or None if the body has another form."""
    try:
        error = msgspec.json.decode(body)["error"]
        return str(error["message"])
    except (ValueError, KeyError, TypeError):
        return None
