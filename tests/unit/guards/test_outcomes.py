"""`gai_fast/guards/outcomes.py`: the words of guards."""

from __future__ import annotations

import pytest

from gai_fast.guards.outcomes import judge_failed, refused, safety, stopped, unjudged
from gai_fast.model.events import KEY_RANK


def test_a_match_names_its_guard_and_its_place_and_not_itself() -> None:
    event = safety("names", "flag", "words", "output", score=0.5, choice=2)
    assert [*event["safety"].items()] == [
        ("category", "words"), ("action", "flag"), ("score", 0.5), ("guard", "names"), ("on", "output"),
    ]  # fmt: skip
    assert event["choice"] == 2
    assert [*safety("names", "mask", "words", "input")["safety"]] == ["category", "action", "guard", "on"]
    assert "choice" not in safety("names", "mask", "words", "input")


def test_a_stop_is_a_content_filter() -> None:
    assert (stopped().finish_reason, stopped().reason) == ("content_filter", "guard")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refused("names"), (400, "content_filtered", "guard", False)),
        (judge_failed("names"), (503, "provider_unavailable", "guard_failed", True)),
    ],
)
def test_an_error_names_its_guard_for_people_and_programs(error: object, expected: tuple[object, ...]) -> None:
    payload = error.payload()  # type: ignore[attr-defined]  # an `Error`
    assert (payload.status, payload["code"], payload["reason"], payload["temporary"]) == expected
    assert [*payload][-1] == "guard"
    assert payload["guard"] == "names"
    assert "'names'" in payload["message"]


def test_a_text_that_could_not_be_judged_is_a_warning() -> None:
    event = unjudged("policy")
    assert event == {"type": "warning", "reason": "guard_failed", "guard": "policy"}
    assert {*event} <= {*KEY_RANK}
