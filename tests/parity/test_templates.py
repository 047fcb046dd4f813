"""Templates serve every format: of an answer's texts only the first ones come to an encoder as events."""

from __future__ import annotations

import pytest

from benchmarks.instructions.cases import ANSWERS, Relayed
from gai_fast.formats import FORMATS, Framing, get_format
from gai_fast.providers import get_provider

pytestmark = pytest.mark.native  # the pure copier copies nothing

DELTAS = 100
LEARNED = 2
"""Texts at the beginning of an answer, which may come as events: templates are learned from them."""
PAIRS = [(provider, form, framing) for provider in ANSWERS for form in FORMATS for framing in get_format(form).framings]


@pytest.mark.parametrize(("provider", "form", "framing"), PAIRS)
def test_a_text_is_copied_into_every_format(provider: str, form: str, framing: Framing) -> None:
    stream = Relayed(provider, form, framing)
    result = b"".join(stream.take(stream.frame(f" word{at:03d}", str(at + 100))) for at in range(DELTAS))
    assert [result.count(b" word%03d" % at) for at in range(DELTAS)] == [1] * DELTAS
    assert stream.relay.deltas == LEARNED + DELTAS
    assert stream.sink.texts <= LEARNED


@pytest.mark.parametrize("provider", [name for name in ANSWERS if get_provider(name).dialect in FORMATS])
def test_a_frame_is_passed_on_unread(provider: str) -> None:
    stream = Relayed(provider, get_provider(provider).dialect, passes=True)
    sent = [stream.frame(f" word{at:03d}", str(at + 100)) for at in range(DELTAS)]
    stream.sink.take()
    assert b"".join(map(stream.take, sent)) == b"".join(sent)
    assert stream.sink.texts <= LEARNED
