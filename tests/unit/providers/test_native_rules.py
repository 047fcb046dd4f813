"""What an API takes of a native request: what is left out, choices of tools, instructions alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.reading import parse_request
from gai_fast.model.errors import Unsupported
from gai_fast.model.request import Request
from gai_fast.providers import Target, get_provider


class TestUnsupported:
    def test_a_field_is_refused_by_its_path(self) -> None:
        with pytest.raises(Unsupported) as refused:
            get_provider("anthropic").leave_out("messages[0]", Target("m"), "odd")
        assert refused.value.message == "anthropic does not support `messages[0]`: odd"
        assert refused.value.reason == "field"

    def test_or_left_out_and_noted(self) -> None:
        target = Target("m", on_unsupported="drop")
        get_provider("anthropic").leave_out("messages[0]", target, "odd")
        assert target.changes.dropped == ["messages[0]"]

    def test_a_callers_own_word_is_cut(self) -> None:
        assert len(get_provider("anthropic").unsupported("metadata." + "x" * 9000).message) < 300

    def test_what_an_api_lacks_is_gone_from_the_request(self) -> None:
        api, asked = get_provider("anthropic"), Request(query="Hi", seed=0, stop=["x"])
        with pytest.raises(Unsupported, match="`seed`"):
            api.supported(asked, Target("m"))
        target = Target("m", on_unsupported="drop")
        assert api.supported(asked, target) == Request(query="Hi", stop=["x"])
        assert target.changes.dropped == ["seed"]
        given = Request(query="Hi")
        assert api.supported(given, target) is given


CHOICES = ("openai", "openai:responses", "openai:completions", "anthropic", "gemini", "cohere", "ollama:generate")


@pytest.mark.parametrize("provider", CHOICES)
@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_among_no_tools_means_nothing_and_is_not_sent(provider: str, choice: str) -> None:
    target = Target("m")
    sent = get_provider(provider).build_request(native(query="Hi", tool_choice=choice), target)
    assert {"tool_choice", "toolConfig"}.isdisjoint(json.loads(sent.body))
    assert not target.changes


@pytest.mark.parametrize("provider", CHOICES)
def test_a_call_of_no_tool_is_refused_by_name(provider: str) -> None:
    with pytest.raises(Unsupported, match="`tool_choice`"):
        get_provider(provider).build_request(native(query="Hi", tool_choice="required"), Target("m"))


@pytest.mark.parametrize("provider", ["gemini", "cohere"])
def test_instructions_alone_are_the_users_where_a_user_must_speak(provider: str) -> None:
    """Google refuses empty `contents`, Cohere a last message that is not the user's."""
    instructions = [{"role": "system", "content": "Be brief."}, {"role": "system", "content": "Write a haiku."}]
    target = Target("m")
    sent = json.loads(get_provider(provider).build_request(native(messages=instructions), target).body)
    last = sent["contents"][-1] if provider == "gemini" else sent["messages"][-1]
    assert last["role"] == "user"
    assert "haiku" in json.dumps(last)
    assert "brief" not in json.dumps(last)
    assert target.changes.adjusted == {"messages[1].role": "user"}


def test_a_conversation_with_a_user_is_not_changed() -> None:
    target = Target("m")
    sent = get_provider("cohere").build_request(native(system="Be brief.", query="Hi"), target)
    assert [message["role"] for message in json.loads(sent.body)["messages"]] == ["system", "user"]
    assert not target.changes


def native(**fields: Any) -> Request:
    return parse_request(json.dumps(fields).encode())
