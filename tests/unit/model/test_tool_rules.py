"""`model/tool_rules.py`: which tools patterns name, and what is left of several lists of them."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model.tool_rules import AllowedTools, NamePatterns, ToolPatterns, server_and_name

ADDRESSES = ["docs.search", "docs.write", "docs.a.b", "tickets.search", "weather", "invoice", "docs"]


@pytest.mark.parametrize(
    ("patterns", "named"),
    [
        ([], []),
        (["*"], ADDRESSES),
        (["*.*"], ADDRESSES[:4]),
        (["docs.*"], ["docs.search", "docs.write", "docs.a.b"]),
        (["docs.[sw]*"], ["docs.search", "docs.write"]),
        (["*.search", "weather"], ["docs.search", "tickets.search", "weather"]),
        (["docs.a.b"], ["docs.a.b"]),
        (["docs.?.?"], ["docs.a.b"]),
        (["d*"], ["docs"]),
        (["Docs.*", "WEATHER"], []),
        (["docs"], ["docs"]),
    ],
)
def test_a_pattern_names_tools_part_by_part(patterns: list[str], named: list[str]) -> None:
    read = ToolPatterns(patterns)
    assert [address for address in ADDRESSES if address in read] == named


def test_a_server_is_named_before_its_list_is_known() -> None:
    assert ToolPatterns(["docs.none-that-is-there"]).may_name("docs")
    assert ToolPatterns(["*"]).may_name("docs")
    assert ToolPatterns(["d?cs.*"]).may_name("docs")
    assert not ToolPatterns(["docs", "d*", "tickets.*"]).may_name("docs")


def test_what_all_lists_name_may_be_used() -> None:
    allowed = AllowedTools([ToolPatterns(["docs.*", "weather"]), ToolPatterns(["*"]), ToolPatterns(["*.search", "w*"])])
    assert [address for address in ADDRESSES if address in allowed] == ["docs.search", "weather"]
    assert allowed.servers(["docs", "tickets"]) == ["docs"]
    assert allowed.own(["weather", "invoice"]) == ["weather"]


@pytest.mark.parametrize("lists", [[], [[]], [["*"], []]])
def test_without_a_pattern_nothing_may_be_used(lists: list[list[str]]) -> None:
    allowed = AllowedTools([ToolPatterns(each) for each in lists])
    assert not [address for address in ADDRESSES if address in allowed]
    assert (allowed.servers(["docs"]), allowed.own(["weather"])) == ([], [])


PATTERNS = st.lists(st.text("ab*?.", min_size=1, max_size=5), max_size=3)


@given(st.lists(PATTERNS, max_size=3), st.text("ab", min_size=1, max_size=2), st.text("ab.", min_size=1, max_size=3))
def test_the_server_of_a_tool_that_may_be_used_is_named(lists: list[list[str]], server: str, name: str) -> None:
    allowed = AllowedTools([ToolPatterns(each) for each in lists])
    if f"{server}.{name}" in allowed:
        assert allowed.servers([server]) == [server]


@given(st.lists(st.text("ab*?[]!-", max_size=6), max_size=3), st.text("ab*?[]!-", max_size=6))
def test_a_pattern_fits_the_names_that_fnmatch_says(patterns: list[str], name: str) -> None:
    assert (name in NamePatterns(patterns)) == any(fnmatchcase(name, each) for each in patterns)


def test_a_tool_of_a_server_may_have_dots_in_its_name() -> None:
    assert server_and_name("docs.search") == ("docs", "search")
    assert server_and_name("docs.db.query") == ("docs", "db.query")
    assert server_and_name("weather") == ("", "weather")
    assert "docs.db.query" in ToolPatterns(["docs.db.*"])
