"""`gai_fast/net/toolbox/model_names.py`: the names that models see are valid everywhere, and mean one tool each."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.net.toolbox.model_names import by_model_name, model_name


class Named(NamedTuple):
    server: str
    name: str


LONG = "a.long-name/" * 8


@pytest.mark.parametrize(
    ("server", "name", "seen"),
    [
        ("docs", "search", "docs__search"),
        ("", "weather", "weather"),
        ("docs", "a.b/c ü", "docs__a_b_c__"),
        ("d", "x" * 61, f"d__{'x' * 61}"),
        (
            "d",
            LONG,
            f"d__{LONG}"[:56].replace(".", "_").replace("/", "_") + sha256(f"d__{LONG}".encode()).hexdigest()[:8],
        ),
    ],
)
def test_a_name_is_that_of_server_and_tool(server: str, name: str, seen: str) -> None:
    assert model_name(server, name) == seen


@given(st.text("abz0-", min_size=1, max_size=32), st.text(min_size=1, max_size=128))
def test_every_name_is_one_that_providers_take(server: str, name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", model_name(server, name))


def test_names_are_sorted_and_those_that_collide_are_all_left_out() -> None:
    tools = [Named("docs", "b"), Named("", "zoo"), Named("docs", "a.b"), Named("docs", "a_b"), Named("", "air")]
    kept, left_out = by_model_name(tools)
    assert [*kept] == ["air", "docs__b", "zoo"]
    assert kept["docs__b"] == Named("docs", "b")
    assert left_out == [Named("docs", "a.b"), Named("docs", "a_b")]


@given(st.permutations([Named("d", name) for name in ("a", "b", "c.d", "c_d", "e" * 80, "e" * 81)]))
def test_the_order_of_a_list_does_not_count(tools: list[Named]) -> None:
    kept, left_out = by_model_name(tools)
    assert list(kept) == sorted(kept)
    assert {each.name for each in kept.values()} == {"a", "b", "e" * 80, "e" * 81}
    assert {each.name for each in left_out} == {"c.d", "c_d"}
