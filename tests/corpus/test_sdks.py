"""The official Python SDKs read every recording from a running gateway: straight against through, as `test_clients.py`.

Their decoders of SSE, their models and their accumulators are used without a connection. Where the upstream speaks the
client's dialect, straight is what the SDK makes of the recorded bytes, be it an exception.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final

import anthropic._streaming
import openai._streaming
import pytest
from anthropic._models import construct_type as anthropic_type
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.chat._completions import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent

from tests.corpus.clients import answers, check_known, check_refused
from tests.corpus.recordings import SECONDS, name_of, recordings
from tests.corpus.served import Wrong, decoded_here, wrong_unless
from tests.corpus.summary import note_equal
from tests.corpus.test_formats import arguments_of, passing
from tests.readers import STOP_REASONS, TOO_LONG, ClientState, count_chat, count_messages, count_response, response_end

pytestmark = [
    pytest.mark.timeout(SECONDS),
    pytest.mark.usefixtures("judged"),
    # The SDKs serialize an item that they have read once, with a warning for each type of item that it is not.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]


def known_by_chat(body: bytes) -> ClientState:
    """Returns the end state of `ChatCompletionStream`."""
    client, state = ClientState(), ChatCompletionStreamState()
    for sse in openai._streaming.SSEDecoder().iter_bytes(iter([body])):
        if sse.data.startswith("[DONE]"):
            break
        data = sse.json()
        if data.get("error"):
            client.error = data["error"]["message"]
            break
        state.handle_chunk(construct_type(type_=ChatCompletionChunk, value=data))
    completion = state.current_completion_snapshot
    choice = completion.choices[0]
    client.text, client.refusal = choice.message.content or "", choice.message.refusal or ""
    client.reasoning = getattr(choice.message, "reasoning_content", None) or ""
    for call in choice.message.tool_calls or ():
        client.calls[call.id] = [call.function.name, arguments_of(call.function.arguments)]
    aside = getattr(completion, "x_gai", {})
    client.finish_reason = aside.get("finish_reason") or choice.finish_reason
    if completion.usage:
        count_chat(client, completion.usage.model_dump())
    return client


def known_by_messages(body: bytes) -> ClientState:
    """Returns the end state of `MessageStream`."""
    client, message, buffers, aside = ClientState(), None, dict[int, bytes](), dict[str, Any]()
    for sse in anthropic._streaming.SSEDecoder().iter_bytes(iter([body])):
        data = sse.json()
        if sse.event == "error":
            client.error = data["error"]["message"].removeprefix(TOO_LONG)
            break
        aside = data.get("x_gai", aside)
        if sse.event != "ping":
            event: Any = anthropic_type(type_=RawMessageStreamEvent, value=data)
            message = accumulate_event(event=event, json_bufs=buffers, current_snapshot=message)
    assert message is not None
    for block in message.content:
        client.text += getattr(block, "text", "")
        client.reasoning += getattr(block, "thinking", "")
        if block.type == "tool_use":
            client.calls[block.id] = [block.name, block.input]
    if client.error is None:
        client.finish_reason = aside.get("finish_reason") or STOP_REASONS[message.stop_reason or ""]
        count_messages(client, message.usage.model_dump(exclude_none=True))
    return client


def known_by_responses(body: bytes) -> ClientState:
    """Returns the end state of `ResponseStream`."""
    client, state = ClientState(), ResponseStreamState(input_tools=omit, text_format=omit)
    response: Any = None
    for sse in openai._streaming.SSEDecoder().iter_bytes(iter([body])):
        event: Any = construct_type(type_=ResponseStreamEvent, value=sse.json())
        state.handle_event(event)
        response = getattr(event, "response", response)
    assert response is not None
    if response.error:
        client.error = response.error.message
    for item in response.output:
        if item.type == "message":
            for part in item.content:
                client.text += getattr(part, "text", "")
                client.refusal += getattr(part, "refusal", "")
        elif item.type == "reasoning":
            client.reasoning += "".join(part.text for part in [*item.summary, *(item.content or ())])
        elif item.type == "function_call":
            client.calls[item.call_id] = [item.name, arguments_of(item.arguments)]
    count_response(client, response.usage.model_dump() if response.usage else {})
    client.finish_reason = None if client.error else response_end(client, response.model_dump(exclude_none=True))
    return client


SDKS: Final[dict[str, Callable[[bytes], ClientState]]] = {
    "openai": known_by_chat,
    "responses": known_by_responses,
    "anthropic": known_by_messages,
}


def outcome(read: Callable[[bytes], ClientState], body: bytes) -> Any:
    """Returns a body as an SDK reads it, or the SDK's exception."""
    try:
        return read(body)
    except Exception as problem:  # noqa: BLE001  # the upstream's bytes are not ours, and neither is the SDK
        return type(problem), str(problem)


def differences(name: str) -> Iterator[tuple[str, str]]:
    """Yields the recordings of which an SDK does not know what it must, each with the difference."""
    for recording, response in answers(name):
        body = bytes(response.body)
        try:
            if response.status != 200:  # `integration/` has the SDKs' exceptions
                check_refused(name, recording, response)
            elif passing(name, name_of(recording)):
                straight, through = outcome(SDKS[name], recording.body), outcome(SDKS[name], body)
                if isinstance(straight, ClientState) and not straight.usage and isinstance(through, ClientState):
                    through = dataclasses.replace(through, usage={})  # a client that asked gets an estimate
                wrong_unless(through == straight, through, "and should be", straight)
            else:
                check_known(SDKS[name](body), decoded_here(recording), name)
        except Wrong as difference:
            yield recording.name, str(difference)


@pytest.mark.parametrize("name", SDKS)
def test_the_sdk_knows_what_the_recording_tells(name: str) -> None:
    wrong = dict(differences(name))
    compared = len(answers(name))
    note_equal(f"{name}, read by its SDK", compared - len(wrong), compared)
    assert not wrong
    assert compared == len(recordings()) > 0
