"""Keys: where a request may have one, and which of them are known."""

from __future__ import annotations

import pytest

from gai_fast.errors import Error
from gai_fast.limits import LIMITS
from gai_fast.server.callers import Callers
from gai_fast.settings import KeySettings, key_digest

ALICE, BOB = "sk-alice-0123456789", "sk-bob-0123456789"
CALLERS = Callers([KeySettings("alice", (key_digest(ALICE),)), KeySettings("bob", (key_digest(BOB),))])


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {ALICE}"},
        {"authorization": f"bearer {ALICE}"},
        {"x-api-key": ALICE},
        {"api-key": ALICE},
        {"authorization": f"Bearer {ALICE}", "x-api-key": ALICE, "api-key": ALICE},
    ],
)
def test_a_key_is_taken_from_the_header_of_any_sdk(headers: dict[str, str]) -> None:
    assert CALLERS.find(headers).name == "alice"


def test_each_secret_of_a_key_is_its_callers() -> None:
    rotated = Callers([KeySettings("alice", (key_digest(ALICE), key_digest(BOB)))])
    assert [rotated.find({"x-api-key": secret}).name for secret in (ALICE, BOB)] == ["alice", "alice"]


def test_each_key_is_one_caller() -> None:
    assert CALLERS.find({"x-api-key": BOB}).name == "bob"


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "needs a key"),
        ({"cookie": f"key={ALICE}"}, "needs a key"),
        *(({"authorization": value}, "must be `Bearer KEY`") for value in ("", "Basic YTpi", ALICE, "Bearer: x")),
        *(
            ({"authorization": f"Bearer{value}"}, "not known")
            for value in (
                "",
                " ",
                f"  {ALICE}",
                f" {ALICE} ",
                f" {ALICE}, Bearer {ALICE}",
                " ' OR 1=1--",
                " \xe9\u20ac",
            )
        ),
        *(({"x-api-key": value}, "not known") for value in ("", ALICE[:-1], f"{ALICE}x", f"{ALICE}, {ALICE}")),
        ({"api-key": "x" * 1_000_000}, "not known"),
        ({"authorization": f"Bearer {ALICE}", "x-api-key": BOB}, "several keys"),
        ({"authorization": f"Bearer {ALICE}", "x-api-key": ""}, "several keys"),
        ({"x-api-key": ALICE, "api-key": BOB}, "several keys"),
        ({"authorization": "Basic YTpi", "x-api-key": ALICE}, "must be `Bearer KEY`"),
    ],
)
def test_anything_else_is_unauthorized_and_not_repeated(headers: dict[str, str], words: str) -> None:
    with pytest.raises(Error, match=words) as caught:
        CALLERS.find(headers)
    assert (caught.value.code, caught.value.reason) == ("unauthorized", "key")
    assert "sk-" not in caught.value.message


def test_a_key_may_be_as_long_as_the_limit() -> None:
    longest = "x" * LIMITS.longest_key
    digests = [KeySettings("a", (key_digest(longest),)), KeySettings("b", (key_digest(f"{longest}x"),))]
    assert Callers(digests).find({"x-api-key": longest}).name == "a"
    with pytest.raises(Error, match="not known"):
        Callers(digests).find({"x-api-key": f"{longest}x"})


def test_the_digest_of_nothing_lets_nobody_in() -> None:
    with pytest.raises(Error, match="not known"):
        Callers([KeySettings("a", (key_digest(""),))]).find({"x-api-key": ""})
