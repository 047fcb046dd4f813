"""`formats/responses/declared.py`: the names of custom tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.formats.responses.declared import custom_names

CUSTOM = {"type": "custom", "name": "patch", "description": "x"}


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        ([], []),
        (None, []),
        ("custom", []),
        ([CUSTOM, 5, "custom", None, {"type": "custom"}, {"type": "custom", "name": 5}], ["patch"]),
        ([{"type": "function", "name": "f"}, {"name": "custom"}], []),
        ([{"type": "namespace", "name": "n", "tools": [CUSTOM, {"type": "function", "name": "f"}]}], ["patch"]),
        ([{"type": "namespace", "name": "n"}, {"type": "namespace", "tools": "custom"}], []),
        ([{"type": "custom", "name": "\u00e4", "description": "\ud800"}, CUSTOM], ["\u00e4", "patch"]),
    ],
)
def test_the_names_are_those_of_custom_tools_and_of_namespaces(tools: Any, names: list[str]) -> None:
    assert custom_names(json.dumps(tools).encode()) == names
    assert custom_names(json.dumps(tools, indent=1).encode()) == names
