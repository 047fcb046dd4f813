"""`gai_fast/providers/chat/mends.py`: conversations and tools as a provider of the chat dialect accepts them."""

from __future__ import annotations

import time
from typing import Any, Literal

import pytest

from gai_fast.core.requests.shapes import chat_shape
from gai_fast.model.changes import Changes
from gai_fast.model.errors import Unsupported
from gai_fast.providers.chat.mends import (
    AlternateTurns,
    ChatChoiceNeedsTools,
    ChatPairs,
    NoLateSystem,
    Prefix,
    Tools,
)
from gai_fast.providers.requests.empty_messages import NoEmptyMessages
from gai_fast.providers.requests.rules import Mend

Policy = Literal["error", "drop"]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "1"}


def user(text: str = "Hi") -> dict[str, Any]:
    return {"role": "user", "content": text}


def mended(
    mend: Mend, body: dict[str, Any], policy: Literal["error", "drop"] = "drop"
) -> tuple[dict[str, Any], Changes]:
    changes = Changes(policy)
    if mend.is_needed(body, chat_shape(body["messages"])):
        mend.mend(body, changes)
    return body, changes


def roles(body: dict[str, Any]) -> list[str]:
    return [message["role"] for message in body["messages"]]


def test_a_choice_without_tools_is_left_out_and_a_forced_one_is_refused() -> None:
    body, changes = mended(ChatChoiceNeedsTools("p"), {"messages": [user()], "tool_choice": "auto", "tools": []})
    assert body == {"messages": [user()]}
    assert not changes.dropped
    with pytest.raises(Unsupported, match="tool_choice"):
        mended(ChatChoiceNeedsTools("p"), {"messages": [user()], "tool_choice": "required"}, "error")


def test_a_last_message_of_the_assistant_is_a_prefix() -> None:
    body, _ = mended(Prefix(), {"messages": [user(), {"role": "assistant", "content": "On"}]})
    assert body["messages"][-1]["prefix"] is True
    asked, _ = mended(Prefix(), {"messages": [user()]})
    assert asked == {"messages": [user()]}
    nothing = {"messages": []}  # a call without a result, which was left out
    assert not Prefix().is_needed(nothing, chat_shape([CALL]))


def test_a_result_stands_behind_its_call() -> None:
    body, changes = mended(ChatPairs("p"), {"messages": [user(), CALL, user("And?"), RESULT]})
    assert roles(body) == ["user", "assistant", "tool", "user"]
    assert changes.adjusted


def test_calls_without_results_and_results_without_calls_are_dropped_where_members_may_be() -> None:
    alone, changes = mended(ChatPairs("p"), {"messages": [user(), CALL, user()]})
    assert roles(alone) == ["user", "user"]
    assert changes.dropped
    kept, _ = mended(ChatPairs("p"), {"messages": [user(), RESULT, user()]}, "error")
    assert roles(kept) == ["user", "tool", "user"], "the provider refuses it, by its own words"


@pytest.mark.parametrize("content", ["", None, [], [{"type": "text", "text": ""}]])
def test_an_answer_that_says_nothing_is_left_out_and_a_refusal_is_said(content: Any) -> None:
    """Mistral: "Assistant message must have either content or tool_calls"; xAI: "Every message needs at least one"."""
    empty = {"role": "assistant", "content": content}
    said = {"role": "assistant", "content": "No."}
    given = [user(), empty, user("b"), {**empty, "refusal": "No."}, user("c"), CALL, RESULT, {**empty, **said}]
    body, changes = mended(NoEmptyMessages(), {"messages": given})
    assert body["messages"] == [user(), user("b"), said, user("c"), CALL, RESULT, said]
    assert changes.dropped == [f"messages[{at}]" for at, each in enumerate(given) if each == empty]
    changes.adjust("messages[1].role", "x")
    assert changes.adjusted == {"messages[2].role": "x"}
    alone = {"messages": [empty]}
    assert mended(NoEmptyMessages(), {**alone})[0] == alone
    image = {"role": "assistant", "content": [{"type": "image_url"}, {"type": "text", "text": ""}]}
    kept = [user(), image, {"role": "assistant", "content": None, "audio": {"id": "a"}}]
    assert mended(NoEmptyMessages(), {"messages": kept})[0]["messages"] is kept


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_that_say_nothing_are_left_out(role: str) -> None:
    """xAI refuses them as it refuses answers (github.com/BoltAI/BoltAI/issues/235), and so does Cohere."""
    empty = {"role": role, "content": ""}
    said = {"role": role, "content": [{"type": "text", "text": "Be brief."}]}
    body, _ = mended(NoEmptyMessages(), {"messages": [empty, said, user(), {"role": "user", "content": ""}]})
    assert body["messages"] == [said, user(), {"role": "user", "content": ""}]


SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "Hi"}


def test_instructions_alone_are_asked_by_the_user() -> None:
    body, changes = mended(NoLateSystem(), {"messages": [SYSTEM]})
    assert roles(body) == ["user"]
    assert changes.adjusted == {"messages[0].role": "user"}
    body, changes = mended(NoLateSystem(), {"messages": [SYSTEM, SYSTEM]})
    assert roles(body) == ["system", "user"]


def test_instructions_after_answers_and_results_and_at_the_end_are_the_users() -> None:
    """Mistral's API, and vLLM with its models: "Unexpected role 'system' after role 'assistant'"."""
    body, changes = mended(NoLateSystem(), {"messages": [SYSTEM, user(), ANSWER, SYSTEM, SYSTEM, user(), SYSTEM]})
    assert roles(body) == ["system", "user", "assistant", "user", "system", "user", "user"]
    assert changes.adjusted == {"messages[3].role": "user", "messages[6].role": "user"}
    body, changes = mended(NoLateSystem(), {"messages": [user(), CALL, RESULT, SYSTEM, user()]})
    assert roles(body) == ["user", "assistant", "tool", "user", "user"]
    at_the_end, _ = mended(NoLateSystem(), {"messages": [SYSTEM, user(), SYSTEM, SYSTEM]})
    answered, _ = mended(NoLateSystem(), {"messages": [SYSTEM, user(), SYSTEM, SYSTEM, ANSWER]})
    assert answered["messages"][:-1] == at_the_end["messages"], "each turn repeats the turn before"
    for legal in ([SYSTEM, SYSTEM, user(), SYSTEM, user()], [SYSTEM, ANSWER], [user(), SYSTEM, user()], [], "odd"):
        body, changes = mended(NoLateSystem(), {"messages": legal})
        assert body["messages"] is legal


def other_call(name: str) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": name, "type": "function"}]}


def test_instructions_between_calls_and_results_go_before_the_calls_if_results_stay_last() -> None:
    asked = {"messages": [user(), CALL, RESULT, other_call("c2"), SYSTEM, {**RESULT, "tool_call_id": "c2"}]}
    body, changes = mended(ChatPairs("p", results_last=True), {**asked})
    assert roles(body) == ["user", "system", "assistant", "tool", "assistant", "tool"]
    assert changes.adjusted == {"messages[4]": "moved before the calls"}
    assert changes.own("messages[1].role") == "messages[4].role"
    body, changes = mended(ChatPairs("p"), {**asked})
    assert roles(body) == ["user", "assistant", "tool", "assistant", "tool", "system"]
    assert changes.adjusted == {"messages[5]": "moved to its call"}
    assert changes.own("messages[5].role") == "messages[4].role"


def test_a_question_between_calls_and_results_stays_behind_them() -> None:
    body, changes = mended(
        ChatPairs("p", results_last=True), {"messages": [user(), CALL, SYSTEM, user("And?"), SYSTEM, RESULT, ANSWER]}
    )
    assert roles(body) == ["user", "system", "system", "assistant", "tool", "user", "assistant"]
    assert changes.adjusted == {
        "messages[2]": "moved before the calls",
        "messages[4]": "moved before the calls",
        "messages[5]": "moved to its call",
    }


@pytest.mark.parametrize("role", ["", None, 5, []])
def test_a_message_without_a_role_is_the_providers_to_refuse(role: Any) -> None:
    messages = [{"role": role, "content": "a"}, {"content": "b"}]
    sent = mended(AlternateTurns("p"), {"messages": messages})[0]["messages"]
    assert sent[0]["role"] == role


def test_turns_alternate_and_end_with_the_user() -> None:
    system, answer = {"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}
    body, changes = mended(AlternateTurns("p"), {"messages": [system, user("1"), user("2"), answer, system, answer]})
    assert roles(body) == ["system", "user", "assistant", "user"]
    assert body["messages"][1]["content"] == "1\n\n2"
    assert changes.dropped == ["messages[5]"]
    plain = {"messages": [system, user(), answer, user()]}
    assert not AlternateTurns("p").is_needed(plain, chat_shape(plain["messages"]))


def test_tools_have_the_members_that_every_provider_knows() -> None:
    tool = {"type": "function", "function": {"name": "f", "x": 1, "description": None}, "y": 2, "z": None}
    changes = Changes("drop")
    assert Tools("p", needs_parameters=True)([tool, {"type": "custom"}], changes) == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ]
    assert changes.dropped == ["tools[0].y", "tools[0].function.x", "tools[1]"]


def test_results_that_stand_far_behind_their_calls_are_found_in_linear_time() -> None:
    calls = [{"role": "assistant", "tool_calls": [{"id": f"c{at}", "type": "function"}]} for at in range(4000)]
    results = [{"role": "tool", "tool_call_id": f"c{at}", "content": "1"} for at in range(4000)]
    apart = [user(), *calls, *results]
    between = [user()]
    for call, result in zip(calls, results, strict=True):
        between += [call, {"role": "system", "content": "Be brief."}, result]
    all_calls = [{"id": result["tool_call_id"], "type": "function"} for result in results]
    together = [user(), {"role": "assistant", "tool_calls": all_calls}, *results, RESULT]
    began = time.process_time()
    sent = [mended(ChatPairs("p", results_last=True), {"messages": each})[0] for each in (apart, between, together)]
    assert time.process_time() - began < 0.7  # 9 s if each call looks at all messages
    assert [roles(body).count("tool") for body in sent] == [4000, 4000, 4000]
