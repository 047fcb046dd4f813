"""Parts of OpenAI's chat answers: finish reasons and usage, and what stands beside them in `x_gai`."""

from __future__ import annotations

import pytest

from gai_fast.formats.chat.parts import finish_reason_of, usage_of
from tests.unit.formats.streams import finish


@pytest.mark.parametrize("reason", ["cancelled", "pause", "other"])
def test_a_reason_that_the_clients_do_not_know_stands_beside_stop(reason: str) -> None:
    assert finish_reason_of(finish(reason), has_calls=True) == ("stop", {"finish_reason": reason})
    assert finish_reason_of({"type": "finish", "finish_reason": "length"}, has_calls=True) == ("length", {})


def test_usage_has_openais_names() -> None:
    counts, aside = usage_of({"input_tokens": 9, "output_tokens": 4, "total_tokens": 13, "reasoning_tokens": 2})
    assert (counts["prompt_tokens"], counts["completion_tokens"], counts["total_tokens"]) == (9, 4, 13)
    assert counts["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert aside == {}
    assert usage_of({"source": "estimated"})[1] == {"usage_source": "estimated"}
