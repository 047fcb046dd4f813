"""`gai_fast/net/toolbox/argument_check.py`: what is wrong with arguments is said before the tool is asked."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.net.toolbox import argument_check
from gai_fast.net.toolbox.argument_check import ArgumentCheck, checked_arguments
from gai_fast.net.tools.rpc import ToolServerError
from tests.limits import LIMITS

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "n": {"type": ["integer", "null"]}, "x": {"type": "odd"}, "y": {}},
    "required": ["a"],
}


@pytest.mark.parametrize(
    "arguments",
    [{"a": ""}, {"a": "b", "n": 1}, {"a": "b", "n": 2.0}, {"a": "b", "n": None}, {"a": "b", "x": 1, "y": [], "z": 1}],
)
def test_arguments_of_the_right_types_are_taken(arguments: dict[str, Any]) -> None:
    assert checked_arguments(SCHEMA, arguments) is arguments


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "the arguments are no JSON object"),
        ("{}", "the arguments are no JSON object"),
        ({}, "the argument 'a' is missing"),
        ({"a": 1}, "the argument 'a' is not of the type string"),
        ({"a": "b", "n": True}, "the argument 'n' is not of the type integer or null"),
        ({"a": "b", "n": 1.5}, "the argument 'n' is not of the type integer or null"),
        ({"a": "x" * LIMITS.tool_arguments}, r"more than 262144 bytes \(limit tool_arguments\)"),
    ],
)
def test_other_arguments_are_refused(arguments: Any, problem: str) -> None:
    with pytest.raises(ToolServerError, match=problem) as raised:
        checked_arguments(SCHEMA, arguments)
    assert (raised.value.fault, raised.value.may_have_run) == ("argument", False)


def test_deep_arguments_are_refused() -> None:
    deep: Any = {}
    for _ in range(LIMITS.tool_depth):
        deep = {"a": deep}
    with pytest.raises(ToolServerError, match="nested deeper than 64 levels"):
        checked_arguments({}, deep)


@pytest.mark.parametrize(
    "schema", [{}, {"required": [{}]}, {"required": "a", "properties": []}, {"properties": {"a": 1}}]
)
def test_a_schema_of_an_odd_form_refuses_nothing(schema: dict[str, Any]) -> None:
    assert checked_arguments(schema, {"a": 1}) == {"a": 1}


CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "maximum": 7}},
    "required": ["city"],
    "$defs": {"city": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"city": {"name": 1}}, r"the arguments do not fit the schema: \$\.city\.name fails 'type'"),
        ({"city": {}}, r"the arguments do not fit the schema: \$\.city fails 'required'"),
        ({"city": {"name": "Rome"}, "days": 8}, r"\$\.days fails 'maximum'"),
        ({"city": {"name": "Rome"}, "days": "8"}, "the argument 'days' is not of the type integer"),
    ],
)
def test_with_the_extra_all_of_a_schema_holds(arguments: Any, problem: str) -> None:
    check = ArgumentCheck()
    for _ in range(2):
        assert check.checked("weather", CITY, {"city": {"name": "Rome"}, "days": 7})
        with pytest.raises(ToolServerError, match=problem) as raised:
            check.checked("weather", CITY, arguments)
        assert raised.value.fault == "argument"


def test_without_the_extra_the_types_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argument_check, "is_available", lambda: False)
    check = ArgumentCheck()
    assert check.checked("weather", CITY, {"city": {}, "days": 8})
    with pytest.raises(ToolServerError, match="the argument 'city' is missing"):
        check.checked("weather", CITY, {})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}},
        {"type": "object", "properties": {"a": {"pattern": "(?=a)"}}},
        {"type": "odd"},
    ],
)
def test_a_schema_that_cannot_be_used_refuses_nothing(schema: dict[str, Any]) -> None:
    assert ArgumentCheck().checked("t", schema, {"a": "b"}) == {"a": "b"}


def test_another_schema_of_the_same_tool_is_compiled_anew() -> None:
    check = ArgumentCheck()
    assert check.checked("t", {"maxProperties": 1}, {"a": 1})
    with pytest.raises(ToolServerError, match="fails 'maxProperties'"):
        check.checked("t", {"maxProperties": 0}, {"a": 1})
    for number in range(LIMITS.listed_tools + 2):
        check.checked(str(number), {}, {})
    assert len(check._compiled) <= LIMITS.listed_tools
