"""`gai_fast/formats/vercel/whole.py`: one `UIMessage`."""

from __future__ import annotations

import json

from gai_fast.formats import get_format
from tests.unit.formats.every_event import EVERY_EVENT
from tests.unit.formats.streams import ERROR, NOT_DONE, START, STREAM_ID, USAGE, context, encoded, text

VERCEL = get_format("vercel")

MESSAGE = {
    "id": f"msg-{STREAM_ID}",
    "role": "assistant",
    "metadata": {"usage": USAGE, "finish_reason": "tool_calls"},
    "parts": [
        {"type": "step-start"},
        {
            "type": "reasoning",
            "text": "Hm",
            "state": "done",
            "providerMetadata": {"gai": {"signature": "signed", "provider": "test"}},
        },
        {
            "type": "reasoning",
            "text": "",
            "state": "done",
            "providerMetadata": {"gai": {"signature": "opaque", "redacted": True, "provider": "test"}},
        },
        {"type": "text", "text": "Hi you", "state": "done"},
        {
            "type": "tool-web_search",
            "toolCallId": "s1",
            "state": "output-available",
            "input": {"q": "x"},
            "providerExecuted": True,
            "output": [1],
        },
        {"type": "data-provider-block", "data": {"provider": "demo", "block": {"type": "code_result", "id": "s2"}}},
        {
            "type": "tool-code",
            "toolCallId": "s2",
            "state": "output-error",
            "input": {},
            "providerExecuted": True,
            "errorText": '{"e":"x"}',
        },
        {"type": "file", "url": "data:image/png;base64,aGk=", "mediaType": "image/png"},
        {"type": "data-safety", "data": {"category": "violence", "action": "flagged"}},
        {"type": "text", "text": "more", "state": "done"},
        {
            "type": "tool-weather",
            "toolCallId": "call_1",
            "state": "output-available",
            "input": {"city": "Oslo"},
            "callProviderMetadata": {"gai": {"signature": "signed call", "provider": "test"}},
            "output": {"degrees": 4},
        },
        {"type": "data-tool-result", "data": {"call_id": "other", "tool_result": "x"}},
        {"type": "text", "text": "No", "state": "done"},
        {"type": "source-url", "sourceId": "source-1", "url": "https://a.example", "title": "A"},
        {"type": "source-document", "sourceId": "source-2", "mediaType": "text/plain", "title": "T"},
    ],
}
"""`EVERY_EVENT` as one message."""


def test_the_whole_answer_is_a_message_that_can_be_sent_back() -> None:
    message = json.loads(encoded(VERCEL.whole(context()), EVERY_EVENT))
    assert message == MESSAGE
    request, lost = VERCEL.parse_request({"id": "c", "messages": [message]})
    assert lost == []
    assert [part.__struct_config__.tag for part in request.messages[0].content] == [
        "reasoning",
        "reasoning",
        "text",
        "provider_block",
        "image",
        "text",
        "tool_call",
        "text",
    ]
    assert request.messages[1].content == '{"degrees":4}'


def test_a_failed_answer_has_no_bytes() -> None:
    assert encoded(VERCEL.whole(context()), [START, text("Hi"), ERROR, NOT_DONE]) == b""
