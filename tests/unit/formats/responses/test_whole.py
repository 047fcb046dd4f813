"""The whole response: events collected into one object."""

from __future__ import annotations

import json

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from tests.limits import LIMITS
from tests.unit.formats.responses_reader import RESPONSES, whole
from tests.unit.formats.streams import DONE, ERROR, NOT_DONE, START, USAGE, context, encoded, finish, text


def test_the_answer_is_there_once_and_only_at_the_end() -> None:
    encoder = RESPONSES.whole(context())
    assert encoded(encoder, [START, text("hi"), finish()]) == b""
    encoder.heartbeat()
    encoder.event(DONE)
    (piece,) = encoder.take_pieces()
    assert json.loads(bytes(piece))["output"][0]["content"][0]["text"] == "hi"
    assert encoder.take_pieces() == []


def test_an_answer_that_failed_has_no_bytes() -> None:
    assert encoded(RESPONSES.whole(context()), [START, text("hi"), ERROR, NOT_DONE]) == b""


def test_sounds_are_kept_as_they_are_within_the_limit() -> None:
    sound: Event = {"type": "audio.delta", "audio": {"chunk": "aGk=", "format": "wav"}}
    void: Event = {"type": "stream.reset", "reason": "network"}
    assert whole(sound, void, START, sound, finish())["x_gai"] == {"events": [sound]}
    encoder = RESPONSES.whole(context())
    large: Event = {"type": "audio.delta", "audio": {"chunk": "a" * LIMITS.collected, "format": "wav"}}
    with pytest.raises(Error, match="larger than"):
        encoder.event(large)


def test_everything_before_a_reset_is_void() -> None:
    answer = whole(
        text("void"),
        {"type": "usage", "usage": USAGE},
        {"type": "stream.reset", "reason": "network"},
        {**START, "model": "other"},
        text("hi"),
        finish(),
    )
    assert (answer["model"], answer["usage"]) == ("other", None)
    assert [item["content"][0]["text"] for item in answer["output"]] == ["hi"]


@pytest.mark.parametrize(
    ("reason", "status"), [("stop", "completed"), ("length", "incomplete"), ("cancelled", "cancelled")]
)
def test_the_status_is_that_of_the_finish(reason: str, status: str) -> None:
    answer = whole(text("hi"), finish(reason, usage=USAGE))
    assert (answer["status"], answer["output"][0]["status"]) == (
        status,
        "completed" if status == "completed" else "incomplete",
    )


def test_usage_before_the_end_counts_and_choices_beyond_the_first_do_not() -> None:
    answer = whole(text("hi"), text("ho", choice=1), {"type": "usage", "usage": USAGE}, finish())
    assert answer["usage"]["total_tokens"] == 30
    assert len(answer["output"]) == 1


def test_warnings_stand_beside() -> None:
    assert whole({"type": "warning", "reason": "malformed_chunk"}, finish())["x_gai"] == {
        "warnings": [{"reason": "malformed_chunk"}]
    }


def test_it_is_one_piece() -> None:
    assert RESPONSES.whole(context()).seq == 1
