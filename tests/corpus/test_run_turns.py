"""Every recorded answer as a turn of a run: its calls are made as they were recorded, and the run has its end.

A model answers with the recording, and once it has the results with another recording of its API, which is a text. The
tools of all recordings are the gateway's: each is a web hook that journals what it gets.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest
import uvloop

from gai_fast.model.settings import ModelSettings, Secret, Settings, ToolSettings
from gai_fast.server.serving import start
from tests.corpus.recordings import RECORDED, judge, judge_module, recordings_of
from tests.corpus.served import ASKED, closed_after, decoded_here, settings_for, upstream_of, whole_answer
from tests.integration.gateway import Gateway, Net, Peer, Response, run

WITHOUT_TOOLS = {"openai-completions", "openai-compatible-completions", "ollama-generate", "perplexity"}
"""The APIs that have no tools of the caller's."""
RESULT = {"celsius": 4}
PATIENCE = 5
"""Seconds within which a run must end."""
CUT_OFF = ("length", "content_filter")
WAYS: dict[str, dict[str, Any]] = {"a stream": {}, "resumable": {"resumable": True}, "whole": {"stream": False}}
"""How a run is asked for: recordings without calls only as a stream."""
WITHOUT_CALLS = {"perplexity"}


class Model:
    """An upstream that answers the first request with one recording, and each later one with another."""

    def __init__(self) -> None:
        self.turns: list[Any] = []
        self.asked: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.asked.append(await peer.request())
            recording = self.turns[min(len(self.asked), len(self.turns)) - 1]
            answer = whole_answer(recording)
            for piece in judge_module().pieces(answer, "random:runs", recording.name):
                await peer.send(piece)
            if await closed_after(peer, answer):
                return


class Hook:
    """The web hook of all tools; journals name and arguments of each call."""

    def __init__(self) -> None:
        self.called: list[tuple[str, Any]] = []

    async def __call__(self, peer: Peer) -> None:
        body = json.dumps(RESULT).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        while True:
            asked = await peer.request()
            self.called.append((peer.head.split(b" ")[1].decode().rpartition("/")[2], json.loads(asked)))
            await peer.send(head + body)


def calls_of(events: list[Any]) -> list[Any]:
    """Returns the calls that an answer leaves to its caller."""
    return [event for event in events if event["type"] == "tool.call" and not event.get("provider_executed")]


def is_text(recording: Any) -> bool:
    """Returns whether a recording is an answer that ends well without a call."""
    if recording.status != 200:
        return False
    events = decoded_here(recording)
    return events[-2].get("finish_reason") == "stop" and not calls_of(events)


def is_turn(recording: Any) -> bool:
    """Returns whether a run may get an answer: its API has tools, and it has one choice, as runs ask for."""
    if upstream_of(recording) in WITHOUT_TOOLS:
        return False
    return not any(event.get("choice") for event in decoded_here(recording))


def with_tools(settings: Settings, names: set[str], url: str) -> Settings:
    """Returns a configuration whose models may use tools of these names."""
    stream = settings.stream
    upstreams = settings.upstreams
    models = {name: ModelSettings(name, each, ASKED, stream, tools=("*",)) for name, each in upstreams.items()}
    tools = tuple(ToolSettings(name, "", {"type": "object"}, Secret(f"{url}/{name}")) for name in sorted(names))
    return dataclasses.replace(settings, models=models, tools=tools)


async def problem_of(gateway: Gateway, model: Model, hook: Hook, recording: Any, way: str) -> str:
    """Returns what is wrong with the run of a recording; empty if nothing is."""
    model.asked.clear()
    hook.called.clear()
    body = {"query": "So?", "model": upstream_of(recording), **WAYS[way]}
    try:
        async with asyncio.timeout(PATIENCE):
            response = await gateway.ask("POST", "/api/v1/stream", body)
    except TimeoutError:
        return f"no end within {PATIENCE} s"
    if not response.ended:
        return "the response has no proper end"
    said = decoded_here(recording)
    if said[-2]["type"] == "error":
        has_failed = response.status != 200 or response.types[-2:] == ["error", "done"]
        return "" if has_failed else f"it ends with {response.types[-2:]}"
    if response.status != 200:
        return f"it is refused: {response.text}"
    steps, results = _end_of_whole(response.json) if way == "whole" else _end_of_stream(response)
    calls = calls_of(said)
    if len(results) != len(calls):
        return f"{len(calls)} calls have {len(results)} results"
    if steps != (2 if calls else 1) or len(model.asked) != steps:
        return f"{steps} steps and {len(model.asked)} requests for {len(calls)} calls"
    if said[-2]["finish_reason"] in CUT_OFF:
        return f"{hook.called} of a turn that was cut off" if hook.called else ""
    made = [(call["tool_call"]["name"], call["tool_call"]["input"]) for call in calls]
    wanted = [(name, given) for name, given in made if isinstance(given, dict)]
    if sorted(map(repr, hook.called)) != sorted(map(repr, wanted)):
        return f"called {hook.called} in place of {wanted}"
    failed = sum(result.get("is_error", False) for result in results)
    if failed != len(made) - len(wanted):
        return f"{failed} calls of {made} failed"
    if calls and model.asked[1].count(b"celsius") < len(wanted):
        return f"the next request has not all results: {model.asked[1].decode()}"
    return ""


def _end_of_stream(response: Response) -> tuple[int, list[Any]]:
    """Returns the number of turns of a run, and its results."""
    assert response.types[-2:] == ["finish", "done"], response.types[-2:]
    results = [event for event in response.events if event["type"] == "tool.result"]
    return len(response.events[-2]["steps"]), results


def _end_of_whole(answer: Any) -> tuple[int, list[Any]]:
    """Works as `_end_of_stream`, for a whole answer."""
    results = [message for message in answer["messages"] if message["role"] == "tool"]
    return sum(message["role"] == "assistant" for message in answer["messages"]), results


def problems(provider: str) -> tuple[int, dict[str, str]]:
    """Returns how many recordings of a provider had calls, and what is wrong with each run."""
    found: dict[str, str] = {}
    calling = 0

    async def scenario(net: Net) -> None:
        nonlocal calling
        model, hook = Model(), Hook()
        upstream, tools = await net.upstream(model), await net.upstream(hook)
        recordings = [each for each in recordings_of(provider) if is_turn(each)]
        names = {call["tool_call"]["name"] for each in recordings for call in calls_of(decoded_here(each))}
        running = await start(with_tools(settings_for(recordings, upstream.url), names, tools.url))
        net.stack.push_async_callback(running.close)
        gateway = Gateway(net, running)
        net.gateways.append(gateway)
        for recording in recordings:
            texts = [each for each in recordings if each.api == recording.api and is_text(each)]
            if not texts:
                continue
            model.turns = [recording, texts[0]]
            has_calls = bool(calls_of(decoded_here(recording)))
            calling += has_calls
            for way in WAYS if has_calls else [*WAYS][:1]:
                if problem := await problem_of(gateway, model, hook, recording, way):
                    found[f"{recording.name}, {way}"] = problem
        net.warned("refuses our")  # some recordings are of a refused key or account

    run(uvloop.new_event_loop, scenario)
    return calling, found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("provider", RECORDED)
def test_a_recorded_turn_has_its_calls_made_and_its_run_an_end(provider: str) -> None:
    judge()
    calling, wrong = problems(provider)
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    assert bool(calling) is (provider not in WITHOUT_CALLS)
