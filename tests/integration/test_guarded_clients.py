"""What clients of other makers read of a guard: a mask, a flag and a stop, streamed and whole, and a refused request.

The guards and models are those of a configuration's file; the upstreams speak each dialect.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import anthropic
import openai
import pytest

from tests.integration import javascript, test_anthropic_sdk, test_openai_sdk
from tests.integration.configured import ACTIONS, ASKED, SAID, UNASKED, UPSTREAMS, guarded, model_of, told
from tests.integration.gateway import Net, on_uvloop
from tests.integration.talking import THOUGHT

CASES = [(upstream, action) for upstream in UPSTREAMS for action in ACTIONS]
MODEL = model_of("chat", "mask")


def asked(text: str = ASKED) -> Any:
    return [{"role": "user", "content": text}]


def check_refused(status: int, message: str, answer: Any) -> None:
    """Checks an exception of a request that a guard stops."""
    assert status == 400
    assert "the guard 'door' does not let this request through" in message
    assert UNASKED not in json.dumps(answer)


async def final_of(stream: Any) -> Any:
    async with stream as events:
        return await events.get_final_completion()


@on_uvloop
async def test_openais_client_reads_chat_completions(net: Net, tmp_path: Path) -> None:
    gateway, talker = await guarded(net, tmp_path)
    completions: Any = test_openai_sdk.client_of(net, gateway).chat.completions
    for upstream, action in CASES:
        model, end = model_of(upstream, action), "content_filter" if action == "stop" else "stop"
        whole = await completions.create(model=model, messages=asked())
        (choice,) = whole.choices
        assert (choice.message.content, choice.finish_reason) == (SAID[action], end), model
        assert whole.to_dict()["x_gai"]["events"] == [{"type": "safety", "safety": told(action)}]
        pieces = [piece async for piece in await completions.create(model=model, messages=asked(), stream=True)]
        choices = [choice for piece in pieces for choice in piece.choices]
        assert "".join(each.delta.content or "" for each in choices) == SAID[action], model
        assert [each.finish_reason for each in choices if each.finish_reason] == [end]
        notes: list[Any] = [piece.to_dict().get("x_gai", {}) for piece in pieces]
        assert [each["safety"] for each in notes if "safety" in each] == [told(action)]
        # Its helpers have an exception for an answer that was filtered.
        parsed = completions.parse(model=model, messages=asked())
        stream = completions.stream(model=model, messages=asked())
        for final in (parsed, final_of(stream)):
            if action == "stop":
                with pytest.raises(openai.ContentFilterFinishReasonError):
                    await final
            else:
                assert (await final).choices[0].message.content == SAID[action]
    before = len(talker.asked)
    for streams in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await completions.create(model=MODEL, messages=asked(UNASKED), stream=streams)
        check_refused(caught.value.status_code, caught.value.message, caught.value.body)
        assert caught.value.code == "content_filtered"
    assert len(talker.asked) == before


@on_uvloop
async def test_openais_client_reads_responses(net: Net, tmp_path: Path) -> None:
    gateway, talker = await guarded(net, tmp_path)
    responses: Any = test_openai_sdk.client_of(net, gateway).responses
    for upstream, action in CASES:
        model, is_stop = model_of(upstream, action), action == "stop"
        whole = await responses.create(model=model, input=ASKED)
        events = [event async for event in await responses.create(model=model, input=ASKED, stream=True)]
        assert events[-1].type == ("response.incomplete" if is_stop else "response.completed"), model
        for response in (whole, events[-1].response):
            assert response.output_text == SAID[action], model
            assert response.status == ("incomplete" if is_stop else "completed")
            reason = None if response.incomplete_details is None else response.incomplete_details.reason
            assert reason == ("content_filter" if is_stop else None)
            assert response.output[-1].status == response.status
        deltas = [each.delta for each in events if each.type == "response.output_text.delta"]
        assert "".join(deltas) == SAID[action]
        # What is kept is what was let through.
        kept = await responses.retrieve(whole.id)
        assert (kept.output_text, kept.incomplete_details) == (SAID[action], whole.incomplete_details)
    before = len(talker.asked)
    for streams in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await responses.create(model=MODEL, input=UNASKED, stream=streams)
        check_refused(caught.value.status_code, caught.value.message, caught.value.body)
    assert len(talker.asked) == before


@on_uvloop
async def test_anthropics_client_reads_messages(net: Net, tmp_path: Path) -> None:
    gateway, talker = await guarded(net, tmp_path)
    messages: Any = test_anthropic_sdk.client_of(net, gateway).messages
    for upstream, action in CASES:
        ask: Any = {"model": model_of(upstream, action), "messages": asked(), "max_tokens": 99}
        whole = await messages.create(**ask)
        async with messages.stream(**ask) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert text == SAID[action], ask["model"]
        for message in (whole, final):
            assert [block.type for block in message.content] == ["thinking", "text"]
            assert (message.content[0].thinking, message.content[1].text) == (THOUGHT, SAID[action])
            assert message.stop_reason == ("refusal" if action == "stop" else "end_turn"), ask["model"]
            if action == "stop":
                assert message.stop_details is not None
                assert message.stop_details.explanation == "name"
        assert whole.to_dict()["x_gai"]["events"] == [{"type": "safety", "safety": told(action)}]
    before = len(talker.asked)
    for streams in (False, True):
        with pytest.raises(anthropic.BadRequestError) as caught:
            await messages.create(model=MODEL, messages=asked(UNASKED), max_tokens=9, stream=streams)
        check_refused(caught.value.status_code, caught.value.message, caught.value.body)
    with pytest.raises(anthropic.BadRequestError):
        await messages.count_tokens(model=MODEL, messages=asked(UNASKED))
    assert len(talker.asked) == before


@on_uvloop
async def test_gai_fast_js_reads_events(net: Net, tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> None:
    if javascript.NODE is None:
        unavailable("node")
    gateway, talker = await guarded(net, tmp_path)
    cases = [(transport, *case) for transport in javascript.TRANSPORTS for case in CASES]
    commands = [
        javascript.command(
            gateway.url, transport=transport, request={"model": model_of(upstream, action), "query": ASKED}
        )
        for transport, upstream, action in cases
    ]
    for case, loop in zip(cases, await javascript.run_each(*commands), strict=True):
        action = case[-1]
        assert (loop.text, loop.thrown) == (SAID[action], None), case
        assert [each["safety"] for each in loop.events if each["type"] == "safety"] == [told(action)]
        finish = loop.events[-2]
        ends = (finish["type"], finish["finish_reason"], finish.get("reason"), loop.events[-1])
        done = {"type": "done", "finished": True}
        assert ends == ("finish", *(("content_filter", "guard") if action == "stop" else ("stop", None)), done)
    before = len(talker.asked)
    refusals = [
        javascript.command(gateway.url, transport=transport, request={"model": MODEL, "query": UNASKED})
        for transport in javascript.TRANSPORTS
    ]
    for loop in await javascript.run_each(*refusals):
        error = loop.error
        told_of = (error["code"], error["reason"], error["temporary"], error["guard"])
        assert told_of == ("content_filtered", "guard", False, "door")
        check_refused(error.get("status", 400), error["message"], error)
    assert len(talker.asked) == before
