"""Old records of a sealed stream that somebody without the key puts back: they are void, or begin nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from gai_fast.cli.mock.command import Mock
from gai_fast.stores.backend import Backend, CopyChange
from gai_fast.stores.redis import RedisBackend
from tests.integration.gateway import Net
from tests.integration.processes import configure, serving
from tests.integration.stores.changes import changed
from tests.integration.stores.conftest import MakeBackend
from tests.integration.stores.test_serve import folder as folder
from tests.integration.stores.test_serve import frames, get, streaming
from tests.integration.stores.test_takeover import BODY, STORES, kinds, said, whole
from tests.integration.stores.test_takeover_dialects import is_stored
from tests.waiting import until_answered

PutBack = Callable[[], Awaitable[None]]


async def kept_request(store: Backend, url: str, stream_id: str) -> PutBack:
    """Returns a call that puts the record of a stream's request back as it is now, and nothing else."""
    if isinstance(store, RedisBackend):
        key, client = f"gai:{{{stream_id}}}:request", store.client
        async with client.turn():
            value = await client.ask("GET", key)

        async def put_back() -> None:
            async with client.turn():
                await client.ask("SET", key, value)

    else:
        path = url.removeprefix("sqlite:///")
        with sqlite3.connect(path) as file:
            found = file.execute("SELECT value FROM requests JOIN streams ON stream = key WHERE id = ?", (stream_id,))
            [value] = found.fetchone()

        async def put_back() -> None:
            with sqlite3.connect(path) as file:
                put = "INSERT INTO requests (stream, value) SELECT key, ? FROM streams WHERE id = ?"
                file.execute(put, (value, stream_id))

    assert value
    return put_back


async def is_forgotten(store: Backend, stream_id: str) -> bool:
    return await store.request_of(stream_id) is None


async def test_an_old_record_of_a_request_begins_nothing_and_an_old_copy_is_void(
    net: Net, folder: Path, url: str, make_backend: MakeBackend
) -> None:
    (folder / "seal").write_text("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
    store = make_backend()
    await store.open()
    async with Mock(deltas=60, rate=0) as mock:
        configure(folder, mock)
        text = await whole(mock, net, folder)
        mock.rate = 60
        configure(folder, mock, more=f'[stream]\non_midstream_failure = "continue"\n{STORES["sealed"]}')
        arguments = ("--port", "0", "--store", url)
        async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
            async with streaming(first.host, BODY, until=b".4\n") as (stream_id, _, _):
                path = f"/api/v1/streams/{stream_id}"
                await until_answered(partial(is_stored, second, stream_id, 4))
                put_back = await kept_request(store, url, stream_id)
                old, request = await store.load(stream_id), await store.request_of(stream_id)
                first.process.kill()
                await first.ended()
            got = frames(await get(second.host, path))
            assert said(got) == text
            await until_answered(partial(is_forgotten, store, stream_id))
            await put_back()
            assert await store.request_of(stream_id) == request
            assert frames(await get(second.host, path)) == got
        async with serving(net, folder, *arguments) as third:
            assert frames(await get(third.host, path)) == got
        assert len(mock.requests) == 2
        assert old is not None
        mock.rate = 0
        used = {event["seq"] for _, event in got if event["type"] == "stream.gap"}
        for number in range(2):
            await store.write([CopyChange(stream_id, is_dropped=True)])
            while await store.sweep():
                pass
            begin = changed(stream_id, old.header, old.worker, old.news.records, keep=60, request=request)
            assert not await store.write([begin])
            async with serving(net, folder, *arguments) as fourth:
                resumed = frames(await get(fourth.host, f"{path}?after={got[-2][0]}"))
                again = frames(await get(fourth.host, path))
            assert len(mock.requests) == 3 + number
            assert said(again) == text
            gap = next(event for _, event in again if event["type"] == "stream.gap")
            assert gap["seq"] not in used
            if kinds(resumed) == ["error", "done"]:  # the new owner's numbers are below that
                assert resumed[0][1]["error"]["reason"] == "log_behind"
            else:
                assert resumed == again[gap["from"] - 1 :], "what the client has of the other owner is void"
            used.add(gap["seq"])
