"""`gai_fast/formats/vercel/format.py`: the versions of the format."""

from __future__ import annotations

import pytest

from gai_fast.formats import get_format

VERCEL = get_format("vercel")


def test_it_has_one_framing_and_a_header() -> None:
    assert VERCEL.framings == ("sse",)
    assert VERCEL.headers == (("x-vercel-ai-ui-message-stream", "v1"),)
    assert VERCEL.media_type("sse") == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(("version", "can_reset"), [("5", False), ("6", False), ("7", True)])
def test_only_7_can_void_what_was_sent(version: str, can_reset: bool) -> None:
    assert VERCEL.version(version).can_reset is can_reset
    assert VERCEL.version(version).name == "vercel"


def test_the_oldest_version_is_the_default() -> None:
    assert VERCEL.version("5") is VERCEL


@pytest.mark.parametrize("version", ["4", "", "five", "7 "])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(ValueError, match=r"unknown version; known: 5, 6, 7"):
        VERCEL.version(version)


def test_a_format_without_versions_refuses_all() -> None:
    with pytest.raises(ValueError, match="'gai' has no versions"):
        get_format("gai").version("5")
    assert not get_format("gai").owns_request({"id": "c"})
