"""What a refusal says of a credential, and for how long and where a credential is set aside."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS
from gai_fast.net.attempts.standing import Aside, Refusal, Standing, is_refusal
from tests.limits import LIMITS

PATH = "GET /v1/files"


def refused(standing: Standing, place: str, caller: str = ANONYMOUS, now: float = 0.0) -> Refusal:
    return standing.refuse(place, caller, now, is_model=place == "m")


def serve(standing: Standing, place: str) -> None:
    standing.serve(place, is_model=place == "m")


def test_a_path_that_was_never_served_may_be_out_of_scope() -> None:
    standing = Standing()
    serve(standing, "m")
    for caller in (ANONYMOUS, "one", "other"):
        assert refused(standing, PATH, caller) is Refusal.OF_THE_PLACE


@pytest.mark.parametrize("place", [PATH, "m"])
def test_a_place_that_was_served_speaks_of_the_credential(place: str) -> None:
    standing = Standing()
    serve(standing, place)
    assert refused(standing, place) is Refusal.OF_THE_CREDENTIAL


def test_a_second_refusal_of_a_model_that_was_never_served_speaks_of_the_model() -> None:
    standing = Standing()
    assert [refused(standing, "m"), refused(standing, "m")] == [Refusal.OF_THE_REQUEST, Refusal.OF_THE_MODEL]


@pytest.mark.parametrize("place", [PATH, "m"])
def test_one_caller_says_nothing_to_others_until_another_one_has_seen_it_too(place: str) -> None:
    standing = Standing()
    serve(standing, place)
    assert [refused(standing, place, "hostile") for _ in range(3)] == [Refusal.OF_THE_REQUEST] * 3
    serve(standing, place)
    assert refused(standing, place, "b") is Refusal.OF_THE_REQUEST, "a request was served between"
    assert refused(standing, place, "hostile") is Refusal.OF_THE_CREDENTIAL


def test_or_until_nobody_was_served_for_a_minute() -> None:
    standing = Standing()
    serve(standing, "m")
    times = (0.0, 1.0, LIMITS.refused_key - 0.1, LIMITS.refused_key)
    assert [refused(standing, "m", "one", now) for now in times] == [
        *3 * [Refusal.OF_THE_REQUEST],
        Refusal.OF_THE_CREDENTIAL,
    ]


def test_what_is_known_of_places_is_bounded() -> None:
    standing = Standing()
    for number in range(LIMITS.known_places + 1):
        serve(standing, f"GET /{number}")
    assert refused(standing, "GET /0") is Refusal.OF_THE_PLACE
    assert refused(standing, f"GET /{LIMITS.known_places}") is Refusal.OF_THE_CREDENTIAL


def test_a_caller_that_asks_for_many_paths_makes_no_model_unknown() -> None:
    standing = Standing()
    serve(standing, "m")
    for number in range(3 * LIMITS.known_places):
        serve(standing, f"GET /{number}")
    assert refused(standing, "m") is Refusal.OF_THE_CREDENTIAL


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (Error("unauthorized", "no"), True),
        (Error("forbidden", "the token has Expired"), True),
        (Error("forbidden", "not this model"), False),
        (Error("rate_limited", "expired"), False),
    ],
)
def test_some_errors_are_refusals_of_a_credential(error: Error, is_one: bool) -> None:
    assert is_refusal(error) is is_one


def test_a_credential_is_set_aside_everywhere_or_at_a_place() -> None:
    aside = Aside()
    assert aside.at("m")[0] < 0.0
    aside.put("m", 5.0, is_limited=True)
    assert (aside.at("m"), aside.at("other")[0] < 0.0, aside.at("")[0] < 0.0) == ((5.0, True), True, True)
    aside.put("", 3.0, is_limited=False)
    assert (aside.at("m"), aside.at("other")) == ((5.0, True), (3.0, False))
    aside.put("m", 4.0, is_limited=False)
    assert aside.at("m") == (5.0, True), "it is for longer already"


def test_the_places_are_bounded_and_the_one_that_ends_first_goes() -> None:
    aside = Aside()
    aside.put("long", 1e6, is_limited=True)
    for number in range(2 * LIMITS.limited_places):
        aside.put(f"GET /{number}", float(number + 1), is_limited=True)
    assert aside.at("long") == (1e6, True)
    assert aside.at("GET /0")[0] < 0.0
