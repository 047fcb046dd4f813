"""`net/runs/messages.py`: the messages that a run adds, and the requests of its turns."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET, Raw

from gai_fast.core.run import CallResult, RunCall
from gai_fast.model.events import JSONText
from gai_fast.model.request import NamedTool, Request, Tool, UserMessage
from gai_fast.net.runs.messages import message_of_turn, next_request, results_of, with_tools

TOOL = Tool(name="look")


def call(call_id: str, result: CallResult | None = None) -> RunCall:
    return RunCall(call_id, "look", {}, 1, 0, None, result=result)


def test_a_query_is_a_message_of_a_run_and_its_tools_stand_behind_the_client_s() -> None:
    request = with_tools(Request(query="Hi", tools=[Tool(name="mine")]), [TOOL])
    assert request.messages == [UserMessage(content="Hi")]
    assert request.query is UNSET
    assert [tool.name for tool in request.tools] == ["mine", "look"]


@pytest.mark.parametrize(
    ("asked", "later"),
    [(UNSET, UNSET), ("required", UNSET), (NamedTool(name="look"), UNSET), ("auto", UNSET), ("none", "none")],
)
def test_later_turns_choose_freely_and_the_last_one_calls_nothing(asked: Any, later: Any) -> None:
    request = Request(messages=[UserMessage(content="Hi")], tool_choice=asked)
    said = results_of([call("a", CallResult("x"))])
    following = next_request(request, said, without_tools=False)
    assert following.tool_choice == later
    assert following.messages == [*request.messages, *said]
    assert next_request(request, said, without_tools=True).tool_choice == "none"


@pytest.mark.parametrize(
    ("name", "sent"), [("functions.look", "functions_look"), ("n" * 65, "n" * 56 + "1e3fb6d5"), ("", "unnamed")]
)
def test_a_name_that_nobody_offers_goes_back_as_providers_accept_names(name: str, sent: str) -> None:
    parts = [{"type": "tool_call", "call_id": "a", "name": name, "input": {}}]
    error = CallResult("there is no such tool", is_error=True)
    content: Any = message_of_turn(parts, [RunCall("a", name, {}, 1, 0, None, result=error)]).content
    assert content[0].name == sent
    mine: Any = message_of_turn(parts, [RunCall("a", name, {}, 1, 0, None)]).content
    assert mine[0].name == name  # the client's, whose tool its provider has accepted


def test_a_turn_goes_back_as_its_provider_has_sent_it() -> None:
    parts = [
        {"type": "reasoning", "text": "Hm", "signature": "s", "provider": "anthropic"},
        {"type": "reasoning", "text": "", "signature": "r", "redacted": True},
        {"type": "text", "text": "Look."},
        {
            "type": "tool_call",
            "call_id": "one",
            "name": "look",
            "input": JSONText('{"n":1.10}', None),
            "signature": "c",
        },
        {"type": "tool_call", "call_id": "one", "name": "look", "input": "no JSON"},
        {"type": "provider_block", "provider": "x", "block": {"type": "b"}},
    ]
    content: Any = message_of_turn(parts, [call("one"), call("call_1_1")]).content
    assert [part.signature for part in content[:2]] == ["s", "r"]
    assert (content[0].provider, content[1].redacted, content[2].text) == ("anthropic", True, "Look.")
    assert (content[3].input, content[3].signature) == (Raw(b'{"n":1.10}'), "c")
    assert [part.call_id for part in content[3:5]] == ["one", "call_1_1"]
    assert content[4].input == Raw(b"{}")
    assert content[5].block == Raw(b'{"type":"b"}')


def test_results_keep_the_order_of_the_calls_and_what_they_are() -> None:
    parts = (
        {"type": "text", "text": "a"},
        {"type": "image", "data": "aGk=", "media_type": "image/png"},
        {"type": "audio", "data": "aGk=", "media_type": "audio/wav"},
    )
    results: Any = results_of(
        [
            call("a", CallResult({"n": 1})),
            call("b", CallResult("no", is_error=True)),
            call("c"),
            call("d", CallResult("")),
            call("e", CallResult("a", parts=parts)),
        ]
    )
    assert [(each.call_id, each.is_error) for each in results] == [
        ("a", False),
        ("b", True),
        ("d", False),
        ("e", False),
    ]
    assert [each.content for each in results[:3]] == ['{"n":1}', "no", "(nothing)"]
    assert [type(part).__name__ for part in results[3].content] == ["TextPart", "ImagePart", "FilePart"]
