"""`[limits]`: what is above them is refused for the moment, and what runs goes on."""

from __future__ import annotations

from gai_fast.settings import KeySettings, key_digest
from tests.integration.gateway import QUERY, Client, Gateway, Net, Response, on_both_loops, until

STREAM = {**QUERY, "model": "m"}
KEYS = tuple(KeySettings(name, key_digest(f"sk-{name}-0123456789")) for name in ("alice", "bob"))


async def begun(gateway: Gateway, **headers: str) -> tuple[Client, Response]:
    """A stream whose first text has come."""
    client, response = await gateway.stream(STREAM, **headers)
    await response.until(b"text.delta")
    return client, response


def refusal(response: Response) -> tuple[int, str, str]:
    assert response.headers["retry-after"] == "1"
    assert response.error["temporary"]
    return response.status, response.error["code"], response.error["reason"]


@on_both_loops
async def test_above_streams_one_more_is_refused_until_one_has_ended(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000), streams=2)
    running = [await begun(gateway), await begun(gateway)]
    for _ in range(3):
        assert refusal(await gateway.ask("POST", "/api/v1/stream", STREAM)) == (503, "overloaded", "streams")
    assert (await gateway.chat()).status == 503
    assert (await gateway.ask("GET", "/v1/models")).status == 200
    running.pop(0)[0].reset()
    await until(lambda: gateway.streams == 1)
    running.append(await begun(gateway))
    for client, response in running:
        assert await response.more()
        client.reset()
    await until(lambda: not gateway.streams)


@on_both_loops
async def test_a_caller_has_its_own_share(net: Net) -> None:
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000), keys=KEYS, streams_per_caller=1)
    alice, bob = ({"x-api-key": f"sk-{name}-0123456789"} for name in ("alice", "bob"))
    running = [await begun(gateway, **alice)]
    refused = await gateway.ask("POST", "/api/v1/stream", STREAM, alice)
    assert refusal(refused) == (429, "rate_limited", "streams_per_caller")
    running.append(await begun(gateway, **bob))
    for client, _ in running:
        client.reset()
    await until(lambda: not gateway.streams)
    client, _ = await begun(gateway, **alice)
    client.reset()
    await until(lambda: not gateway.streams)
