"""`cli/dialects/_base.py`: what holds for an answer in every dialect."""

from __future__ import annotations

import pytest

from gai_fast.cli.mock.dialects import DIALECTS
from gai_fast.cli.mock.dialects._base import WORDS, MockAnswer
from tests.unit.cli.mock.dialects.answers import BODY, chunks


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
class TestEveryDialect:
    def test_answers_are_the_same_every_time(self, dialect: type[MockAnswer]) -> None:
        first, second = dialect(BODY, 1), dialect(BODY, 1)
        assert first.opening() == second.opening()
        assert first.closing(3, False) == second.closing(3, False)
        assert first.whole(["a"], False) == second.whole(["a"], False)

    def test_the_text_is_joined_words_and_repeats_when_it_is_long(self, dialect: type[MockAnswer]) -> None:
        texts, cut_short = dialect(BODY, 1).texts(len(WORDS) + 2)
        assert not cut_short
        assert "".join(texts) == " ".join([*WORDS, *WORDS[:2]])

    def test_the_requests_own_limit_cuts_it_short(self, dialect: type[MockAnswer]) -> None:
        texts, cut_short = dialect({**BODY, "max_tokens": 3}, 1).texts(64)
        assert cut_short
        assert len(texts) == 3

    def test_every_frame_is_complete_and_its_data_json(self, dialect: type[MockAnswer]) -> None:
        answer = dialect(BODY, 1)
        frames = [*answer.opening(), answer.delta("é🐈"), *answer.closing(1, False), answer.error_frame(503, "x")]
        for frame in frames:
            assert frame.endswith(b"\n\n")
            assert chunks(frame) or frame == b"data: [DONE]\n\n"
