"""`explain`: what the failures of requests mean in words; those of real servers are in `test_admin_client.py`."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey, RequestInfo

from gai_fast.cli.client_errors import explain

KEY = cast("ConnectionKey", None)  # aiohttp's texts need it, ours do not
REQUEST = cast("RequestInfo", None)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (TimeoutError(), "no answer within 2.5 s"),
        (aiohttp.ServerTimeoutError(), "no answer within 2.5 s"),
        (aiohttp.ServerDisconnectedError(), "the connection was lost"),
        (ConnectionResetError(104, "reset"), "the connection was lost"),
        (aiohttp.ClientPayloadError("half"), "the connection was lost"),
        (
            aiohttp.ClientConnectorError(KEY, OSError(111, "x")),
            "cannot connect (Connection refused)",
        ),
        (
            aiohttp.ClientConnectorError(KEY, OSError("x")),
            "cannot connect (at any of its addresses)",
        ),
        (aiohttp.ClientHttpProxyError(REQUEST, (), status=407), "the proxy refuses: status 407"),
        (aiohttp.InvalidURL("http://sk-1"), "the answer cannot be read (InvalidURL)"),
    ],
)
def test_a_failure_has_its_words(problem: Exception, words: str) -> None:
    assert explain(problem, 2.5) == words


async def test_a_name_that_is_unknown_is_reported_in_the_resolvers_words() -> None:
    """Its numbers are negative, which `os.strerror` calls an unknown error."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await session.get("http://nowhere.invalid/")
    assert isinstance(refused.value.os_error, socket.gaierror)
    assert "Unknown error" not in explain(refused.value, 1)
    assert str(refused.value.os_error.strerror) in explain(refused.value, 1)
