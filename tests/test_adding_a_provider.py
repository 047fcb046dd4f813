"""Adding a provider takes its file and its line of registration: one is added here, and everything knows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest
import uvloop

import gai_fast
from gai_fast import providers
from gai_fast.cli import main
from gai_fast.config import load
from gai_fast.server.serving import start
from tests.docs.pages import blocks, read
from tests.integration.gateway import Gateway, Net, Peer, run

PAGE = read("docs/architecture/providers-and-formats.md")
[CLASS] = [block.text for block in blocks(PAGE) if block.language == "python"]
FILE = f"""'''Newcomer: the chat dialect, where a limit is called `full`.'''

from gai_fast.providers._chat import ChatAPI


{CLASS}"""
ANSWER = b'data: {"model":"n1","choices":[{"delta":{"content":"Hi"},"finish_reason":"full"}]}\n\ndata: [DONE]\n\n'


@pytest.fixture(autouse=True)
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The one file, and the one line."""
    (tmp_path / "newcomer_of_this_test.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(providers.PROVIDERS, "newcomer", "newcomer_of_this_test")
    yield
    providers.get_provider.cache_clear()


def test_the_library_reads_it() -> None:
    events = list(gai_fast.decode("newcomer", [ANSWER]))
    assert [event["type"] for event in events] == ["start", "text.delta", "finish", "done"]
    assert (events[0]["provider"], events[2]["finish_reason"]) == ("newcomer", "length")


def test_the_command_line_reads_it(tmp_path: Path) -> None:
    (tmp_path / "answer").write_bytes(ANSWER)
    told = click.testing.CliRunner().invoke(main, ["decode", "--provider", "newcomer", str(tmp_path / "answer")])
    assert told.exit_code == 0, told.output
    assert '"finish_reason":"length"' in told.output


def test_its_key_in_the_environment_configures_it() -> None:
    settings = load(None, environ={"NEWCOMER_API_KEY": "k"})
    assert settings.upstreams["newcomer"].base_url == "https://api.newcomer.example/v1"


def test_a_server_asks_it(tmp_path: Path) -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        assert peer.head.startswith(b"POST /v1/chat/completions ")
        await peer.answer("200 OK", ANSWER, "Content-Type: text/event-stream")

    async def scenario(net: Net) -> None:
        upstream = await net.upstream(answer)
        file = tmp_path / "gai-fast.toml"
        file.write_text(
            f'[server]\nport = 0\n[[upstream]]\nname = "n"\nprovider = "newcomer"\nbase_url = "{upstream.url}/v1"\n'
        )
        running = await start(load(file, environ={}))
        net.stack.push_async_callback(running.close)
        net.gateways.append(Gateway(net, running))
        response = await net.gateways[0].ask("POST", "/api/v1/stream", {"query": "Hi", "model": "n/n1"})
        assert response.types == ["start", "text.delta", "finish", "done"]

    run(uvloop.new_event_loop, scenario)


SOME = ("groq", "mistral", "deepseek", "perplexity", "openrouter")
"""Providers whose names have no other meaning."""


@pytest.mark.parametrize("name", SOME)
def test_one_that_stands_is_in_its_file_and_its_line_of_registration_alone(name: str) -> None:
    package = Path(gai_fast.__file__).parent
    code = {path: re.sub(r'(?s:""".*?""")|#.*', "", path.read_text()) for path in package.rglob("*.py")}
    told = {path.relative_to(package).as_posix() for path, text in code.items() if re.search(rf"\b{name}\b", text)}
    assert told == {f"providers/{name}.py", "providers/__init__.py"}
