"""`gai_fast/net/toolbox/function_schema.py`: what models see of a function, and what the function is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jsonschema_rs
import msgspec
import pytest

import gai_fast
from gai_fast.model.tool_functions import ToolMeta
from gai_fast.net.toolbox.function_schema import read_function
from gai_fast.net.tools.rpc import ToolServerError
from tests.limits import LIMITS


class City(msgspec.Struct):
    name: str
    country: str | None = None


@gai_fast.tool(approve=True)
async def weather(
    city: City, days: Annotated[int, msgspec.Meta(ge=1, description="How many")] = 1, *, unit: Literal["C", "F"] = "C"
) -> str:
    """Returns the weather.

    Of a city.
    """
    return f"{city.name} {days} {unit}"


def test_a_schema_is_what_the_signature_says() -> None:
    read = read_function(weather)
    assert (read.own_name, read.approve, read.idempotent, read.takes_meta) == (None, True, False, False)
    assert read.description == "Returns the weather.\n\nOf a city."
    assert read.schema["required"] == ["city"]
    assert read.schema["additionalProperties"] is False
    assert read.schema["properties"]["city"] == {"$ref": "#/$defs/City"}
    assert read.schema["properties"]["days"] == {
        "type": "integer",
        "minimum": 1,
        "description": "How many",
        "default": 1,
    }
    assert jsonschema_rs.is_valid(read.schema, {"city": {"name": "Rome"}, "unit": "F"})
    assert not jsonschema_rs.is_valid(read.schema, {"city": {}})


def test_arguments_become_what_the_signature_says() -> None:
    bound = read_function(weather).bound({"city": {"name": "Rome"}, "days": 2}, ToolMeta())
    assert bound == {"city": City("Rome"), "days": 2, "unit": "C"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "missing required field `city`"),
        ({"city": {"name": 1}}, r"Expected `str`, got `int` - at `\$.city.name`"),
        ({"city": {"name": "a"}, "days": 0}, "Expected `int` >= 1"),
        ({"city": {"name": "a"}, "other": 1}, "unknown field `other`"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ToolServerError, match=problem) as raised:
        read_function(weather).bound(arguments, ToolMeta())
    assert raised.value.fault == "argument"


def test_meta_is_the_call_and_no_argument() -> None:
    def with_type(text: str, meta: ToolMeta) -> None: ...
    def without_type(meta, text="a"): ...  # type: ignore[no-untyped-def]  # as users write
    def another(meta: str) -> None: ...

    meta = ToolMeta(call_id="c")
    for function in (with_type, without_type):
        read = read_function(function)
        assert [*read.schema["properties"]] == ["text"]
        assert read.bound({"text": "b"}, meta) == {"text": "b", "meta": meta}
    assert read_function(another).bound({"meta": "a"}, meta) == {"meta": "a"}


def test_a_default_that_can_change_is_the_function_s_own() -> None:
    default = [City("Rome")]

    def listed(cities: list[City] = default) -> None: ...

    read = read_function(listed)
    assert read.bound({}, ToolMeta())["cities"] is default
    assert "required" not in read.schema


def test_an_object_that_can_be_called_is_a_tool() -> None:
    class Search:
        """Searches."""

        def __call__(self, q: str) -> str:
            return q

    read = read_function(Search())
    assert (read.description, [*read.schema["properties"]]) == ("Searches.", ["q"])


def positional(text: str, /) -> None: ...
def several(*texts: str) -> None: ...
def more(**texts: str) -> None: ...
def unknown(text: str) -> None: ...
def odd(text: Callable[[], int]) -> None: ...
def large(text: str) -> None: ...


unknown.__annotations__["text"] = "NotThere"
large.__doc__ = "x" * (LIMITS.tool_description + 1)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (positional, "has the parameter 'text', and each must be given by its name"),
        (several, "has the parameter 'texts'"),
        (more, "has the parameter 'texts'"),
        (unknown, "has a signature that cannot be read: name 'NotThere' is not defined"),
        (odd, "has a parameter of a type that JSON cannot have"),
        (large, "has a docstring of more than 4096 bytes"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_function(function)
