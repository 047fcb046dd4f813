"""Members of a Responses request that matter to every route and upstream."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.formats.responses.parts import custom_tools, namespaced
from gai_fast.model.errors import InvalidRequest
from tests.unit.formats.responses_reader import RESPONSES


def test_the_members() -> None:
    body: dict[str, Any] = {
        "model": "m",
        "input": [
            {"role": "user", "content": "four"},
            {"role": "user", "content": [{"type": "input_text", "text": "four"}, {"type": "input_image"}]},
            {"type": "function_call", "arguments": "four"},
            {"type": "function_call_output", "output": "four"},
            5,
        ],
        "instructions": "four",
        "stream": True,
        "text": {"format": {"type": "json_schema"}},
        "temperature": 1,
        "unheard": 1,
    }
    asked = RESPONSES.read_request(body)
    assert (asked.model, asked.stream, asked.background, asked.whole) == ("m", True, False, False)
    assert (asked.wants_json, asked.wants_usage, asked.prompt_characters) == (True, True, 20)
    assert asked.echo is not None
    assert sorted(asked.echo) == ["instructions", "temperature", "text"]


def test_an_answer_repeats_tools_that_items_add() -> None:
    """Calls of such tools are named by them, too."""
    custom = {"type": "custom", "name": "exec"}
    group = {"type": "namespace", "name": "mcp__docs__", "tools": [{"type": "function", "name": "search"}]}
    items = [{"type": "additional_tools", "tools": [group, 1]}, 5, {"type": "additional_tools", "tools": 1}]
    echo = RESPONSES.read_request({"input": items, "tools": [custom]}).echo or {}
    assert echo["tools"] == [custom, group]
    assert custom_tools(echo) == {"exec"}
    assert namespaced(echo)["mcp__docs__search"] == ("mcp__docs__", "search")
    again = {"tools": [group, group]}
    assert namespaced(again) == namespaced({"tools": [group]})


@pytest.mark.parametrize(
    ("body", "whole"), [({}, True), ({"stream": True}, False), ({"background": True}, False), ({"stream": None}, True)]
)
def test_an_answer_in_the_background_is_a_stream(body: dict[str, Any], whole: bool) -> None:
    assert RESPONSES.read_request(body).whole is whole


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": 1}, "Expected `str`, got `int` - at `$.model`"),
        ({"stream": "yes"}, "Expected `bool`, got `str` - at `$.stream`"),
        ({"background": 1}, "Expected `bool`, got `int` - at `$.background`"),
    ],
)
def test_members_of_another_type_are_refused(body: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        RESPONSES.read_request(body)
    assert words in raised.value.message


@pytest.mark.parametrize("form", [{"text": 1}, {"text": {"format": 1}}, {"text": {"format": {"type": "text"}}}, {}])
def test_json_is_asked_for_by_a_format_only(form: dict[str, Any]) -> None:
    assert not RESPONSES.read_request(form).wants_json


@pytest.mark.parametrize("place", ["tools", "additional_tools"])
def test_no_credential_for_a_server_of_tools_is_repeated(place: str) -> None:
    public = {"type": "mcp", "server_label": "a", "server_url": "https://a/mcp/"}
    private = {
        "authorization": "canary",
        "headers": {"x-own": "canary"},
        "server_url": "https://u:canary@a/mcp/?k=canary",
    }
    tools = [{**public, **private}, {"type": "mcp", "connector_id": "c"}, {"type": "function", "name": "headers"}, 7]
    body: dict[str, Any] = {"tools": tools}
    if place != "tools":
        body = {"input": [{"type": place, "tools": tools[:3]}]}
    echo = RESPONSES.read_request(body).echo or {}
    assert echo["tools"] == [public, *tools[1 : 4 if place == "tools" else 3]]
    assert tools[0]["authorization"] == "canary"  # the upstream gets it


def test_a_request_is_linked_if_it_may_name_something_earlier() -> None:
    plain: list[dict[str, Any]] = [{"input": "hi"}, {"previous_response_id": None}, {"input": [{"role": "user"}]}]
    for body in plain:
        assert not RESPONSES.read_request(body).is_linked
    for body in ({"input": [{"id": "msg_1"}]}, {"previous_response_id": "resp_1"}, {"previous_response_id": ""}):
        assert RESPONSES.read_request(body).is_linked
