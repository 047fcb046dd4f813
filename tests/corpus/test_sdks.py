"""The official Python SDKs read every recording from a running gateway: straight against through, as `test_clients.py`.

Their decoders of SSE, their models and their accumulators are used without a connection. Where the upstream speaks the
client's dialect, straight is what the SDK makes of the recorded bytes, be it an exception.
"""

from __future__ import annotations

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
from tests.readers import STOP_REASONS, Told, count_chat, count_messages, count_response, response_end

pytestmark = [
    pytest.mark.timeout(SECONDS),
    pytest.mark.usefixtures("judged"),
    # The SDKs serialize an item that they have read once, with a warning for each type of item that it is not.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]


def known_by_chat(body: bytes) -> Told:
    """The end state of `ChatCompletionStream`."""
    told, state = Told(), ChatCompletionStreamState()
    for sse in openai._streaming.SSEDecoder().iter_bytes(iter([body])):
        if sse.data.startswith("[DONE]"):
            break
        data = sse.json()
        if data.get("error"):
            told.error = data["error"]["message"]
            break
        state.handle_chunk(construct_type(type_=ChatCompletionChunk, value=data))
    completion = state.current_completion_snapshot
    choice = completion.choices[0]
    told.text, told.refusal = choice.message.content or "", choice.message.refusal or ""
    told.reasoning = getattr(choice.message, "reasoning_content", None) or ""
    for call in choice.message.tool_calls or ():
        told.calls[call.id] = [call.function.name, arguments_of(call.function.arguments)]
    aside = getattr(completion, "x_gai", {})
    told.finish_reason = aside.get("finish_reason") or choice.finish_reason
    if completion.usage:
        count_chat(told, completion.usage.model_dump())
    return told


def known_by_messages(body: bytes) -> Told:
    """The end state of `MessageStream`."""
    told, message, buffers, aside = Told(), None, dict[int, bytes](), dict[str, Any]()
    for sse in anthropic._streaming.SSEDecoder().iter_bytes(iter([body])):
        data = sse.json()
        if sse.event == "error":
            told.error = data["error"]["message"]
            break
        aside = data.get("x_gai", aside)
        if sse.event != "ping":
            event: Any = anthropic_type(type_=RawMessageStreamEvent, value=data)
            message = accumulate_event(event=event, json_bufs=buffers, current_snapshot=message)
    assert message is not None
    for block in message.content:
        told.text += getattr(block, "text", "")
        told.reasoning += getattr(block, "thinking", "")
        if block.type == "tool_use":
            told.calls[block.id] = [block.name, block.input]
    if told.error is None:
        told.finish_reason = aside.get("finish_reason") or STOP_REASONS[message.stop_reason or ""]
        count_messages(told, message.usage.model_dump(exclude_none=True))
    return told


def known_by_responses(body: bytes) -> Told:
    """The end state of `ResponseStream`."""
    told, state = Told(), ResponseStreamState(input_tools=omit, text_format=omit)
    response: Any = None
    for sse in openai._streaming.SSEDecoder().iter_bytes(iter([body])):
        event: Any = construct_type(type_=ResponseStreamEvent, value=sse.json())
        state.handle_event(event)
        response = getattr(event, "response", response)
    assert response is not None
    if response.error:
        told.error = response.error.message
    for item in response.output:
        if item.type == "message":
            for part in item.content:
                told.text += getattr(part, "text", "")
                told.refusal += getattr(part, "refusal", "")
        elif item.type == "reasoning":
            told.reasoning += "".join(part.text for part in [*item.summary, *(item.content or ())])
        elif item.type == "function_call":
            told.calls[item.call_id] = [item.name, arguments_of(item.arguments)]
    count_response(told, response.usage.model_dump() if response.usage else {})
    told.finish_reason = None if told.error else response_end(told, response.model_dump(exclude_none=True))
    return told


SDKS: Final[dict[str, Callable[[bytes], Told]]] = {
    "openai": known_by_chat,
    "responses": known_by_responses,
    "anthropic": known_by_messages,
}


def outcome(read: Callable[[bytes], Told], body: bytes) -> Any:
    """A body as an SDK reads it, or the SDK's exception."""
    try:
        return read(body)
    except Exception as problem:  # noqa: BLE001  # the upstream's bytes are not ours, and neither is the SDK
        return type(problem), str(problem)


def differences(name: str) -> Iterator[tuple[str, str]]:
    """The recordings of which an SDK does not know what it must, each with the difference."""
    for recording, response in answers(name):
        body = bytes(response.body)
        try:
            if response.status != 200:  # `integration/` has the SDKs' exceptions
                check_refused(name, recording, response)
            elif passing(name, name_of(recording)):
                straight, through = outcome(SDKS[name], recording.body), outcome(SDKS[name], body)
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
