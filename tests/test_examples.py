"""The examples: each runs as it stands, is short, and does what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

import gai_fast
from gai_fast.cli.mock.command import Fault, Mock
from gai_fast.server.serving import start
from tests.ports import free_port
from tests.unit.config.folders import Folder
from tests.waiting import SECONDS

FOLDER = Path(__file__).parents[1] / "examples"
LINES = 60
KEYS = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k"}


def environment(**more: str) -> dict[str, str]:
    """Returns the caller's, without what would configure a gateway."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not (name.endswith("_API_KEY") or name == "OLLAMA_HOST")
        and (not name.startswith("GAI_FAST_") or name.endswith("_EXTENSIONS"))
    }
    path = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


@contextlib.asynccontextmanager
async def running(name: str, **more: str) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Yields an example that serves, once it does."""
    port = free_port()
    program = await asyncio.create_subprocess_exec(
        sys.executable, FOLDER / name, env=environment(PORT=str(port), **more), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
            while True:
                assert program.returncode is None, f"{name} has ended"
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
            yield session, f"http://127.0.0.1:{port}"
    finally:
        if program.returncode is None:
            program.terminate()
        await asyncio.wait_for(program.wait(), SECONDS)


async def printed(name: str, *arguments: str, typed: str = "", **more: str) -> tuple[int | None, str]:
    """Runs an example that ends; returns its status and its output."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        FOLDER / name,
        *arguments,
        env=environment(**more),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(program.communicate(typed.encode()), SECONDS)
    return program.returncode, output.decode()


async def first_text(response: aiohttp.ClientResponse) -> str:
    """Returns the first piece of an answer."""
    async for event in gai_fast.read_events(response.content):
        if event["type"] == "text.delta":
            return event["text"]
    raise AssertionError("an answer without a text")


def test_each_is_short_and_stands_in_the_list() -> None:
    files = {path.name: path.read_text() for path in FOLDER.glob("*.py")}
    assert {name: text.count("\n") for name, text in files.items() if text.count("\n") >= LINES} == {}
    assert {*re.findall(r"^\| \[(\w+\.py)\]", (FOLDER / "README.md").read_text(), re.M)} == {*files}


async def test_the_chat_page_answers_and_resumes() -> None:
    async with running("chat_page.py") as (session, url):
        async with session.get(url) as response:
            assert "new EventSource(" in await response.text()
        async with session.get(url + "/ask?q=Hi") as response:
            seen: list[str] = []
            async for line in response.content:
                seen += [line.decode()[4:-1]] if line.startswith(b"id: ") else []
                if len(seen) == 3:
                    break
        async with session.get(url + "/ask?q=Hi", headers={"last-event-id": seen[-1]}) as response:
            assert (await anext(gai_fast.read_events(response.content)))["seq"] == 4


async def test_the_endpoint_is_limited() -> None:
    async with running("rate_limited.py") as (session, url):
        for status, body in ((400, b"nonsense"), (400, b"[]"), (200, b'{"query": "Hi"}'), (429, b"")):
            async with session.post(url + "/ask", data=body) as response:
                assert response.status == status
        assert int(response.headers["retry-after"]) <= 60


async def test_the_next_provider_answers_where_one_fails(tmp_path: Path) -> None:
    async with Mock(deltas=8, dialect="openai") as broken, Mock(deltas=8, dialect="anthropic") as working:
        broken.fault = Fault("503")
        text = (FOLDER / "fallback.toml").read_text()
        for name, url in (("openai", f"{broken.url}/v1"), ("anthropic", working.url), ("gemini", "http://127.0.0.1:1")):
            text = text.replace(f'provider = "{name}"\n', f'provider = "{name}"\nbase_url = "{url}"\n')
        config = tmp_path / "fallback.toml"
        config.write_text(text)
        status, output = await printed("fallback.py", "Hi", str(config), **KEYS)
        assert status == 0, output
        assert output.startswith("[anthropic: ")
        assert broken.requests
        working.fault = Fault("503")
        status, output = await printed("fallback.py", "Hi", str(config), **KEYS)
        assert status == 1
        assert "nobody has answered" in output


async def test_a_conversation_goes_on_from_its_answers() -> None:
    status, output = await printed("conversation.py", typed="Tell me a story\nAnd then?\n")
    assert status == 0, output
    assert output.count("One stormy night") == 2
    assert "[2 messages, " in output
    assert "[4 messages, " in output


async def test_fastapi_streams_and_resumes() -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    async with running("fastapi_resume.py") as (session, url):
        async with session.post(url + "/chat", json={"prompt": "Hi"}) as response:
            seen = [event async for event in gai_fast.read_events(response.content)]
            place = f"{response.headers['x-gai-stream-id']}.5"
        async with session.post(url + "/chat", json={"prompt": "Hi"}, headers={"last-event-id": place}) as response:
            assert [event async for event in gai_fast.read_events(response.content)] == seen[5:]
        async with session.post(url + "/chat", json={"promt": "Hi"}) as response:
            assert response.status == 422
        async with session.get(url + "/shout?prompt=Hi") as response:
            assert await first_text(response) == "ONE"


async def test_a_thread_pushes() -> None:
    async with running("push_from_thread.py") as (session, url):
        async with session.get(url + "/count?to=4") as response:
            result = await gai_fast.acollect(gai_fast.read_events(response.content))
        assert (result.text, result.finish_reason) == ("1 2 3 4 ", "stop")
        for to in ("0", "x", "1001"):
            async with session.get(f"{url}/count?to={to}") as response:
                assert response.status == 400


async def test_django_streams() -> None:
    pytest.importorskip("django")
    pytest.importorskip("uvicorn")
    async with running("django_chat.py") as (session, url):
        async with session.get(url + "/progress") as response:
            lines = (await response.text()).splitlines()
            assert [json.loads(line) for line in lines] == [{"percent": percent} for percent in (0, 50, 100)]
        async with session.get(url + "/ask?q=Hi") as response:
            assert await first_text(response) == "One"


async def test_the_stream_of_an_sdk_is_a_response_and_its_early_failure_has_a_status() -> None:
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name)
    async with Mock(deltas=4, dialect="openai") as upstream:
        more = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{upstream.url}/v1"}
        async with running("sdk_relay.py", **more) as (session, url):
            async with session.get(url + "/chat?q=Hi") as response:
                result = await gai_fast.acollect(gai_fast.read_events(response.content))
            assert (result.text != "", result.finish_reason) == (True, "stop")
            upstream.fault = Fault("429")
            async with session.get(url + "/chat?q=Hi") as response:
                assert response.status == 429
                assert (await response.json())["error"]["code"] == "rate_limited"


async def test_several_answers_share_a_websocket(tmp_path: Path) -> None:
    gateway = await start(Folder(tmp_path).read("[server]\nport = 0\n").settings)
    try:
        status, output = await printed("websocket_many.py", gateway.url.replace("http:", "ws:") + "/ws/stream")
    finally:
        await gateway.close()
    assert status == 0, output
    assert sorted(line.partition(",")[0] for line in output.splitlines()) == ["a: stop", "b: stop", "c: cancelled"]


async def test_a_function_ends_an_answer() -> None:
    status, output = await printed("guard_function.py", "A story")
    assert status == 0, output
    assert output.startswith("One stormy night")
    assert "never" not in output
    assert output.endswith(" [content_filter]\n")


async def test_a_web_hook_ends_an_answer(tmp_path: Path) -> None:
    async with running("guard_webhook.py") as (session, url):
        asked = {"guard": "policy", "on": "output", "channel": "text", "text": "the old lottery"}
        async with session.post(url + "/check", json=asked) as response:
            assert (await response.json())["spans"] == [[8, 15]]
        config = tmp_path / "gai-fast.toml"
        config.write_text(f'[[guard]]\nname = "policy"\nuse = "http"\nurl = "{url}/check"\n')
        async with gai_fast.Gateway.from_config(config) as gateway:
            with pytest.raises(gai_fast.Error) as refused:
                await gateway.ask("A lottery")
            assert refused.value.reason == "guard"
            assert (await gateway.ask("A story")).finish_reason == "stop"


# ---- runs

CALLING = """
CALLS = {"order_status": {"number": 17}, "send_invoice": {"customer": "Ada", "euros": 7}}


async def answer(request):
    last = request["messages"][-1]
    if last["role"] == "tool":
        yield f"It says: {last['content']}"
    else:
        name = request["tools"][0]["name"]
        yield {"type": "tool.call", "call_id": "c1", "tool_call": {"name": name, "input": CALLS[name]}}
"""


def calling(folder: Path) -> str:
    """Writes the configuration of a model that calls the first tool; returns its path."""
    (folder / "calling.py").write_text(CALLING)
    path = folder / "gai-fast.toml"
    upstream = '[[upstream]]\nname = "mine"\nprovider = "python"\npython = "calling:answer"\n'
    path.write_text(upstream + '[[model]]\nname = "m"\nupstream = "mine"\n')
    return str(path)


async def test_a_documentation_server_is_searched_and_read(tmp_path: Path) -> None:
    text = (FOLDER / "docs_server.toml").read_text()
    command = json.dumps([sys.executable, str(FOLDER / "docs_server.py"), str(FOLDER.parent / "docs")])
    config = tmp_path / "gai-fast.toml"
    config.write_text(re.sub("command = .*", lambda _: f"command = {command}", text))
    said = []
    for call in ("docs.search", '{"words": "approval digest"}'), ("docs.read", '{"name": "../README.md"}'):
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gai_fast", "tools", "call", *call, "-c", config,
            env=environment(OPENAI_API_KEY="k"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(program.communicate(), SECONDS)
        said.append((program.returncode, output.decode()))
    assert said[0][0] == 0, said[0][1]
    assert "runs.md" in said[0][1]
    assert said[1][0] == 1, "no path of a model's is opened"
    assert "A streaming gateway" not in said[1][1]


async def test_fastapi_gives_models_a_function(tmp_path: Path) -> None:
    async with (
        running("fastapi_tool.py", CONFIG=calling(tmp_path)) as (session, url),
        session.post(url + "/chat", json={"prompt": "Where is order 17?"}) as response,
    ):
        events = [event async for event in gai_fast.read_events(response.content)]
    [result] = [event["tool_result"] for event in events if event["type"] == "tool.result"]
    assert result["status"] == "on its way"
    assert events[-1]["type"] == "done"


async def test_a_page_asks_before_a_tool_is_called(tmp_path: Path) -> None:
    """Sends what the page sends: its requests are read from it."""
    async with running("approval_page.py", CONFIG=calling(tmp_path)) as (session, url):
        async with session.get(url) as response:
            page = await response.text()
        [stream], [decide] = re.findall(r'EventSource\("(.*?)"', page), re.findall(r"fetch\(`(.*?)`", page)
        results = []
        for decision in ("approve", "deny"):
            async with session.get(f"{url}/{stream}q=Bill") as response:
                assert response.status == 200, await response.text()
                async for event in gai_fast.read_events(response.content):
                    if event["type"] == "approval.required":
                        asked = event["approval"]
                        path = decide.replace("${stream}", asked["id"].rpartition("-")[0]).replace("${id}", asked["id"])
                        body = {"decision": decision, "digest": asked["digest"]}
                        async with session.post(f"{url}/{path}", json=body) as decided:
                            assert decided.status == 200, await decided.text()
                    elif event["type"] == "tool.result":
                        results.append(event["tool_result"])
    assert results == ["Ada has an invoice of 7 euros", "the call was denied"]
