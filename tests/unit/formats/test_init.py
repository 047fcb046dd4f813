"""`gai_fast/formats/__init__.py`: every registered format can be had by its name."""

from __future__ import annotations

import pytest

from gai_fast.formats import FORMATS, get_format


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_found_by_the_name_it_gives_itself(name: str) -> None:
    assert get_format(name).name == name


def test_a_format_is_one_object_for_all_streams() -> None:
    assert get_format("gai") is get_format("gai")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"unknown format 'xml'; known: {', '.join(FORMATS)}"):
        get_format("xml")
