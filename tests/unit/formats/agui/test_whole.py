"""`gai_fast/formats/agui/whole.py`: one run."""

from __future__ import annotations

import json

from gai_fast.formats.agui.format import AGUIFormat
from gai_fast.formats.agui.stream import Run
from tests.unit.formats.every_event import EVERY_EVENT
from tests.unit.formats.streams import DONE, ERROR, NOT_DONE, START, STREAM_ID, context, encoded, finish, text

AGUI = AGUIFormat(Run("thread-1", "run-1"))


def test_the_whole_answer_is_messages_that_can_be_sent_back() -> None:
    answer = json.loads(encoded(AGUI.whole(context()), EVERY_EVENT))
    assert (answer["threadId"], answer["runId"]) == ("thread-1", "run-1")
    assert answer["result"]["finish_reason"] == "tool_calls"
    assert [cited.get("title") for cited in answer["result"]["citations"]] == ["A", "T"]
    seen = [
        "server_tool",
        "server_tool",
        "provider.block",
        "server_tool",
        "image",
        "audio.delta",
        "safety",
        "tool.result",
    ]
    assert [event["type"] for event in answer["result"]["events"]] == seen
    assert answer["usage"][0]["totalTokens"] == 30
    assert [(each["id"], each["role"]) for each in answer["newMessages"]] == [
        (f"{STREAM_ID}-1", "reasoning"),
        (f"{STREAM_ID}-2", "reasoning"),
        (f"{STREAM_ID}-3", "assistant"),
        (f"{STREAM_ID}-4", "tool"),
    ]
    assistant, result = answer["newMessages"][2:]
    assert (result["toolCallId"], result["content"]) == ("call_1", '{"degrees":4}')
    assert assistant["content"] == "Hi youmoreNo"
    assert assistant["toolCalls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
    body = {"threadId": "t", "runId": "r", "messages": answer["newMessages"]}
    request, lost = AGUI.parse_request(body)
    assert lost == []
    assert [part.__struct_config__.tag for part in request.messages[0].content] == [
        "reasoning",
        "reasoning",
        "text",
        "tool_call",
    ]
    assert request.messages[0].content[1].redacted
    assert request.messages[0].content[3].signature == "signed call"


def test_a_text_alone_has_no_calls_and_a_failed_answer_no_bytes() -> None:
    events = [START, text("Hi"), finish(), DONE]
    answer = json.loads(encoded(AGUI.whole(context()), events))
    assert answer["result"] == {"finish_reason": "stop"}
    [message] = answer["newMessages"]
    assert message == {"id": f"{STREAM_ID}-1", "role": "assistant", "content": "Hi"}
    assert encoded(AGUI.whole(context()), [START, text("Hi"), ERROR, NOT_DONE]) == b""
