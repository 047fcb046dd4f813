"""`gai-fast serve` with a store: it refuses to start without a working store, and says when a store fails."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from gai_fast.stores.backend import Backend
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.sqlite import SQLiteBackend
from tests.integration.gateway import QUERY, Net
from tests.integration.processes import Server, configure, run_forked, serving
from tests.integration.stores.conftest import MakeBackend, MakeServer
from tests.integration.stores.servers import RedisServer
from tests.integration.test_cli import Process, gai
from tests.ports import free_port
from tests.waiting import until_answered

AS_STATE = {"accept": "application/json"}
BODY = json.dumps({"model": "demo", "query": "Hello", "resumable": True}).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


async def refusal(folder: Path, url: str) -> str:
    """Returns the one line of a server that does not start for its store."""
    code, output, errors = await run_forked("serve", "--port", "0", "--store", url, cwd=folder)
    assert (code, output) == (3, "")
    assert errors.count("\n") == 1, errors
    assert errors.startswith("error: the store cannot be used: ")
    assert "secret" not in errors
    fix = ": check `url` in [store] (--store), and that the store is there\n"
    assert errors.endswith(fix)
    return errors.removeprefix("error: the store cannot be used: ").removesuffix(fix)


# ---- at start --------------------------------------------------------------------------------------------------------


def folder_is_missing(folder: Path) -> tuple[str, str]:
    return "sqlite:///none/logs.db", f"{folder}/none/logs.db cannot be made: No such file or directory"


def folder_is_named_like_a_section(folder: Path) -> tuple[str, str]:
    missing = "[store.encryption]/none/logs.db"
    return f"sqlite:///{missing}", f"{folder}/{missing} cannot be made: No such file or directory"


def file_is_none_of_ours(folder: Path) -> tuple[str, str]:
    (folder / "notes.txt").write_text("my notes\n" * 1000)
    return (
        "sqlite:///notes.txt",
        f"{folder}/notes.txt is damaged, or no file of SQLite (SQLITE_NOTADB)",
    )


def server_is_missing(folder: Path) -> tuple[str, str]:
    port = free_port()
    return f"redis://:secret@127.0.0.1:{port}", f"redis://127.0.0.1:{port} cannot be reached"


@pytest.mark.parametrize(
    "case", [folder_is_missing, folder_is_named_like_a_section, file_is_none_of_ours, server_is_missing]
)
async def test_a_store_that_cannot_work_ends_the_start_with_one_line(
    folder: Path, case: Callable[[Path], tuple[str, str]], needs_redis: None
) -> None:
    url, result = case(folder)
    assert await refusal(folder, url) == result


async def test_a_wrong_password_ends_the_start_with_one_line(folder: Path, make_server: MakeServer) -> None:
    server = make_server("--requirepass", "right")
    result = await refusal(folder, f"redis://:secret@127.0.0.1:{server.port}")
    assert result == f"redis://127.0.0.1:{server.port} refuses our password"


async def test_keys_that_cannot_be_had_are_no_mistake_of_the_address(folder: Path) -> None:
    (folder / "gai-fast.toml").write_text('[store]\nurl = "sqlite:///s.db"\n[store.encryption]\ncommand = ["false"]\n')
    code, output, errors = await run_forked("serve", "--port", "0", cwd=folder)
    assert (code, output) == (3, "")
    why = "[store.encryption]: `command` exited with code 1: run it by hand"
    assert errors == f"error: the store cannot be used: {why}\n"


async def test_a_wrong_address_is_a_mistake_of_the_configuration(folder: Path) -> None:
    code, output, errors = await run_forked("serve", "--port", "0", "--store", "postgres://:secret@h", cwd=folder)
    assert (code, output) == (2, "")
    assert "must be the address of a store" in errors
    assert "secret" not in errors


async def test_the_configuration_is_shown_without_the_password(folder: Path) -> None:
    (folder / "gai-fast.toml").write_text('[store]\nurl = "rediss://me:my-secret@h:6380/1"\n')
    code, output, errors = await run_forked("config", "show", cwd=folder)
    assert (code, errors) == (0, "")
    assert 'url = "rediss://me:[redacted]@h:6380/1"' in output
    assert "[idempotency]\nttl = 86400.0" in output


# ---- while it runs ---------------------------------------------------------------------------------------------------


async def get(url: str, path: str, body: bytes | None = None, method: str | None = None, key: str = "") -> bytes:
    """Returns the body of a response."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
    head += f"x-api-key: {key}\r\n" if key else ""
    head += f"content-type: application/json\r\ncontent-length: {len(body or b'')}\r\n\r\n"
    writer.write(head.encode() + (body or b""))
    answer = await reader.read()
    writer.close()
    return answer


async def durability(url: str) -> tuple[str, str]:
    """Returns the words of `/readyz` and of the metrics."""
    ready = json.loads((await get(url, "/readyz")).rpartition(b"\r\n\r\n")[2])
    metrics = (await get(url, "/metrics")).decode()
    [gauge] = [line for line in metrics.splitlines() if line.startswith("gai_fast_store_degraded ")]
    return ready["durability"], gauge.rpartition(" ")[2]


async def until_durability(url: str, wanted: tuple[str, str]) -> None:
    async def is_so() -> bool:
        return await durability(url) == wanted

    await until_answered(is_so)


async def test_a_server_says_when_its_store_fails_and_answers_all_the_same(
    folder: Path, make_server: MakeServer
) -> None:
    redis: RedisServer = make_server("--requirepass", "my-secret")
    url = f"redis://:my-secret@127.0.0.1:{redis.port}"
    async with gai("serve", "--port", "0", "--store", url, cwd=folder) as server:
        banner = await server.until(b"\nmodels: ")
        address = banner.splitlines()[0].rpartition(" ")[2]
        assert await durability(address) == ("durable", "0.0")
        redis.kill()
        await until_durability(address, ("degraded", "1.0"))
        assert b'"finished":true' in await get(address, "/api/v1/stream", BODY)
        redis.start()
        await until_durability(address, ("durable", "0.0"))
        server.process.terminate()
        code, output, errors = await server.end()
    assert code == 0
    assert errors.count("the store is degraded") == 1
    assert "my-secret" not in banner + output + errors


async def test_a_file_of_the_configurations_folder_is_used_and_is_its_owners(folder: Path, tmp_path: Path) -> None:
    (folder / "gai-fast.toml").write_text('[server]\nport = 0\n[store]\nurl = "sqlite:///logs.db"\n')
    async with gai("serve", "-c", str(folder / "gai-fast.toml"), cwd=tmp_path) as server:
        address = (await server.until(b"\nmodels: ")).splitlines()[0].rpartition(" ")[2]
        assert await durability(address) == ("durable", "0.0")
        assert b'"finished":true' in await get(address, "/api/v1/stream", BODY)
        server.process.terminate()
        assert (await server.end())[0] == 0
    assert stat.S_IMODE((folder / "logs.db").stat().st_mode) == 0o600
    assert b'"finished":true' in (folder / "logs.db").read_bytes(), "the end of the stream is stored"


async def test_without_a_store_outside_nothing_is_durable(folder: Path) -> None:
    async with gai("serve", "--port", "0", cwd=folder) as server:
        address = (await server.until(b"\nmodels: ")).splitlines()[0].rpartition(" ")[2]
        assert await durability(address) == ("memory", "0.0")


# ---- two servers over one store --------------------------------------------------------------------------------------


def frames(answer: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The id and the event of each frame of a response that may have broken off; HTTP's chunk framing is left out."""
    found = []
    for block in answer.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n").split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        if b"data" in fields:
            found.append((fields.get(b"id", b"").decode(), json.loads(fields[b"data"])))
    return found


async def address_of(server: Process) -> str:
    return (await server.until(b"\nmodels: ")).splitlines()[0].rpartition(" ")[2]


@asynccontextmanager
async def streaming(
    url: str, body: bytes = BODY, path: str = "/api/v1/stream", until: bytes = b".20\n", key: str = ""
) -> AsyncIterator[tuple[str, bytes, asyncio.StreamReader]]:
    """Starts a resumable stream; gives its id, the beginning of its answer, and the rest."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nidempotency-key: k\r\n"
    head += f"x-api-key: {key}\r\n" if key else ""
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    early = await reader.readuntil(until)
    yield early.partition(b"\nid: ")[2].partition(b".")[0].decode(), early, reader
    writer.close()


def configured(folder: Path, mock: Mock) -> Path:
    """Returns the folder, with a configuration whose model `m` is the mock."""
    configure(folder, mock)
    return folder


async def test_a_stream_is_followed_at_another_server_to_its_end(net: Net, folder: Path, url: str) -> None:
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as first, serving(net, folder, *arguments) as second:
        here, there = first.host, second.host
        async with streaming(here) as (stream_id, early, rest):
            answer = await get(there, f"/api/v1/streams/{stream_id}")
            whole = early + await rest.readuntil(b'"finished":true}\n\n')
        assert frames(answer) == frames(whole)
        after = frames(whole)[30][0]
        assert frames(await get(there, f"/api/v1/streams/{stream_id}?after={after}")) == frames(whole)[31:]


async def test_a_stream_is_cancelled_from_another_server(net: Net, folder: Path, url: str) -> None:
    arguments = ("--port", "0", "--store", url)
    async with (
        Mock(deltas=10_000, rate=40) as mock,
        serving(net, configured(folder, mock), *arguments) as first,
        serving(net, folder, *arguments) as second,
    ):
        here, there = first.host, second.host
        async with streaming(here, BODY.replace(b'"demo"', b'"m"')) as (stream_id, early, rest):
            answer = await get(there, f"/api/v1/streams/{stream_id}", method="DELETE")
            whole = early + await rest.readuntil(b'"finished":true}\n\n')
        assert answer.startswith(b"HTTP/1.1 202 "), answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"id": stream_id, "state": "cancelled"}
        *_, (_, finish), _ = frames(whole)
        assert (finish["type"], finish["finish_reason"]) == ("finish", "cancelled")
        again = await get(there, f"/api/v1/streams/{stream_id}", method="DELETE")
        assert again.startswith(b"HTTP/1.1 200 "), again
        assert json.loads(again.partition(b"\r\n\r\n")[2])["state"] == "cancelled"


async def test_what_a_killed_server_stored_is_had_from_the_next_one(
    net: Net, folder: Path, url: str, make_backend: MakeBackend
) -> None:
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as first, streaming(first.host) as (stream_id, early, _):
        backend = make_backend()
        await backend.open()

        async def is_stored() -> bool:
            return bool((await backend.tail({stream_id: 15}, 0.0)).get(stream_id))

        await until_answered(is_stored)
        first.process.kill()
        await first.ended()
    async with serving(net, folder, *arguments) as second:
        got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
        again = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
        last, after = got[-2][0], f"/api/v1/streams/{stream_id}?after={stream_id}"
        assert got[-2][0], "the error has a number, so that an `EventSource` does not come back for ever"
        assert (await get(second.host, f"/api/v1/streams/{stream_id}?after={last}")).startswith(b"HTTP/1.1 204 ")
        [(void, gap), *end] = frames(await get(second.host, f"{after}.{len(got) - 2}"))
        assert (void, gap["type"], gap["to"], end) == (got[-3][0], "stream.gap", gap["seq"], got[-2:])
        beyond = int(last.rpartition(".")[2]) + 1
        [(number, behind), _] = frames(await get(second.host, f"{after}.{beyond}"))
        assert (number, behind["seq"], behind["error"]["reason"]) == ("", beyond + 1, "log_behind")
        answer = await get(second.host, f"/api/v1/streams/{stream_id}", method="DELETE")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["reason"] == "worker_lost"
    async with serving(net, folder, *arguments) as third:
        assert got == again == frames(await get(third.host, f"/api/v1/streams/{stream_id}")), "closed once for all"
    had = frames(early)
    shared = min(len(got) - 3, len(had) - 1)
    assert shared > 10
    assert got[:shared] == had[:shared]
    assert [event["type"] for _, event in got[-3:]] == ["stream.gap", "error", "done"]
    text = "".join(str(event["text"]) for _, event in got[:-3] if event["type"] == "text.delta")
    assert (got[-3][1]["text"], got[-3][1]["from"], got[-3][1]["reason"]) == (text, len(got) - 2, "taken_over")
    error = got[-2][1]["error"]
    assert isinstance(error, dict)
    assert (error["code"], error["reason"], error["temporary"]) == ("network", "worker_lost", True)
    backend = make_backend()
    await backend.open()
    assert (await life_of(backend, stream_id)) <= 600


async def life_of(backend: Backend, stream_id: str) -> float:
    """Returns the seconds for which a copy is kept."""
    if isinstance(backend, RedisBackend):
        return int(await backend.client.ask("PTTL", backend._key(stream_id))) / 1000
    assert isinstance(backend, SQLiteBackend)
    find = "SELECT expires_ms FROM streams WHERE id = ?"
    [(expires_ms,)] = await backend.look(lambda connection: connection.execute(find, (stream_id,)).fetchall())
    return float(expires_ms / 1000 - time.time())


@asynccontextmanager
async def killed(
    net: Net, folder: Path, arguments: Sequence[str], body: bytes = BODY, path: str = "/api/v1/stream"
) -> AsyncIterator[tuple[str, bytes]]:
    """Kills a server amid a stream that has no end; gives the id and the beginning of its answer."""
    async with Mock(deltas=100_000, rate=40) as mock:
        configure(folder, mock)
        async with (
            serving(net, folder, *arguments) as first,
            streaming(first.host, body.replace(b'"demo"', b'"m"'), path) as (stream_id, early, _),
        ):
            async with serving(net, folder, *arguments) as second:
                await until_answered(lambda: is_known(second, stream_id))
            first.process.kill()
            await first.ended()
        yield stream_id, early


async def test_a_stream_of_a_killed_server_is_cancelled_by_the_next_one(net: Net, folder: Path, url: str) -> None:
    """DELETE was answered by 502: the log was lost, it said, and it was there."""
    arguments = ("--port", "0", "--store", url)
    async with killed(net, folder, arguments) as (stream_id, _), serving(net, folder, *arguments) as second:
        for _ in range(2):
            answer = await get(second.host, f"/api/v1/streams/{stream_id}", method="DELETE")
            assert answer.startswith(b"HTTP/1.1 2"), answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["state"] == "cancelled"
        got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
    assert [event["type"] for _, event in got[-3:]] == ["stream.gap", "finish", "done"]
    assert got[-2][1]["finish_reason"] == "cancelled"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_the_stream_of_a_dialect_of_a_killed_server_ends_with_one_numbered_error(
    net: Net, folder: Path, path: str
) -> None:
    words = [{"role": "user", "content": "Hello"}]
    given = {"input": words} if path == "/v1/responses" else {"messages": words, "max_tokens": 999}
    body = json.dumps({"model": "demo", "stream": True, **given}).encode()
    arguments = ("--port", "0", "--store", "sqlite:///logs.db")
    async with (
        killed(net, folder, arguments, body, path) as (stream_id, early),
        serving(net, folder, *arguments) as second,
    ):
        follow = f"/api/v1/streams/{stream_id}"
        answers = [await get(second.host, follow) for _ in range(2)]
        got, had = frames(answers[0]), frames(early)
        assert got == frames(answers[1])
        assert got[:10] == had[:10]
        errors = [name for name, event in got if "the worker that ran this stream is gone" in json.dumps(event)]
        [last] = {*errors} - {""}
        assert b"[DONE]" not in answers[0]
        beyond = f"{stream_id}.{int(got[-len(errors) - 1][0].rpartition('.')[2]) + 50}"
        [(number, behind)] = frames(await get(second.host, f"{follow}?after={beyond}"))
        assert not number
        assert "events that the log has lost" in json.dumps(behind), "what it has of them cannot be taken back"
        assert (await get(second.host, f"{follow}?after={last}")).startswith(b"HTTP/1.1 204 ")


async def test_a_head_leaves_the_log_of_a_killed_server_as_it_is(net: Net, folder: Path, url: str) -> None:
    arguments = ("--port", "0", "--store", url)
    async with killed(net, folder, arguments) as (stream_id, _):
        async with serving(net, folder, *arguments) as second:
            for _ in range(2):
                head = await get(second.host, f"/api/v1/streams/{stream_id}", method="HEAD")
                assert head.startswith(b"HTTP/1.1 200 "), head
                assert b"content-type: text/event-stream" in head
        async with serving(net, folder, *arguments) as second:
            answer = await get(second.host, f"/api/v1/streams/{stream_id}", method="DELETE")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["state"] == "cancelled", "the HEAD had not ended it"


async def test_before_send_a_log_is_closed_by_the_next_event(net: Net, folder: Path, url: str) -> None:
    """A client may have all that was stored, and nothing more: the error follows, and voids nothing."""
    (folder / "gai-fast.toml").write_text('[store]\nsync = "before_send"\n')
    arguments = ("--port", "0", "--store", url)
    async with serving(net, folder, *arguments) as first, streaming(first.host) as (stream_id, _, _):
        first.process.kill()
        await first.ended()
    async with serving(net, folder, *arguments) as second:
        got = frames(await get(second.host, f"/api/v1/streams/{stream_id}"))
        assert [int(name.rpartition(".")[2]) for name, _ in got[:-1]] == [*range(1, len(got))]
        assert [event["type"] for _, event in got[-2:]] == ["error", "done"]
        assert (await get(second.host, f"/api/v1/streams/{stream_id}?after={got[-2][0]}")).startswith(b"HTTP/1.1 204 ")


async def test_a_server_that_stands_still_before_content_is_not_gone_and_its_key_generates_nothing_again(
    net: Net, folder: Path, url: str
) -> None:
    """After 2 s it counted as gone: the same request was generated by another server, and then by it."""
    body, key = {**QUERY, "model": "m"}, {"idempotency-key": "k"}
    async with Mock(deltas=5, rate=0, ttft=5) as mock:
        configure(folder, mock, more="[stream]\ncommit_after = 0.02\n")
        async with serving(net, folder, "--store", url) as first, serving(net, folder, "--store", url) as second:
            here, there = await first.connect(), await second.connect()
            here.request("POST", "/api/v1/stream", body, key)
            stream_id = (await here.response()).headers["x-gai-stream-id"]
            await until_answered(lambda: is_known(second, stream_id))
            first.signal(signal.SIGSTOP)
            await asyncio.sleep(2.6)
            there.request("POST", "/api/v1/stream", body, key)
            response = await there.response()
            assert (response.status, response.headers["idempotent-replayed"]) == (200, "true")
            first.signal(signal.SIGCONT)
            await response.rest()
            assert response.types[-2:] == ["finish", "done"]
            assert response.headers["x-gai-stream-id"] == stream_id
        assert len(mock.requests) == 1


async def is_known(server: Server, stream_id: str) -> bool:
    return (await server.ask("GET", f"/api/v1/streams/{stream_id}", headers=AS_STATE)).status == 200
