"""Finds model servers on this machine, for `gai-fast config init`.

Each provider names the default addresses of its local servers (`API.local_servers`). All addresses are asked for their
list of models at once, with a timeout of `limits.local_server` seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from gai_fast.cli.limits import LIMITS
from gai_fast.config import Value
from gai_fast.providers import API, get_provider, provider_names

if TYPE_CHECKING:
    import aiohttp


class LocalPlace(NamedTuple):
    """A possible address of a model server.

    Attributes:
        api: The server's API.
        name: The name for an upstream at this address.
        url: The upstream's `base_url`.
        is_own: Whether no other program usually uses the port.
    """

    api: API
    name: str
    url: str
    is_own: bool


def usual_places() -> list[LocalPlace]:
    """Returns the addresses of all providers."""
    apis = map(get_provider, provider_names())
    return [LocalPlace(api, name, url, url == api.base_url) for api in apis for name, url in api.local_servers.items()]


async def find_local_upstreams(known: Collection[str]) -> list[dict[str, Value]]:
    """Returns the tables of `[[upstream]]` for the servers that answer, in the order of the providers.

    Args:
        known: Names of upstreams that are already configured; their addresses are not asked.
    """
    import aiohttp

    places = [place for place in usual_places() if place.name not in known]
    timeout = aiohttp.ClientTimeout(total=LIMITS.local_server)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        answers = await asyncio.gather(*(_answers(session, place) for place in places))
    return [
        {name: Value(value, place.url) for name, value in _table(place).items()}
        for place, is_there in zip(places, answers, strict=True)
        if is_there
    ]


def _table(place: LocalPlace) -> dict[str, str]:
    return {"name": place.name, "provider": place.api.provider, "base_url": place.url}


async def _answers(session: aiohttp.ClientSession, place: LocalPlace) -> bool:
    """Returns whether a model server answers. Another program on the port has no list of models."""
    import aiohttp

    try:
        async with session.get(place.url + place.api.models_path, allow_redirects=False) as response:
            return response.status == 200 or (place.is_own and response.status < 500)
    except (aiohttp.ClientError, OSError):  # TimeoutError is an OSError
        return False
