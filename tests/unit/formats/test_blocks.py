"""`gai_fast/formats/_blocks.py`: deltas that the kernel writes are those that the encoder writes."""

from __future__ import annotations

import pytest

from gai_fast.formats import get_format
from gai_fast.model.events import Event
from tests.unit.formats.streams import START, call_delta, call_start, context, encoded, filled, reasoning, text

pytestmark = pytest.mark.parametrize("name", ["vercel", "agui"])


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize(
    ("before", "delta", "key"),
    [
        ([text("a")], text("@"), "text"),
        ([reasoning("a")], reasoning("@"), "text"),
        ([call_start(), call_delta("{")], call_delta("@"), "arguments"),
    ],
)
def test_a_delta_is_written_as_its_parts_say(name: str, before: list[Event], delta: Event, key: str, ids: bool) -> None:
    encoder = get_format(name).encoder("sse", context(ids=ids))
    encoded(encoder, [START, *before])
    said = encoder.delta_parts(delta, key)
    assert said is not None
    assert filled(said, encoder.seq + 1, b"@") == encoded(encoder, [delta])


def test_nothing_is_promised_of_a_block_that_is_not_open(name: str) -> None:
    encoder = get_format(name).encoder("sse", context())
    encoded(encoder, [START])
    assert encoder.delta_parts(text("a"), "text") is None
    assert encoder.delta_parts(call_delta("a"), "arguments") is None
    encoded(encoder, [text("a")])
    assert encoder.delta_parts(reasoning("a"), "text") is None
    assert encoder.delta_parts(text("a", choice=1), "text") is None


def test_a_call_ends_the_open_block(name: str) -> None:
    encoder = get_format(name).encoder("sse", context())
    encoded(encoder, [START, text("a"), call_start()])
    assert encoder.delta_parts(text("a"), "text") is None
