"""The interfaces of sinks: every format's encoders have them."""

from __future__ import annotations

import pytest

from gai_fast.core.sinks import Inexpressible
from gai_fast.formats import FORMATS, get_format
from gai_fast.model.errors import Error, GaiFastError
from tests.unit.formats.streams import context

DELTA_SINK = ("event", "seq", "has_blocks", "collects_text", "delta_parts", "append_frames", "copied")
FRAME_SINK = ("event", "whole", "opens_parts", "frame")


@pytest.mark.parametrize("name", FORMATS)
def test_the_encoder_of_a_stream_receives_deltas(name: str) -> None:
    encoder = get_format(name).encoder("sse", context())
    assert [member for member in DELTA_SINK if not hasattr(encoder, member)] == []


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("whole", [False, True])
def test_an_encoder_that_passes_frames_on_receives_them(name: str, whole: bool) -> None:
    encoder = get_format(name).passthrough("sse", context(), whole=whole)
    if encoder is not None:
        assert [member for member in FRAME_SINK if not hasattr(encoder, member)] == []
        assert encoder.whole is whole


def test_an_end_without_a_word_is_no_error_of_the_answer() -> None:
    assert issubclass(Inexpressible, GaiFastError)
    assert not issubclass(Inexpressible, Error)
