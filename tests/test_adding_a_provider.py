"""Adding a provider takes its file and its line of registration: two are added here, and everything knows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest
import uvloop

import gai_fast
from gai_fast import providers
from gai_fast.cli import main
from gai_fast.config import load
from gai_fast.formats import get_format
from gai_fast.server.serving import start
from tests.docs.pages import blocks, read
from tests.integration.gateway import Gateway, Net, Peer, run
from tests.unit.formats.streams import context, encoded, objects_of

PAGE = read("docs/architecture/providers-and-formats.md")
[CLASS] = [block.text for block in blocks(PAGE) if block.language == "python"]
FILE = f"""'''Newcomer: the chat dialect, where a limit is called `full`.'''

from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.chat.rules import ChatRules


{CLASS}"""
OF_RESPONSES = """'''Newcomer with the Responses dialect.'''

from gai_fast.providers.responses.api import ResponsesAPI
from gai_fast.providers.responses.rules import responses_rules


class NewcomersResponses(ResponsesAPI):
    provider = "newcomer-responses"
    base_url = "https://api.newcomer.example/v1"
    key_variable = "NEWCOMERS_RESPONSES_API_KEY"
    rules = responses_rules("newcomer-responses")


APIS = {"": NewcomersResponses()}
"""
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2Vj"}
TEXT = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
ANSWER_OF_RESPONSES = b"".join(
    b"data: %b\n\n" % json.dumps(event).encode()
    for event in (
        {"type": "response.created", "response": {"id": "resp_1", "model": "n1"}},
        {"type": "response.output_item.done", "output_index": 0, "item": THOUGHT},
        {
            "type": "response.output_text.delta",
            "output_index": 1,
            "item_id": "msg_1",
            "content_index": 0,
            "delta": "Hi",
        },
        {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": [THOUGHT, TEXT]}},
    )
)
ANSWER = b'data: {"model":"n1","choices":[{"delta":{"content":"Hi"},"finish_reason":"full"}]}\n\ndata: [DONE]\n\n'


@pytest.fixture(autouse=True)
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Yields the one file, and the one line, of each."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, file in (("newcomer", FILE), ("newcomer-responses", OF_RESPONSES)):
        module = f"{name.replace('-', '_')}_of_this_test"
        (tmp_path / f"{module}.py").write_text(file)
        monkeypatch.setitem(providers.PROVIDERS, name, module)
    yield
    providers.get_provider.cache_clear()


def test_the_library_reads_it() -> None:
    events = list(gai_fast.decode("newcomer", [ANSWER]))
    assert [event["type"] for event in events] == ["start", "text.delta", "finish", "done"]
    assert (events[0]["provider"], events[2]["finish_reason"]) == ("newcomer", "length")


def test_the_command_line_reads_it(tmp_path: Path) -> None:
    (tmp_path / "answer").write_bytes(ANSWER)
    result = click.testing.CliRunner().invoke(main, ["decode", "--provider", "newcomer", str(tmp_path / "answer")])
    assert result.exit_code == 0, result.output
    assert '"finish_reason":"length"' in result.output


def test_its_key_in_the_environment_configures_it() -> None:
    settings = load(None, environ={"NEWCOMER_API_KEY": "k"})
    assert settings.upstreams["newcomer"].base_url == "https://api.newcomer.example/v1"


def test_a_dialect_knows_whose_reasoning_is_encrypted() -> None:
    """Its own history comes back to it: the author stands in chat, and the Responses dialect does not seal it."""
    events = list(gai_fast.decode("newcomer-responses", [ANSWER_OF_RESPONSES]))
    chat = encoded(get_format("openai").encoder("sse", context()), events)
    detail = {"type": "reasoning.encrypted", "data": "c2Vj", "format": "newcomer-responses-responses-v1", "index": 0}
    assert [one["reasoning_details"] for one in deltas(chat) if "reasoning_details" in one] == [[detail]]
    assert b'"encrypted_content":"c2Vj"' in encoded(get_format("responses").encoder("sse", context()), events)


def deltas(stream: bytes) -> list[dict[str, Any]]:
    """Returns the deltas of a chat stream."""
    return [choice["delta"] for chunk in objects_of(stream) for choice in chunk.get("choices", ())]


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
    result = {path.relative_to(package).as_posix() for path, text in code.items() if re.search(rf"\b{name}\b", text)}
    assert result == {f"providers/{name}.py", "providers/__init__.py"}
