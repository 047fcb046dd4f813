"""`gai_fast/stores/redis.py` and its script: kept responses in Redis, the time of each key, damage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, ResponsesSettings
from gai_fast.stores.memory import digest
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.responses import KeptResponses
from tests.conftest import ChangeLimits
from tests.integration.stores.conftest import MakeServer
from tests.integration.stores.servers import FAULTS, RedisServer
from tests.kept import keep, keep_chain, over, response
from tests.limits import LIMITS
from tests.ports import free_port
from tests.waiting import until, until_answered

PREFIX = "gai:{responses}:"


@pytest.fixture
async def backend(redis_server: RedisServer) -> AsyncIterator[RedisBackend]:
    made = RedisBackend(redis_server.url)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def responses(backend: RedisBackend) -> KeptResponses:
    return over(backend)


async def ask(backend: RedisBackend, *words: str | bytes | int) -> Any:
    """Sends a command, past the rules; returns its reply."""
    return await backend.client.command(*words)


async def keys_of(backend: RedisBackend) -> list[bytes]:
    found: list[bytes] = await ask(backend, "KEYS", f"{PREFIX}*")
    return found


async def test_the_sums_are_those_of_what_is_kept(
    backend: RedisBackend, responses: KeptResponses, change_limits: ChangeLimits
) -> None:
    change_limits(responses_dropped=4_000)
    responses.use(ResponsesSettings(max_bytes=40_000, max_bytes_per_caller=16_384))
    for number in range(60):
        kept = response(f"resp_{number % 25}", text="x" * (number % 5 * 800), items=["a", "b", "a"])
        assert await keep(responses, kept, f"caller {number % 4}")
    assert await responses.delete("caller 3", "resp_9")
    sums: dict[bytes, int] = {}
    members = await ask(backend, "ZRANGE", f"{PREFIX}all", 0, -1)
    for member in members:
        name, caller, size, _ = member.split(b":")
        assert await ask(backend, "EXISTS", f"{PREFIX}one:{name.decode()}")
        for each in (caller, b""):
            sums[each] = sums.get(each, 0) + int(size)
    found = await ask(backend, "HGETALL", f"{PREFIX}sizes")
    assert {name: int(size) for name, size in found.items()} == sums
    assert max(size for name, size in sums.items() if name) <= 16_384
    assert sorted(await ask(backend, "ZRANGE", f"{PREFIX}due", 0, -1)) == sorted(members)
    assert await ask(backend, "ZCARD", f"{PREFIX}items") == 2 * len(members)
    one = await ask(backend, "KEYS", f"{PREFIX}one:*")
    assert len(one) == len(members)


async def test_every_key_has_a_time_to_live(backend: RedisBackend, responses: KeptResponses) -> None:
    responses.use(ResponsesSettings(ttl=1000.0))
    assert await keep(responses, response("resp_1", items=["item"]), "alice")
    responses.use(ResponsesSettings(ttl=10.0))
    assert await keep(responses, response("resp_2", items=["item"]), "alice")
    grace = LIMITS.response_grace
    for key in await keys_of(backend):
        left = await ask(backend, "PTTL", key) / 1000
        is_second = b"one:" in key and await ask(backend, "HGET", key, "parent") == b"" and left < grace + 500
        assert grace < left <= grace + (10 if is_second else 1000)


async def test_nothing_is_left_of_what_is_removed_or_has_expired(
    backend: RedisBackend, responses: KeptResponses, change_limits: ChangeLimits
) -> None:
    change_limits(responses_dropped=3_000)
    assert await keep(responses, response("resp_1", items=["item"]), "alice")
    assert await responses.delete("alice", "resp_1")
    responses.use(ResponsesSettings(ttl=0.01))
    for number in range(8):
        assert await keep(responses, response(f"resp_{number}", items=["item"]), f"caller {number}")

    async def is_swept() -> bool:
        return not await backend.sweep() and await keys_of(backend) == []

    await until_answered(is_swept)
    assert await responses.find("caller 1", "resp_1") is None


async def test_a_server_that_evicts_loses_what_it_evicts_alone(
    backend: RedisBackend, responses: KeptResponses, redis_server: RedisServer
) -> None:
    responses.use(ResponsesSettings(max_bytes=16_384))
    ids = await keep_chain(responses, 5)
    name = responses._name(ANONYMOUS, ids[1])
    await ask(backend, "DEL", f"{PREFIX}one:{name}")
    assert await responses.find(ANONYMOUS, ids[1]) is None
    assert await responses.chain(ANONYMOUS, ids[-1]) is None
    assert await keep(responses, response(ids[1], ids[0], items=["item"]))
    assert len(await responses.chain(ANONYMOUS, ids[-1]) or ()) == 5
    for number in range(8):
        assert await keep(responses, response(f"resp_more_{number}"))
    assert await responses.find(ANONYMOUS, ids[1]) is not None, "its former member was dropped, and not it"
    for key in ("all", "due", "sizes", "items", f"of:{digest(ANONYMOUS)}"):
        await ask(backend, "DEL", f"{PREFIX}{key}")
        for number in range(40):
            assert await keep(responses, response(f"resp_{key}_{number}", items=["item"]))
        assert await responses.find(ANONYMOUS, f"resp_{key}_39") is not None
        assert await responses.holding(ANONYMOUS, ["item"])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda value: value[:30] + bytes([value[30] ^ 1]) + value[31:],
    "its checksum": lambda value: value[:-1] + b"g",
    "a cut": lambda value: value[:-1],
    "more": lambda value: value + b"x",
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("damage", [*DAMAGES, "no value", "another type"])
async def test_a_damaged_value_is_an_error_and_undamaged_it_is_read(
    backend: RedisBackend, responses: KeptResponses, damage: str
) -> None:
    await keep_chain(responses, 3)
    assert await keep(responses, response("resp_item", items=["item"]))
    for identifier in ("resp_2", "resp_item"):
        key = f"{PREFIX}one:{responses._name(ANONYMOUS, identifier)}"
        value = await ask(backend, "HGET", key, "value")
        await ask(backend, "HSET", key, "value", value)
        assert await responses.find(ANONYMOUS, identifier) is not None
        if damage == "no value":
            await ask(backend, "HDEL", key, "value")
        elif damage == "another type":
            await ask(backend, "SET", key, "text")
        else:
            await ask(backend, "HSET", key, "value", DAMAGES[damage](value))
    for call in (
        responses.find(ANONYMOUS, "resp_2"),
        responses.chain(ANONYMOUS, "resp_3"),
        responses.holding(ANONYMOUS, ["item"]),
    ):
        with pytest.raises(Error) as refused:
            await call
        assert (refused.value.code, refused.value.reason, refused.value.status) == ("internal", "log_damaged", 500)
    assert await responses.find(ANONYMOUS, "resp_3") is not None
    assert await keep(responses, response("resp_2", "resp_1"))
    assert len(await responses.chain(ANONYMOUS, "resp_3") or ()) == 3
    assert await responses.delete(ANONYMOUS, "resp_item")
    assert await responses.find(ANONYMOUS, "resp_item") is None


@pytest.mark.parametrize("value", ["text", "-5", "1e300", ""])
async def test_damaged_numbers_end_nothing(backend: RedisBackend, responses: KeptResponses, value: str) -> None:
    responses.use(ResponsesSettings(max_bytes=16_384))
    ids = await keep_chain(responses, 5)
    await ask(backend, "HSET", f"{PREFIX}sizes", "", value, digest(ANONYMOUS), value)
    for key in ("all", "due", f"of:{digest(ANONYMOUS)}"):
        await ask(backend, "ZADD", f"{PREFIX}{key}", -1, "no member", -2, "", -3, f"{'a' * 32}:{'b' * 32}:5:5")
    for identifier in ids:
        key = f"{PREFIX}one:{responses._name(ANONYMOUS, identifier)}"
        await ask(backend, "HSET", key, "until", value, "parent", value, "items", value)
    for number in range(40):
        assert await keep(responses, response(f"resp_new_{number}"))
    assert await responses.find(ANONYMOUS, "resp_new_39") is not None
    await responses.chain(ANONYMOUS, ids[-1])
    assert not await backend.sweep()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_server_that_fails_keeps_nothing_and_goes_on_later(
    make_server: MakeServer, change_limits: ChangeLimits, fault: str
) -> None:
    change_limits(store_retry=0.0)
    server = make_server()
    backend = RedisBackend(server.url)
    await backend.open()
    responses = over(backend)
    assert await keep(responses, response("resp_1"))
    fail, mend = FAULTS[fault]
    fail(server)
    assert not await keep(responses, response("resp_2", text="x" * 100_000))
    assert responses.not_kept == {"store": 1}
    mend(server)

    async def works() -> bool:
        return await keep(responses, response("resp_3"))

    await until_answered(works)
    assert await responses.find(ANONYMOUS, "resp_2") is None
    await backend.close()


async def test_a_server_that_hangs_is_waited_for_a_moment_and_what_it_takes_later_is_removed(
    make_server: MakeServer, change_limits: ChangeLimits
) -> None:
    change_limits(store_answer=0.2, store_retry=0.0)
    server = make_server()
    backend = RedisBackend(server.url)
    await backend.open()
    responses = over(backend)
    assert await keep(responses, response("resp_1"))
    server.pause()
    assert not await keep(responses, response("resp_2"))
    assert not await keep(responses, response("resp_3"))
    with pytest.raises(Error) as refused:
        await responses.find(ANONYMOUS, "resp_1")
    assert (refused.value.code, refused.value.reason) == ("overloaded", "store")
    server.resume()

    async def works() -> bool:
        return await keep(responses, response("resp_4"))

    await until_answered(works)
    await responses.remove_late()
    found = [await responses.find(ANONYMOUS, f"resp_{number}") is not None for number in (1, 2, 3, 4)]
    assert found == [True, False, False, True]
    await backend.close()


async def test_in_a_cluster_everything_is_on_one_node(make_server: MakeServer) -> None:
    bus = str(free_port())
    server = make_server("--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-require-full-coverage", "no")
    server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    await until(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
    backend = RedisBackend(server.url)
    await backend.open()
    responses = over(backend, ResponsesSettings(max_bytes=40_000, max_bytes_per_caller=20_000))
    ids = await keep_chain(responses, 10, "alice")
    assert await keep(responses, response("resp_item", items=["item"]), "bob")
    assert len(await responses.chain("alice", ids[-1]) or ()) == 10
    assert await responses.holding("bob", ["item"])
    for number in range(20):
        assert await keep(responses, response(f"resp_{number}", text="x" * 2_000), f"caller {number}")
    assert responses.dropped > 10
    assert await responses.chain("alice", ids[-1]) is None
    assert await responses.delete("caller 19", "resp_19")
    assert not await backend.sweep()
    await backend.close()
