"""Messages in which nothing is left: each provider, each dialect of a client, each shape, each role."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gai_fast.core.requests.shapes import chat_shape
from gai_fast.formats import get_format
from gai_fast.model.changes import Changes
from gai_fast.providers import get_provider, provider_names
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.target import Target

PROVIDERS = [name for name in provider_names() if name.partition(":")[0] not in ("demo", "python")]
CHATS = [name for name in PROVIDERS if not name.endswith((":completions", ":generate"))]
HI, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
ABSENT = object()


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role} if content is ABSENT else {"role": role, "content": content}


def shapes(dialect: str, role: str) -> Iterator[Any]:
    kind = "text" if dialect != "responses" else "output_text" if role == "assistant" else "input_text"
    yield from ("", [], [{"type": kind, "text": ""}], [{"type": kind, "text": ""}, {"type": kind, "text": ""}])
    if role in ("system", "developer") and dialect != "anthropic":
        yield from (None, ABSENT)


def conversations() -> Iterator[tuple[str, dict[str, Any]]]:
    for dialect, name in (("openai", "messages"), ("responses", "input"), ("anthropic", "messages")):
        roles = ("user", "assistant") if dialect == "anthropic" else ("system", "developer", "user", "assistant")
        for role in roles:
            for content in shapes(dialect, role):
                silent = message(role, content)
                given = [HI, ANSWER, silent, HI] if role == "user" else [HI, silent, HI]
                if role in ("system", "developer"):
                    given = [silent, HI]
                yield dialect, {"model": "m", "max_tokens": 64, name: given}
    for content in shapes("anthropic", "system"):
        yield "anthropic", {"model": "m", "max_tokens": 64, "system": content, "messages": [HI]}


CASES = list(conversations())


def sent(provider: str, dialect: str, body: dict[str, Any]) -> dict[str, Any]:
    """Returns what goes up, by the builder that a stream uses."""
    api, target = get_provider(provider), Target("m", on_unsupported="drop")
    body = {name: value for name, value in body.items() if dialect != "responses" or name != "max_tokens"}
    if api.dialect == dialect:
        request = api.build_passthrough(body, target)
    else:
        request = api.build_request(get_format(dialect).parse_request(body)[0], target)
    written: dict[str, Any] = json.loads(request.body)
    return written


def says(content: Any) -> bool:
    if isinstance(content, list):
        return any(map(says, content))
    if isinstance(content, dict):
        return says(content.get("parts", content.get("text", "an image")))
    return bool(content)


@pytest.mark.parametrize("provider", CHATS)
def test_a_message_in_which_nothing_is_left_goes_to_no_provider(provider: str) -> None:
    for dialect, body in CASES:
        written = sent(provider, dialect, body)
        messages = written.get("messages", written.get("input", written.get("contents", written.get("prompt"))))
        if isinstance(messages, str):
            continue
        silent = [each for each in messages if not says(each.get("content", each.get("parts")))]
        assert messages, body
        assert not silent, (dialect, body, silent)
        assert "system" not in written or says(written["system"]), body
        assert "systemInstruction" not in written or says(written["systemInstruction"]), body


@pytest.mark.parametrize("provider", CHATS)
def test_the_rest_of_the_conversation_goes_up_as_if_it_had_not_been_there(provider: str) -> None:
    for dialect, name in (("openai", "messages"), ("responses", "input")):
        whole = {"model": "m", name: [HI]}
        for content in ("", []):
            silent = {"model": "m", name: [message("developer", content), HI]}
            assert sent(provider, dialect, silent) == sent(provider, dialect, whole)


def test_what_a_provider_takes_besides_texts_is_kept() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": ""}
    thought = {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    given = [image, called, result, thought, {"role": "user", "content": ""}]
    assert sent("openai-compatible", "openai", {"model": "m", "messages": given})["messages"] == given


@pytest.mark.parametrize("calls", [None, []])
def test_an_empty_list_of_calls_says_nothing(calls: Any) -> None:
    silent = {"role": "assistant", "content": "", "tool_calls": calls}
    assert sent("openai", "openai", {"model": "m", "messages": [HI, silent, HI]})["messages"] == [HI, HI]


def test_a_usual_conversation_is_not_walked_twice() -> None:
    class Walked(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            raise AssertionError

    shape = chat_shape([HI, ANSWER, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}])
    assert not NoEmptyMessages().is_needed({"messages": Walked([HI])}, shape)


def test_what_is_left_out_is_reported() -> None:
    body, changes = {"messages": [message("system", ""), HI, message("user", []), HI]}, Changes("error")
    mend = NoEmptyMessages()
    assert mend.is_needed(body, chat_shape(body["messages"]))
    mend.mend(body, changes)
    assert (body["messages"], changes.dropped) == ([HI, HI], ["messages[0]", "messages[2]"])
