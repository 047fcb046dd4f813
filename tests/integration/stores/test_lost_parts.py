"""Logs in a store of which one part is lost or damaged: followers and states get an end."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest
import redis

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import SealSettings
from tests.conftest import ChangeLimits
from tests.integration.gateway import QUERY, Gateway, Net, on_uvloop
from tests.integration.stores.sealing import sealed_with
from tests.integration.stores.test_closed_runs import takes_all_for_gone
from tests.integration.test_durable import STREAMS, followed
from tests.waiting import SECONDS, until_answered

RESUMABLE = {**QUERY, "model": "m", "resumable": True}
PARTS = ("header", "first", "middle", "last", "end", "request", "owner")
BYTES = b"not what was written"


def break_in_file(path: str, stream_id: str, part: str, is_lost: bool) -> None:
    connection = sqlite3.connect(path, timeout=SECONDS)
    [key] = connection.execute("SELECT key FROM streams WHERE id = ?", (stream_id,)).fetchone()
    numbers = [n for (n,) in connection.execute("SELECT last_seq FROM records WHERE stream = ? ORDER BY 1", (key,))]
    places = {"first": numbers[0], "middle": numbers[len(numbers) // 2], "last": numbers[-1]}
    if part in places:
        change = "DELETE FROM records" if is_lost else "UPDATE records SET piece = ?"
        where, values = " WHERE stream = ? AND last_seq = ?", (key, places[part])
    elif part == "request":
        change = "DELETE FROM requests" if is_lost else "UPDATE requests SET value = ?"
        where, values = " WHERE stream = ?", (key,)
    elif part == "header":
        change, where, values = "UPDATE streams SET header = ?", " WHERE key = ?", (key,)
        is_lost = False
    elif part == "owner":
        change, where, values = "UPDATE streams SET worker = '', epoch = 0", " WHERE key = ?", (key,)
        is_lost = True
    else:
        change = "UPDATE streams SET ending = NULL" if is_lost else "UPDATE streams SET ending = ?"
        where, values = " WHERE key = ?", (key,)
    with connection:
        connection.execute(change + where, values if is_lost else (BYTES, *values))
    connection.close()


def break_in_redis(url: str, stream_id: str, part: str, is_lost: bool) -> None:
    client: Any = redis.Redis.from_url(url)
    name = f"gai:{{{stream_id}}}:"
    entries = client.xrange(f"{name}log")
    records = [each for each in entries if b"piece" in each[1]]
    places = {"first": records[0], "middle": records[len(records) // 2], "last": records[-1], "end": entries[-1]}
    if part == "request":
        _ = client.delete(f"{name}request") if is_lost else client.set(f"{name}request", BYTES, keepttl=True)
    elif part == "header":
        _ = client.delete(f"{name}head") if is_lost else client.hset(f"{name}head", "header", BYTES)
    elif part == "owner":
        _ = client.hdel(f"{name}head", "epoch") if is_lost else client.hset(f"{name}head", "epoch", BYTES)
    elif is_lost:
        client.xdel(f"{name}log", places[part][0])
    else:  # no entry can be changed, so all are written anew
        life = client.pttl(f"{name}log")
        client.delete(f"{name}log")
        for number, fields in entries:
            if number == places[part][0]:
                fields = {key: BYTES if key in (b"piece", b"ending") else value for key, value in fields.items()}
            client.xadd(f"{name}log", fields, number)
        client.pexpire(f"{name}log", life)
    client.close()


async def in_two(net: Net, url: str, seals: SealSettings, mock: Mock) -> tuple[Gateway, Gateway]:
    return await net.gateway(mock, url=url, encryption=seals), await net.gateway(mock, url=url, encryption=seals)


@pytest.mark.parametrize("is_gone", [True, False], ids=["its worker is gone", "its worker lives"])
@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "damaged"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seals", [SealSettings(), sealed_with(0)], ids=["plain", "sealed"])
@on_uvloop
async def test_a_log_of_which_one_part_is_missing_has_an_end(
    net: Net, url: str, change_limits: ChangeLimits, seals: SealSettings, part: str, is_lost: bool, is_gone: bool
) -> None:
    if url.startswith("sqlite") and (part, is_lost, is_gone) == ("end", True, False):
        return  # the row says that the stream runs, and its worker lives: nothing tells that it has ended
    change_limits(lease_renewal=0.1, mirror_patience=0.5, store_retry=0.2)
    mock: Mock = await net.mock(deltas=30, rate=300)
    here, there = await in_two(net, url, seals, mock)
    _, response = await here.stream(RESUMABLE)
    stream_id = response.headers["x-gai-stream-id"]
    await response.rest()

    async def is_written() -> bool:
        copy = await there.running.engine.store._backend.load(stream_id)  # type: ignore[union-attr]  # it has one
        return copy is not None and copy.news.ending is not None

    await until_answered(is_written)
    if url.startswith("redis"):
        break_in_redis(url, stream_id, part, is_lost)
    else:
        break_in_file(url.removeprefix("sqlite:///"), stream_id, part, is_lost)
    if is_gone:
        takes_all_for_gone(there)
    async with asyncio.timeout(SECONDS):
        found = await followed(there, stream_id)
        assert found.status in (200, 204, 404, 500, 503), found.body
        if found.status == 200:
            assert found.types[-1] in ("done", "error")
        state = await there.ask("GET", f"{STREAMS}/{stream_id}", None, {"accept": "application/json"})
    if is_gone or part != "end":  # an owner that lives may have more
        assert state.status != 200 or state.json["state"] != "running"
    for text in ("a copy of a stream cannot be read", "is gone, after", "store is sealed"):
        net.warned(text)
