"""`core/tool_arguments.py`: the arguments of a call are bounded, and odd schemas say nothing."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.core.tool_arguments import problem_of_arguments
from tests.limits import LIMITS


def nested(levels: int) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for _ in range(levels - 1):
        whole = {"a": whole}
    return whole


def test_arguments_are_bounded() -> None:
    assert problem_of_arguments({}, nested(LIMITS.tool_depth)) == ""
    assert "nested deeper than 64 levels" in problem_of_arguments({}, nested(LIMITS.tool_depth + 1))
    assert problem_of_arguments({}, {"a": [float("nan")]}) == "the arguments have a number that is not finite"
    assert "more than 262144 bytes" in problem_of_arguments({}, {"a": "x" * LIMITS.tool_arguments})


@pytest.mark.parametrize("schema", [{"required": [{}, 1]}, {"properties": {"a": {"type": [{}, "other"]}}}])
def test_what_is_no_schema_says_nothing(schema: dict[str, Any]) -> None:
    assert problem_of_arguments(schema, {"a": 1}) == ""
