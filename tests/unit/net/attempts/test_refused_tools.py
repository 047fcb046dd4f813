"""Tools of the gateway that targets refuse."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.request import Request, Tool
from gai_fast.net.attempts.refused_tools import RefusedTools, refused_tools, without_tools

PLACE = ("up", "gpt")
OFFERED = ["docs__read", "docs__search", "weather"]
REQUEST = Request(query="hi", tools=[Tool(name="own"), *[Tool(name=name) for name in OFFERED]])

SAID = [
    (
        "Invalid schema for function 'docs__read': In context=(), object schema missing properties.",
        "tools[1].function.parameters",
        ["docs__read"],
    ),
    ("Invalid schema for function docs__search", None, ["docs__search"]),
    ("Invalid 'tools[3].function.description': string too long.", "tools[3].function.description", ["weather"]),
    ("tools.1.custom.input_schema: JSON schema is invalid.", None, ["docs__read"]),
    ("* tools[0].function_declarations[2].name: [FIELD_INVALID] Invalid function name.", None, ["docs__search"]),
    ("GenerateContentRequest.tools[0].function_declarations[3].parameters: wrong", None, ["weather"]),
    ("The value at toolConfig.tools.2.toolSpec.inputSchema.json.type must be one of: object.", None, ["docs__search"]),
    (
        "Invalid 'tools': array too long. Expected an array with maximum length 2, but got an array with length 4.",
        "tools",
        ["docs__search", "weather"],
    ),
    ("* tools[0].function_declarations: [FIELD_INVALID] At most 3 function declarations", None, ["weather"]),
    ("Invalid schema for function 'own'", "tools[0].function.parameters", []),
    ("the weather is bad", None, []),
    ("Invalid 'tools[0].function.name': string too long, maximum length 2", "tools[0].function.name", []),
    ("max_tokens must be at most 3", "max_tokens", []),
    ("tools are not supported", None, []),
]


@pytest.mark.parametrize(("message", "param", "names"), SAID)
def test_an_error_names_tools_of_the_gateway(message: str, param: str | None, names: list[str]) -> None:
    error = Error("invalid_request", message, provider="openai", details={"param": param})
    assert refused_tools(error, REQUEST, OFFERED) == names


def left_out(known: RefusedTools, caller: str, now: float = 0.0, most: int = 0) -> list[str]:
    return known.left_out(REQUEST, frozenset(OFFERED), PLACE, caller, now, most)


def test_a_tool_is_left_out_for_its_caller_for_an_hour_and_for_all_after_two() -> None:
    known = RefusedTools(lambda: 0.0)
    assert not known.note(PLACE, ["docs__read"], "a", 0.0)
    assert (left_out(known, "a"), left_out(known, "b")) == (["docs__read"], [])
    assert left_out(known, "a", 3601.0) == []
    assert known.note(PLACE, ["docs__read"], "b", 1.0)
    assert left_out(known, "c", 2.0) == ["docs__read"]


def test_the_last_of_the_gateways_tools_are_left_out_above_a_providers_bound() -> None:
    known = RefusedTools(lambda: 0.0)
    assert left_out(known, "a", most=4) == []
    assert left_out(known, "a", most=3) == ["weather"]
    assert left_out(known, "a", most=1) == OFFERED
    known.note(PLACE, ["weather"], "a", 0.0)
    assert left_out(known, "a", most=2) == ["weather", "docs__search"]
    assert [tool.name for tool in without_tools(REQUEST, OFFERED).tools] == ["own"]
