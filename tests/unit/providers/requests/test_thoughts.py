"""`gai_fast/providers/requests/thoughts.py`: requests without earlier reasoning."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.request import AssistantMessage, ProviderBlockPart, Request, ToolCallPart
from gai_fast.providers.requests.thoughts import refuses_signatures, without_thoughts

ASK = {"role": "user", "content": "?"}


def refusal(text: str, **details: Any) -> Error:
    return Error("invalid_request", text, provider="anthropic", details=details or None)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (refusal("messages.1.content.0: Invalid `signature` in `thinking` block"), True),
        (refusal("The encrypted content gAAA... could not be verified."), True),
        (refusal("It could not be verified.", code="invalid_encrypted_content"), True),
        (refusal("Corrupted thought signature."), True),
        (refusal("Function call is missing a thought_signature in functionCall parts"), False),
        (refusal("thinking.signature: Field required"), False),
        (refusal("temperature: too high"), False),
        (Error("invalid_request", "Invalid `signature`"), False),
        (Error("overloaded", "Invalid `signature`", provider="anthropic"), False),
    ],
)
def test_which_errors_are_about_a_signature(error: Error, is_one: bool) -> None:
    assert refuses_signatures(error) is is_one


def test_a_native_request_loses_reasoning_and_the_signatures_of_calls() -> None:
    call = {"type": "tool_call", "call_id": "c", "name": "f"}
    parts = [{"type": "reasoning", "text": "Hm", "signature": "s"}, {**call, "signature": "t"}]
    only = [{"type": "reasoning", "text": "Hm"}]
    given = [ASK, {"role": "assistant", "content": parts}, {"role": "assistant", "content": only}, ASK]
    sent, paths = without_thoughts(parse_request(encode_json({"messages": given})))
    assert isinstance(sent, Request)
    assert [message.content for message in sent.messages[::2]] == ["?", "?"]
    assert sent.messages[1] == AssistantMessage(content=[ToolCallPart(call_id="c", name="f")])
    assert paths == ["messages[1].content[0]", "messages[1].content[1].signature", "messages[2].content[0]"]


def test_a_body_of_each_dialect_loses_its_own() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat = {"role": "assistant", "content": None, "tool_calls": [{**call, "extra_content": {"google": {}}}, 5]}
    sent, paths = without_thoughts({"messages": [ASK, {**chat, "reasoning": "Hm", "reasoning_details": []}]})
    assert sent == {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [call, 5]}]}
    assert paths == ["messages[1].tool_calls[0].extra_content", "messages[1].reasoning"]

    thinking = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    given = [{"role": "assistant", "content": [thinking, use]}, {"role": "assistant", "content": [thinking]}]
    sent, paths = without_thoughts({"messages": [ASK, *given, 5]})
    assert sent == {"messages": [ASK, {"role": "assistant", "content": [use]}, 5]}
    assert paths == ["messages[1].content[0]", "messages[2].content[0]"]

    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    assert without_thoughts({"input": [ASK, reasoning, 5]}) == ({"input": [ASK, 5]}, ["input[1]"])


@pytest.mark.parametrize("body", [{"messages": 5}, {"input": "Hi"}, {}, {"messages": [[], {"role": "assistant"}]}])
def test_a_body_without_reasoning_stays(body: dict[str, Any]) -> None:
    assert without_thoughts(body) == (body, [])


def test_a_block_of_google_loses_its_signature_and_stays() -> None:
    block = {"executableCode": {"code": "x", "n": 10**30}, "thoughtSignature": "S"}
    plain = {"executableCode": {"code": "thoughtSignature"}}
    parts = [{"type": "provider_block", "provider": "gemini", "block": each} for each in (block, plain)]
    asked = parse_request(encode_json({"messages": [ASK, {"role": "assistant", "content": parts}, ASK]}))
    request, paths = without_thoughts(asked)
    assert paths == ["messages[1].content[0].block.thoughtSignature"]
    assert isinstance(request, Request)
    content = request.messages[1].content
    assert not isinstance(content, str)
    first, second = content
    assert isinstance(first, ProviderBlockPart)
    assert bytes(first.block) == encode_json({"executableCode": block["executableCode"]})
    assert second == asked.messages[1].content[1]
