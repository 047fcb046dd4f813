"""Provider `python`: a function of the operator's answers behind every route, as docs/providers.md shows it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gai_fast.cli import main
from gai_fast.config import ConfigError, load
from gai_fast.server.reload import Reload, from_bytes, to_bytes
from gai_fast.server.serving import start
from tests.docs.pages import blocks, read
from tests.integration.gateway import (
    MESSAGES,
    NATIVE,
    Gateway,
    Net,
    Response,
    on_both_loops,
    on_steady_loop,
    on_uvloop,
)
from tests.integration.processes import serving
from tests.integration.rpc import serving_rpc
from tests.integration.test_agui import ASK as AGUI
from tests.integration.test_chats import ASK as CHAT
from tests.integration.websocket import connect
from tests.limits import LIMITS
from tests.waiting import SECONDS, until, until_answered

PAGE = [block for block in blocks(read("docs/providers.md")) if block.language in ("toml", "python")]
NAME = "own_model_of_this_test"
WORDS = ["One ", "two ", "thréé"]
ASK = {"model": "m", "query": "Hi"}
DURABLE = {**ASK, "resumable": True}


class Model:
    """A function that says a word for each `go_on`, and notes what becomes of it."""

    def __init__(self) -> None:
        self.steps = asyncio.Semaphore(0)
        self.asked: list[Any] = []
        self.closed = 0

    async def __call__(self, request: Any) -> AsyncIterator[Any]:
        self.asked.append(request)
        try:
            for word in WORDS:
                await self.steps.acquire()
                yield word
            await self.steps.acquire()
        finally:
            self.closed += 1

    def go_on(self, words: int = 1) -> None:
        for _ in range(words):
            self.steps.release()

    def end(self) -> None:
        self.go_on(len(WORDS) + 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yields a folder of a configuration; what is imported from it is forgotten."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


Serve = Callable[..., Any]


@pytest.fixture
def serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Starts a gateway whose model `m` is a function."""

    async def served(net: Net, function: Any, more: str = "", rest: str = "") -> Gateway:
        module = ModuleType(NAME)
        module.answer = function  # type: ignore[attr-defined]  # it is a module
        monkeypatch.setitem(sys.modules, NAME, module)
        file = folder / "gai-fast.toml"
        file.write_text(
            "[server]\nport = 0\n"
            f'[[upstream]]\nname = "own"\nprovider = "python"\npython = "{NAME}:answer"\nretries = 0\n{more}\n'
            f'[[model]]\nname = "m"\nupstream = "own"\n{rest}'
        )
        running = await start(load(file, environ={}))
        net.stack.push_async_callback(running.close)
        net.gateways.append(Gateway(net, running))
        return net.gateways[-1]

    return served


def said(response: Response) -> str:
    """Returns the text of a chat completion's stream."""
    return "".join(
        choice["delta"].get("content") or "" for event in response.events for choice in event.get("choices", ())
    )


# ---- every route -----------------------------------------------------------------------------------------------------

ROUTES: Any = {
    "native": (NATIVE, ASK, lambda got: got.text),
    "native, whole": (NATIVE, {**ASK, "stream": False}, lambda got: got.json["text"]),
    "chat": ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, "stream": True}, said),
    "chat, whole": (
        "/v1/chat/completions",
        {"model": "m", "messages": MESSAGES},
        lambda got: got.json["choices"][0]["message"]["content"],
    ),
    "completions": (
        "/v1/completions",
        {"model": "m", "prompt": "Hi"},
        lambda got: got.json["choices"][0]["text"],
    ),
    "responses": (
        "/v1/responses",
        {"model": "m", "input": "Hi"},
        lambda got: got.json["output"][0]["content"][0]["text"],
    ),
    "messages": (
        "/v1/messages",
        {"model": "m", "max_tokens": 100, "messages": MESSAGES},
        lambda got: got.json["content"][0]["text"],
    ),
    "useChat": (
        "/api/v1/chat",
        {**CHAT, "model": "m"},
        lambda got: "".join(part["delta"] for part in got.events if part["type"] == "text-delta"),
    ),
    "AG-UI": (
        f"{NATIVE}?format=agui",
        {**AGUI, "forwardedProps": {"model": "m"}},
        lambda got: "".join(part["delta"] for part in got.events if part["type"] == "TEXT_MESSAGE_CONTENT"),
    ),
}


@on_uvloop
@pytest.mark.parametrize("route", ROUTES)
async def test_it_answers_behind_every_route(net: Net, serve: Serve, route: str) -> None:
    model = Model()
    gateway = await serve(net, model)
    model.end()
    path, body, text_of = ROUTES[route]
    response = await gateway.ask("POST", path, body)
    assert response.status == 200, response.body
    assert text_of(response) == "".join(WORDS)
    [asked] = model.asked
    assert asked["model"] == "m"
    assert asked["messages"][-1]["role"] == "user"
    assert model.closed == 1


@on_uvloop
async def test_it_answers_over_a_websocket_and_grpc(net: Net, serve: Serve) -> None:
    model = Model()
    gateway = await serve(net, model)
    model.go_on(2 * (len(WORDS) + 1))
    socket = await connect(gateway)
    socket.ask("a", **ASK)
    await socket.until_done("a")
    assert socket.text("a") == "".join(WORDS)
    async with serving_rpc(gateway.url) as rpc:
        assert "".join([event.text async for event in rpc.generate(ASK)]) == "".join(WORDS)


@on_uvloop
async def test_what_the_page_shows_works(net: Net, folder: Path) -> None:
    toml, python = (block.text for block in PAGE)
    (folder / "my_model.py").write_text(python)
    (folder / "gai-fast.toml").write_text(f"[server]\nport = 0\n{toml}")
    running = await start(load(folder / "gai-fast.toml", environ={}))
    net.stack.push_async_callback(running.close)
    net.gateways.append(Gateway(net, running))
    response = await net.gateways[0].ask("POST", NATIVE, {"model": "echo", "query": "to be or not"})
    assert response.text == "to be or not "
    assert response.events[-2]["usage"] == {"input_tokens": 3, "output_tokens": 3, "total_tokens": 6}
    models = await net.gateways[0].ask("GET", "/v1/models")
    assert "echo" in [each["id"] for each in models.json["data"]]


@on_uvloop
async def test_tokens_that_it_does_not_count_are_estimated(net: Net, serve: Serve) -> None:
    model = Model()
    gateway = await serve(net, model)
    model.end()
    response = await gateway.ask("POST", NATIVE, ASK)
    assert response.events[-2]["usage"]["source"] == "estimated"
    assert response.events[-2]["usage"]["output_tokens"] > 0


@on_uvloop
async def test_its_calls_and_the_results_go_through_another_dialect(net: Net, serve: Serve) -> None:
    asked: list[Any] = []

    def function(request: Any) -> Iterator[Any]:
        asked.append(request)
        if request["messages"][-1]["role"] == "tool":
            yield "4 °C"
            return
        yield {"type": "reasoning.delta", "text": "Hm"}
        yield {"type": "tool.call", "call_id": "c1", "tool_call": {"name": "weather", "input": {"city": "Oslo"}}}

    gateway = await serve(net, function)
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    response = await gateway.chat(stream=False, tools=[tool])
    [choice] = response.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
    result = {"role": "tool", "tool_call_id": "c1", "content": "4"}
    body = {"model": "m", "messages": [*MESSAGES, choice["message"], result], "tools": [tool]}
    again = await gateway.ask("POST", "/v1/chat/completions", body)
    assert again.json["choices"][0]["message"]["content"] == "4 °C"
    assert asked[0]["tools"][0]["name"] == "weather"
    assert asked[1]["messages"][1]["content"][-1]["input"] == {"city": "Oslo"}


# ---- durable streams and ends ----------------------------------------------------------------------------------------


@on_both_loops
async def test_a_durable_stream_outlives_its_client_and_is_followed(net: Net, serve: Serve) -> None:
    model = Model()
    gateway = await serve(net, model)
    client, response = await gateway.stream(DURABLE, accept="text/event-stream")
    model.go_on()
    await response.until(b"One ")
    stream_id = response.headers["x-gai-stream-id"]
    client.close()
    model.end()
    rest = await gateway.ask("GET", f"/api/v1/streams/{stream_id}", headers={"last-event-id": f"{stream_id}.2"})
    assert rest.text == "two thréé"
    whole = await gateway.ask("GET", f"/api/v1/streams/{stream_id}")
    assert whole.text == "".join(WORDS)
    assert whole.types[-1] == "done"
    assert len(model.asked) == model.closed == 1


@on_both_loops
async def test_a_cancelled_stream_closes_the_function(net: Net, serve: Serve) -> None:
    model = Model()
    gateway = await serve(net, model)
    _, response = await gateway.stream(DURABLE, accept="text/event-stream")
    model.go_on()
    await response.until(b"One ")
    await gateway.ask("DELETE", f"/api/v1/streams/{response.headers['x-gai-stream-id']}")
    await response.rest()
    assert response.events[-2]["finish_reason"] == "cancelled"
    await until(lambda: model.closed == 1)


@on_both_loops
async def test_a_client_that_leaves_closes_the_function(net: Net, serve: Serve) -> None:
    model = Model()
    gateway = await serve(net, model)
    client, response = await gateway.stream(ASK, accept="text/event-stream")
    model.go_on()
    await response.until(b"One ")
    client.reset()
    await until(lambda: model.closed == 1)
    await until(lambda: gateway.streams == 0)


@on_uvloop
async def test_a_client_that_leaves_ends_a_generator_that_blocks_in_its_thread(net: Net, serve: Serve) -> None:
    go_on, closed = threading.Event(), threading.Event()

    def function(request: Any) -> Iterator[str]:
        try:
            yield "One "
            go_on.wait(60)
            yield "two "
        finally:
            closed.set()

    gateway = await serve(net, function)
    client, response = await gateway.stream(ASK, accept="text/event-stream")
    await response.until(b"One ")
    client.reset()
    await until(lambda: gateway.streams == 0)
    assert not closed.is_set()
    go_on.set()
    await until(closed.is_set)


@on_steady_loop
async def test_a_generator_that_blocks_in_its_thread_keeps_its_place_until_it_returns(net: Net, serve: Serve) -> None:
    go_on = threading.Event()

    def function(request: Any) -> Iterator[str]:
        yield "One "
        go_on.wait(60)
        yield "two "

    gateway = await serve(net, function, more="max_connections = 1\npool_wait = 0.1\nbreaker = false")
    client, response = await gateway.stream(ASK, accept="text/event-stream")
    await response.until(b"One ")
    client.reset()
    await until(lambda: gateway.streams == 0)
    assert (await gateway.chat(stream=False)).status == 503

    async def answers() -> bool:
        return bool((await gateway.chat(stream=False)).status == 200)

    go_on.set()
    await until_answered(answers)
    net.warned("max_connections")


@on_uvloop
async def test_a_slow_client_holds_the_function_back(net: Net, serve: Serve) -> None:
    said = 0

    async def function(request: Any) -> AsyncIterator[str]:
        nonlocal said
        for _ in range(10_000):
            said += 1
            yield "x" * 1000

    gateway = await serve(net, function)
    client = await gateway.connect(receive_buffer=4096)
    client.request("POST", NATIVE, ASK, {"accept": "text/event-stream"})
    response = await client.response()
    client.pause()
    seen = -1
    while seen != said:
        seen = said
        await asyncio.sleep(0.1)
    assert said < 10_000
    client.resume()
    await response.rest()
    assert len(response.text) == 10_000_000


@on_both_loops
@pytest.mark.parametrize("is_durable", [False, True])
async def test_an_exception_amid_the_answer_is_internal_without_its_text(
    net: Net, serve: Serve, is_durable: bool
) -> None:
    async def function(request: Any) -> AsyncIterator[str]:
        yield "One "
        raise KeyError("sk-secret")

    gateway = await serve(net, function)
    response = await gateway.ask("POST", NATIVE, DURABLE if is_durable else ASK, {"accept": "text/event-stream"})
    assert response.text == "One "
    error = response.events[-2]["error"]
    assert (error["code"], error["reason"], error["phase"]) == ("internal", "function", "mid_stream")
    assert b"sk-secret" not in response.body
    assert net.warned(f"the function {NAME}:answer has failed") == 1


@on_uvloop
async def test_one_that_fails_at_once_is_left_for_another_model(net: Net, serve: Serve) -> None:
    calls = 0

    async def function(request: Any) -> AsyncIterator[str]:
        nonlocal calls
        calls += 1
        if request["model"] == "m":
            raise KeyError("sk-secret")
        yield "another"

    rest = 'fallback = ["other"]\n[[model]]\nname = "other"\nupstream = "own"\n'
    gateway = await serve(net, function, more="breaker = false", rest=rest)
    response = await gateway.ask("POST", NATIVE, ASK, {"accept": "text/event-stream"})
    assert response.text == "another"
    assert calls == 2
    assert net.warned(f"the function {NAME}:answer has failed") == 1


@on_uvloop
async def test_without_another_model_the_response_is_a_500(net: Net, serve: Serve) -> None:
    def function(request: Any) -> Iterator[str]:
        raise KeyError("sk-secret")

    gateway = await serve(net, function)
    response = await gateway.chat(stream=False)
    assert response.status == 500
    assert b"sk-secret" not in response.body
    assert net.warned(f"the function {NAME}:answer has failed") == 1


@on_steady_loop
async def test_one_that_never_says_anything_is_late(net: Net, serve: Serve) -> None:
    model = Model()
    gateway = await serve(net, model, more="first_event_timeout = 0.1")
    response = await gateway.chat(stream=False)
    assert (response.status, response.json["error"]["code"]) == (504, "timeout")
    await until(lambda: model.closed == 1)
    assert net.warned("first_event_timeout") <= 1


@on_steady_loop
async def test_calls_above_max_connections_are_refused_or_wait(net: Net, serve: Serve) -> None:
    model = Model()
    gateway = await serve(net, model, more="max_connections = 1\npool_wait = 0.1\nbreaker = false")
    _, first = await gateway.stream(ASK, accept="text/event-stream")
    model.go_on()
    await first.until(b"One ")
    metrics = await gateway.ask("GET", "/metrics")
    assert b'gai_fast_upstream_connections{upstream="own"} 1' in metrics.body
    refused = await gateway.chat(stream=False)
    assert refused.status == 503
    assert b"max_connections = 1" in refused.body
    model.end()
    assert (await first.rest()).text == "".join(WORDS)
    net.warned("max_connections")


@on_steady_loop
async def test_forked_workers_share_max_connections(net: Net, tmp_path: Path) -> None:
    """Each call begins with a connection to this test, and ends with it."""
    calls: list[tuple[bytes, asyncio.StreamWriter]] = []

    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append((await reader.readline(), writer))

    listening = await asyncio.start_server(called, "127.0.0.1", 0)
    (tmp_path / "forked_79.py").write_text(FORKED % listening.sockets[0].getsockname()[1])
    (tmp_path / "gai-fast.toml").write_text(
        f'[server]\nport = 0\n{MINE}python = "forked_79:f"\nmax_connections = 3\npool_wait = 60\n'
        '[[model]]\nname = "m"\nupstream = "own"\n'
    )
    async with listening, serving(net, tmp_path, "--workers", "2") as server:
        answers = [asyncio.create_task(server.ask("POST", NATIVE, ASK)) for _ in range(8)]
        workers = set()
        for ended in range(8):
            await until(lambda: len(calls) == min(3 + ended, 8))  # noqa: B023  # waited for in its own turn
            assert (await server.ask("GET", "/healthz")).status == 200
            worker, writer = calls[ended]
            assert len(calls) == min(3 + ended, 8)
            workers.add(worker)
            writer.close()
        assert {answer.text for answer in await asyncio.gather(*answers)} == {"Hi"}
        assert len(workers) == 2


@pytest.mark.parametrize("workers", ["1", "2"])
@on_steady_loop
async def test_a_function_that_ignores_its_end_does_not_keep_the_server(net: Net, tmp_path: Path, workers: str) -> None:
    """After SIGTERM the end of the loop waited for it for ever. One that interrupts ended the server."""
    (tmp_path / "stubborn_80.py").write_text(STUBBORN)
    (tmp_path / "gai-fast.toml").write_text(
        f'[server]\nport = 0\ngrace = 1\n{MINE}python = "stubborn_80:f"\nbreaker = false\n'
        '[[model]]\nname = "m"\nupstream = "own"\n'
    )
    async with serving(net, tmp_path, "--workers", workers) as server:
        for _ in range(4):
            failed = await server.ask("POST", NATIVE, {**ASK, "query": "interrupt"})
            assert failed.error["reason"] == "function"
        client = await server.connect()
        client.request("POST", NATIVE, ASK)
        await client.response()
        client.close()
        server.signal()
        async with asyncio.timeout(1 + LIMITS.function_end + SECONDS):
            assert await server.process.wait() == 0


STUBBORN = """
import asyncio

async def f(request):
    if "interrupt" in str(request):
        raise KeyboardInterrupt
    yield "Hi"
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
"""

FORKED = """
import asyncio, os

async def f(request):
    reader, writer = await asyncio.open_connection("127.0.0.1", %d)
    writer.write(b"%%d\\n" %% os.getpid())
    await reader.read()
    writer.close()
    yield "Hi"
"""


@on_uvloop
async def test_hundreds_at_once(net: Net, serve: Serve) -> None:
    async def function(request: Any) -> AsyncIterator[str]:
        for word in WORDS:
            await asyncio.sleep(0)
            yield word

    gateway = await serve(net, function)
    responses = await asyncio.gather(*[gateway.ask("POST", NATIVE, ASK) for _ in range(200)])
    assert {response.text for response in responses} == {"".join(WORDS)}


# ---- the configuration -----------------------------------------------------------------------------------------------

MINE = '[[upstream]]\nname = "own"\nprovider = "python"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINE, "gai-fast.toml:1: `python` is missing in [[upstream]]: the function that answers"),
        (f'{MINE}python = "answer"', 'gai-fast.toml:4: `python` in [[upstream]] must be "module:function"'),
        (
            f'{MINE}python = "no_such_78:f"',
            "`python` in [[upstream]] names the module no_such_78, which",
        ),
        (f'{MINE}python = "broken_78:f"', "broken_78, which cannot be imported: ZeroDivisionError: division by zero"),
        (f'{MINE}python = "whole_78:other"', "names other, which whole_78 does not have; correct the name"),
        (f'{MINE}python = "whole_78:VALUE"', "names VALUE of whole_78, which is no function but int"),
        (
            f'{MINE}python = "whole_78:f"\nbase_url = "http://127.0.0.1:1"',
            ":5: `base_url` in [[upstream]]",
        ),
        (
            f'{MINE}python = "whole_78:f"\napi_key = "env:K"',
            "`api_key` in [[upstream]] is of a server, and",
        ),
        (f'{MINE}python = "whole_78:f"\nlane = ["/v1/x"]', "`lane` in [[upstream]] is of a server"),
        (
            '[[upstream]]\nname = "own"\nprovider = "openai"\napi_key = "env:K"\npython = "whole_78:f"',
            "`python` in [[upstream]] names a function, which openai does not call",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(folder: Path, text: str, words: str) -> None:
    (folder / "broken_78.py").write_text("1 / 0")
    (folder / "whole_78.py").write_text("VALUE = 1\ndef f(request): return []")
    file = folder / "gai-fast.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(file, environ={"K": "k"})
    assert words in str(refused.value)


def test_check_and_doctor_import_it_and_ask_nobody(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "gai_fast")  # restored at the end: `--probe` changes it
    (folder / "whole_78.py").write_text("def f(request): yield 'Hi'")
    file = folder / "gai-fast.toml"
    file.write_text(f'{MINE}python = "whole_78:f"\n[[model]]\nname = "m"\nupstream = "own"')
    for arguments, words in (
        (["check"], "config OK (1 upstream, 1 model"),
        (["check", "--probe"], "own  ok"),
        (["doctor"], "whole_78:f can be imported"),
        (["models"], "m of own"),
        (["config", "show"], 'python = "whole_78:f"'),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "-c", str(file)], prog_name="gai-fast")
        assert ended.value.code in (0, 1 if arguments == ["doctor"] else 0)  # the machine may have faults
        assert words in capsys.readouterr().out
    file.write_text(f'{MINE}python = "whole_78:gone"')
    with pytest.raises(SystemExit) as ended:
        main(["check", "-c", str(file)], prog_name="gai-fast")
    assert ended.value.code == 2
    assert "gai-fast.toml:4: `python` in [[upstream]] names gone" in capsys.readouterr().err


def test_a_reload_keeps_the_old_configuration_if_it_cannot_be_imported(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "whole_78.py").write_text("def f(request): yield 'Hi'")
    file = folder / "gai-fast.toml"
    file.write_text(f'{MINE}python = "whole_78:f"')
    settings = load(file, environ={})
    reload = Reload(settings, lambda: load(file, environ={}), is_open=False)
    file.write_text(f'{MINE}python = "no_such_78:f"')
    with caplog.at_level(logging.ERROR):
        assert reload().settings is None
    assert reload.settings is settings
    assert "no_such_78" in caplog.text
    file.write_text(f'{MINE}python = "whole_78:f"\nmax_connections = 3')
    new = reload().settings
    assert new is not None
    assert from_bytes(to_bytes(new)).upstreams["own"].function == settings.upstreams["own"].function
