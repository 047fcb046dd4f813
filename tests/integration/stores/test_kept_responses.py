"""Kept responses in each store: what a restart, a kill, another worker and another server find of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, ResponsesSettings, SealSettings
from gai_fast.stores.backend import Backend, ResponseBudget, ResponseRecord
from gai_fast.stores.responses import KeptResponses
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.seals import Seals
from tests.integration.gateway import Net
from tests.integration.processes import Server, serving
from tests.integration.stores.conftest import MakeBackend
from tests.integration.stores.processes import start
from tests.integration.stores.sealing import content_of, flipped, forms_of, sealed_with
from tests.integration.test_workers import connections
from tests.kept import Op, agree, keep, keep_chain, over, response, size_of
from tests.limits import LIMITS
from tests.waiting import SECONDS, until_answered

WORDS = ["Zebrafähre-of-the-input", "kennwort-of-the-answer", "end-nutzer-of-a-caller", "msg_geheimnis_of_an_item"]
SMALL = ResponsesSettings(max_bytes=40_000, max_bytes_per_caller=25_000)


@pytest.fixture
def server(request: pytest.FixtureRequest, url: str) -> Any:
    return request.getfixturevalue("redis_server") if url.startswith("redis") else None


Open = Callable[..., Any]


@pytest.fixture
def open_at(make_backend: MakeBackend) -> Open:
    """Opens the store as another process, with some keys."""

    async def open_at(
        encryption: SealSettings | None = None, settings: ResponsesSettings | None = None
    ) -> KeptResponses:
        backend = SealedBackend(make_backend(), Seals(encryption or SealSettings()))
        await backend.open()
        return over(backend, settings)

    return open_at


# ---- one store, several processes ------------------------------------------------------------------------------------


TRACE = [
    *(Op("keep", caller, f"resp_{n}", response(f"resp_{n}", f"resp_{n - 1}" if n else "", text="x" * 500, items=["i"]))
      for n in range(20) for caller in ("alice", "bob", ANONYMOUS)),
    *(Op("chain", caller, "resp_19") for caller in ("alice", "bob", "carl")),
    Op("holding", "alice", "", ["i", "j"]),
    Op("delete", "alice", "resp_19"),
    Op("delete", "alice", "resp_19"),
    Op("holding", "alice", "", ["i", "j"]),
    Op("keep", "alice", "resp_18", response("resp_18", "resp_18", text="y" * 3000)),
    Op("chain", "alice", "resp_18"),
    *(Op("keep", f"caller {n}", "resp", response("resp", text="z" * 8000)) for n in range(10)),
    Op("keep", "alice", "resp_large", response("resp_large", text="x" * 30_000)),
]  # fmt: skip


@pytest.mark.parametrize("keys", [(), (0,)], ids=["open", "sealed"])
async def test_processes_keep_the_same_whichever_is_asked(open_at: Open, keys: tuple[int, ...]) -> None:
    stores = [await open_at(sealed_with(*keys)) for _ in range(2)]
    await agree(stores, TRACE, 25_000, 40_000)


async def test_an_id_works_everywhere_once_it_is_kept(open_at: Open) -> None:
    here, there = await open_at(), await open_at()
    before = ""
    for number in range(300):
        assert await keep(here, response(f"resp_{number}", before))
        assert await there.find(ANONYMOUS, f"resp_{number}") is not None
        before = f"resp_{number}"
    assert len(await there.chain(ANONYMOUS, before) or ()) == 300


async def test_a_time_to_live_ends_and_what_has_ended_makes_room(open_at: Open, backend: Backend) -> None:
    responses = await open_at(settings=ResponsesSettings(ttl=1.0, max_bytes=16384))
    assert await keep(responses, response("resp_short", items=["item"]))
    responses.use(ResponsesSettings(ttl=600.0, max_bytes=16384))
    assert await keep(responses, response("resp_long"))
    assert await responses.holding(ANONYMOUS, ["item"])

    async def is_gone() -> bool:
        return await responses.find(ANONYMOUS, "resp_short") is None

    await until_answered(is_gone)
    assert await responses.holding(ANONYMOUS, ["item"]) == {}
    assert not await responses.delete(ANONYMOUS, "resp_short")
    assert await responses.find(ANONYMOUS, "resp_long") is not None
    await backend.sweep()
    new = response("resp_new")._replace(input=b"")
    room = 16384 - size_of(response("resp_long")) - size_of(new)
    assert await keep(responses, new._replace(input=bytes(room)))
    assert responses.dropped == 0
    assert await keep(responses, new._replace(input=bytes(room + 1)))
    assert responses.dropped == 1


async def test_much_makes_room_in_several_steps(open_at: Open, change_limits: Any) -> None:
    change_limits(responses_dropped=5_000)
    responses = await open_at()
    ids = await keep_chain(responses, 60)
    responses.use(ResponsesSettings(max_bytes=16384))
    assert await keep(responses, response("resp_last", text="x" * 12_000))
    found = [each for each in ids if await responses.find(ANONYMOUS, each) is not None]
    assert found == ids[-len(found) :]
    assert responses.dropped == 60 - len(found)
    assert 1 <= len(found) <= 3


KEEPER = """
async def main(backend, caller, count):
    from gai_fast.model.settings import ResponsesSettings
    from tests.kept import over, keep, response
    await backend.open()
    responses = over(backend, ResponsesSettings(max_bytes=40_000, max_bytes_per_caller=25_000))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(count)):
        assert await keep(responses, response(f"resp_{caller}_{number}", text="x" * (number % 7 * 300), items=["i"]),
            "shared" if number % 2 else caller)
        print(number, flush=True)
    print(responses.dropped, flush=True)
    sys.stdin.readline()
    await backend.close()
"""


def expression(url: str) -> str:
    """Returns the source that makes a backend."""
    if url.startswith("redis"):
        return f"RedisBackend({url!r})"
    return f"SQLiteBackend(Path({url.removeprefix('sqlite:///')!r}))"


def begin(url: str, caller: str, count: int) -> subprocess.Popen[str]:
    process = start(KEEPER, expression(url), caller, str(count))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def send(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


async def test_two_processes_that_keep_at_once_stay_within_the_bytes(url: str, open_at: Open) -> None:
    responses = await open_at(settings=SMALL)
    processes = [begin(url, caller, 150) for caller in ("alice", "bob")]
    for process in processes:
        send(process)
    outputs = [(await asyncio.to_thread(process.communicate, "\n", 2 * SECONDS))[0] for process in processes]
    dropped = sum(int(each.split()[-1]) for each in outputs)
    found: dict[str, int] = {}
    count = 0
    for name in ("alice", "bob"):
        for number in range(150):
            caller = "shared" if number % 2 else name
            kept = await responses.find(caller, f"resp_{name}_{number}")
            if kept is not None:
                own = len(kept.input) + len(kept.response)
                found[caller] = found.get(caller, 0) + own + LIMITS.response_cost + LIMITS.response_item_cost
                count += 1
    assert count + dropped == 300, "each is kept, or was dropped once"
    assert max(found.values()) <= 25_000
    least = 25_000
    assert least < sum(found.values()) <= 40_000, "no more was dropped than had to be"


async def test_what_a_killed_process_has_kept_is_there(url: str, open_at: Open) -> None:
    process = begin(url, "alice", 10)
    assert process.stdout is not None
    send(process)
    lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(5)]
    process.kill()
    process.communicate()
    responses = await open_at()
    assert lines == [f"{number}\n" for number in range(5)]
    for number in range(5):
        caller = "shared" if number % 2 else "alice"
        assert await responses.find(caller, f"resp_alice_{number}") is not None
        assert await responses.holding(caller, ["i"])


# ---- servers ---------------------------------------------------------------------------------------------------------


APP = '''
"""Reads and keeps responses on behalf of a test."""
import gc, inspect, json, os
from aiohttp import web
from gai_fast.stores.responses import KeptResponse, KeptResponses

def kept():
    return next(each for each in gc.get_objects() if isinstance(each, KeptResponses))

async def keep(request):
    identifier, parent, size, items = json.loads(await request.text())
    answer = json.dumps({"output": [{"id": f"out_{identifier}"}], "text": "x" * size}).encode()
    is_kept = kept().keep("alice", KeptResponse(identifier, parent, "completed", b"[]", answer, items))
    return web.json_response([os.getpid(), await is_kept if inspect.isawaitable(is_kept) else is_kept])

async def read(request):
    identifier, item = json.loads(await request.text())
    found = await kept().find("alice", identifier)
    chain = await kept().chain("alice", identifier)
    items = await kept().holding("alice", [item])
    return web.json_response([
        os.getpid(), found and found.identifier, chain and len(chain), [each.identifier for each in items.values()]])

def extend(app):
    app.router.add_post("/test/keep", keep)
    app.router.add_post("/test/read", read)
'''


@pytest.fixture
def folder(store: str, tmp_path: Path) -> Path:
    """Returns the folder of a configuration, one with each store."""
    (tmp_path / "kept_app.py").write_text(APP)
    head = '[server]\nport = 0\napp = "kept_app:extend"\n[responses]\nttl = 500\n'
    (tmp_path / "gai-fast.toml").write_text(head + store)
    return tmp_path


async def all_found(server: Server) -> set[int]:
    """Reads what `keep_some` has kept, by each of two workers; returns their processes."""
    pids = set()
    for client in await connections(server):
        answer = (await client.ask("POST", "/test/read", ["resp_2", "item_1"])).json
        pids.add(answer[0])
        assert answer[1:] == ["resp_2", 3, ["resp_1"]]
        client.close()
    return pids


async def keep_some(server: Server) -> None:
    for number in range(3):
        parent = f"resp_{number - 1}" if number else ""
        body = [f"resp_{number}", parent, 1000, [f"item_{number}"]]
        assert (await server.ask("POST", "/test/keep", body)).json[1] is True


async def test_workers_restarts_kills_and_servers(net: Net, folder: Path) -> None:
    """By object, chain and item."""
    is_memory = "memory:" in (folder / "gai-fast.toml").read_text()
    async with serving(net, folder, "--workers", "2") as server:
        await keep_some(server)
        assert len(await all_found(server)) == 2
        killed = server.workers_in_order[0]
        os.kill(killed, signal.SIGKILL)

        async def is_replaced() -> bool:
            return killed not in server.workers and len(server.workers) == 2

        await until_answered(is_replaced)
        assert (await server.ask("GET", "/readyz")).status == 200
        await all_found(server)
        if not is_memory:
            async with serving(net, folder) as other:
                assert (await other.ask("POST", "/test/read", ["resp_2", "item_1"])).json[1:] == [
                    "resp_2",
                    3,
                    ["resp_1"],
                ]
        server.signal(signal.SIGKILL)
        await server.ended()
    async with serving(net, folder) as server:
        found = (await server.ask("POST", "/test/read", ["resp_2", "item_1"])).json[1:]
        assert found == ([None, None, []] if is_memory else ["resp_2", 3, ["resp_1"]])


async def test_workers_of_memory_take_the_largest_and_much_of_them(net: Net, tmp_path: Path) -> None:
    """The supervisor's link carries them, and no worker is killed as hung."""
    (tmp_path / "kept_app.py").write_text(APP)
    (tmp_path / "gai-fast.toml").write_text(
        '[server]\nport = 0\napp = "kept_app:extend"\n'
        "[responses]\nmax_bytes = 268435456\nmax_bytes_per_caller = 268435456\n"
    )
    megabyte = 1 << 20
    async with serving(net, tmp_path, "--workers", "2") as server:
        workers = server.workers
        for number in range(30):
            parent = f"resp_{number - 1}" if number else ""
            body = [f"resp_{number}", parent, megabyte, []]
            assert (await server.ask("POST", "/test/keep", body)).json[1] is True
        large = ["resp_large", "", 16 * megabyte - 100, []]
        # On a busy machine megabytes may take longer than `limits.store_answer`: the caller's calls are refused then.
        is_kept = False
        for _ in range(30):
            is_kept = is_kept or (await server.ask("POST", "/test/keep", large)).json[1] is True
            await asyncio.sleep(0 if is_kept else 0.3)
        assert is_kept

        async def read() -> Any:
            for _ in range(30):
                reply = await server.ask("POST", "/test/read", ["resp_29", "none"])
                if reply.status != 503:
                    break
                await asyncio.sleep(0.3)
            return reply.json[1:]

        assert await asyncio.gather(*[read() for _ in range(6)]) == [["resp_29", 30, []]] * 6
        assert (await server.ask("POST", "/test/read", ["resp_large", "none"])).json[1] == "resp_large"
        assert server.workers == workers
        metrics = (await server.ask("GET", "/metrics")).body.decode()
        assert "gai_fast_responses_dropped_total 0.0" in metrics


async def test_the_start_says_what_is_kept_and_a_reload_what_counts(net: Net, folder: Path) -> None:
    text = (folder / "gai-fast.toml").read_text()
    async with serving(net, folder, "--workers", "2") as server:
        if "memory:" not in text:
            line = await server.said("/v1/responses are kept in the store")
            seal = "sealed" if "encryption" in text else "not sealed"
            assert f"for 500 s, {seal}: `store = false` in [responses] keeps nothing" in line
        (folder / "gai-fast.toml").write_text(text.replace("ttl = 500", "max_bytes = 16384"))
        server.signal(signal.SIGHUP)
        await server.said("[responses]: changed")

        async def is_used() -> bool:
            body = ["resp_large", "", 20_000, []]
            return not any([(await server.ask("POST", "/test/keep", body)).json[1] for _ in range(4)])

        await until_answered(is_used)
        metrics = (await server.ask("GET", "/metrics")).body.decode()
        assert 'gai_fast_responses_not_kept_total{reason="size"}' in metrics


# ---- sealed ----------------------------------------------------------------------------------------------------------


async def test_no_word_is_in_a_sealed_store_and_each_in_an_open_one(open_at: Open, url: str, server: Any) -> None:
    """Of a caller and of ids beside the values an open store has digests, too."""
    kept = response("resp_secret-id-of-1", "resp_secret-id-of-0", text=WORDS[1], items=[WORDS[3]])
    kept = kept._replace(input=b'["%s"]' % WORDS[0].encode(), response=kept.response + WORDS[1].encode())
    responses = await open_at(sealed_with(0))
    assert await keep(responses, kept, WORDS[2])
    assert await keep(responses, response("resp_2", "resp_secret-id-of-1"), WORDS[2])
    content = content_of(url, server)
    for word in (*WORDS, "secret-id-of", "completed"):
        assert [form for form in forms_of(word) if form in content] == [], word
    assert await responses.find(WORDS[2], "resp_2") is not None


async def test_each_word_is_in_an_open_store(open_at: Open, url: str, server: Any) -> None:
    responses = await open_at()
    kept = response("resp_secret-id-of-1", items=[WORDS[3]])._replace(input=b'["%s"]' % WORDS[0].encode())
    assert await keep(responses, kept, WORDS[2])
    content = content_of(url, server)
    assert [word.encode() in content for word in (WORDS[0], "secret-id-of", "completed")] == [True] * 3
    assert WORDS[2].encode() not in content
    assert WORDS[3].encode() not in content


async def test_another_key_and_no_key_are_refusals_and_both_keys_read(open_at: Open) -> None:
    first = await open_at(sealed_with(0))
    await keep_chain(first, 3)
    assert await keep(first, response("resp_item", items=["item"]))
    for encryption in (sealed_with(1), SealSettings()):
        other = await open_at(encryption)
        for call in (
            other.find(ANONYMOUS, "resp_3"),
            other.chain(ANONYMOUS, "resp_3"),
            other.holding(ANONYMOUS, ["item"]),
        ):
            with pytest.raises(Error) as refused:
                await call
            error = refused.value
            assert (error.code, error.reason, error.status, error.temporary) == (
                "overloaded",
                "store_sealed",
                503,
                False,
            )
        assert await other.find(ANONYMOUS, "resp_none") is None
    without = await open_at(SealSettings())
    assert not await keep(without, response("resp_plain"))
    assert without.not_kept == {"store": 1}
    both = await open_at(sealed_with(1, 0))
    assert len(await both.chain(ANONYMOUS, "resp_3") or ()) == 3
    assert await both.delete(ANONYMOUS, "resp_2")
    assert await first.chain(ANONYMOUS, "resp_3") is None


async def test_the_first_kept_response_seals_a_store(open_at: Open) -> None:
    assert await keep(await open_at(sealed_with(0)), response("resp_1"))
    without = await open_at()
    assert not await keep(without, response("resp_2"))


async def test_a_plain_response_is_read_unless_keys_are_required(open_at: Open) -> None:
    assert await keep(await open_at(), response("resp_1"))
    assert await (await open_at(sealed_with(0))).find(ANONYMOUS, "resp_1") is not None
    with pytest.raises(Error) as refused:
        await (await open_at(sealed_with(0, required=True))).find(ANONYMOUS, "resp_1")
    assert refused.value.reason == "log_damaged"


@pytest.mark.parametrize("at", [0, 1, 10, 25, -1])
async def test_a_changed_sealed_value_is_damaged_and_its_twin_is_read(
    open_at: Open, make_backend: MakeBackend, at: int
) -> None:
    """Somebody without a key writes values whose checksum is right."""
    responses = await open_at(sealed_with(0))
    await keep_chain(responses, 3)
    inner = make_backend()
    await inner.open()
    names = [responses._name(ANONYMOUS, f"resp_{number}") for number in (1, 2, 3)]
    values = dict(await inner.read_responses(names, 1, 10**9))
    budget = ResponseBudget(10**6, 10**6)
    for value, is_damaged in (
        (values[names[1]], False),
        (flipped(values[names[1]], at % len(values[names[1]])), True),
        (values[names[0]], True),
        (values[names[1]][:-1], True),
    ):
        await inner.keep_response(ResponseRecord(names[1], "0" * 32, names[0], value, 2000), 600, budget)
        if not is_damaged:
            assert len(await responses.chain(ANONYMOUS, "resp_3") or ()) == 3
            continue
        for call in (responses.find(ANONYMOUS, "resp_2"), responses.chain(ANONYMOUS, "resp_3")):
            with pytest.raises(Error) as refused:
                await call
            assert refused.value.reason == "log_damaged"
        assert await responses.find(ANONYMOUS, "resp_1") is not None
