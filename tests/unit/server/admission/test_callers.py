"""Keys: where a request may have one, and which of them are known."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.server.admission.auth_throttle import AuthThrottle
from gai_fast.server.admission.callers import Callers
from tests.limits import LIMITS

ALICE, BOB = "sk-alice-0123456789", "sk-bob-0123456789"
CALLERS = Callers([KeySettings("alice", (key_digest(ALICE),)), KeySettings("bob", (key_digest(BOB),))])


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {ALICE}"},
        {"authorization": f"bearer {ALICE}"},
        {"authorization": f"BEARER   {ALICE}"},
        {"x-api-key": ALICE},
        {"api-key": ALICE},
        {"authorization": f"Bearer {ALICE}", "x-api-key": ALICE, "api-key": ALICE},
    ],
)
def test_a_key_is_taken_from_the_header_of_any_sdk(headers: dict[str, str]) -> None:
    assert CALLERS.find(headers, "").name == "alice"


def test_each_secret_of_a_key_is_its_callers() -> None:
    rotated = Callers([KeySettings("alice", (key_digest(ALICE), key_digest(BOB)))])
    assert [rotated.find({"x-api-key": secret}, "").name for secret in (ALICE, BOB)] == ["alice", "alice"]


def test_each_key_is_one_caller() -> None:
    assert CALLERS.find({"x-api-key": BOB}, "").name == "bob"


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
        CALLERS.find(headers, "192.0.2.9")
    assert (caught.value.code, caught.value.reason) == ("unauthorized", "key")
    assert "sk-" not in caught.value.message


def test_a_key_may_be_as_long_as_the_limit() -> None:
    longest = "x" * LIMITS.longest_key
    digests = [KeySettings("a", (key_digest(longest),)), KeySettings("b", (key_digest(f"{longest}x"),))]
    assert Callers(digests).find({"x-api-key": longest}, "").name == "a"
    with pytest.raises(Error, match="not known"):
        Callers(digests).find({"x-api-key": f"{longest}x"}, "")


def test_the_digest_of_nothing_lets_nobody_in() -> None:
    with pytest.raises(Error, match="not known"):
        Callers([KeySettings("a", (key_digest(""),))]).find({"x-api-key": ""}, "")


ENDED = KeySettings("ended", (key_digest(ALICE),), expires=datetime(2020, 1, 1, tzinfo=UTC))
LASTING = KeySettings("lasting", (key_digest(BOB),), expires=datetime(2200, 1, 1, tzinfo=UTC))


def test_a_key_that_has_expired_is_unauthorized_for_a_reason_of_its_own() -> None:
    callers = Callers([ENDED, LASTING])
    assert callers.find({"x-api-key": BOB}, "") is LASTING
    for address in ("", None):
        with pytest.raises(Error, match="this key has expired") as caught:
            callers.find({"x-api-key": ALICE}, address)
        assert (caught.value.code, caught.value.reason) == ("unauthorized", "expired")


def test_an_expired_key_and_none_at_all_are_no_guesses() -> None:
    callers = Callers([ENDED])
    for _ in range(LIMITS.wrong_keys + 1):
        for headers in ({"x-api-key": ALICE}, {}, {"authorization": "Basic YTpi"}):
            with pytest.raises(Error) as caught:
                callers.find(headers, "192.0.2.1")
            assert caught.value.status == 401


def test_wrong_keys_of_an_address_are_counted_over_all_configurations() -> None:
    auth_throttle = AuthThrottle()
    for number in range(LIMITS.wrong_keys + 1):
        callers = Callers([KeySettings("alice", (key_digest(ALICE),))], auth_throttle)
        callers.find({"x-api-key": ALICE}, "192.0.2.2")
        with pytest.raises(Error) as caught:
            callers.find({"x-api-key": f"{BOB}{number}"}, "192.0.2.1")
    assert (caught.value.status, caught.value.reason) == (429, "wrong_keys")
    with pytest.raises(Error, match="wrong keys"):
        callers.find({"x-api-key": ALICE}, "192.0.2.1")
    for address in ("192.0.2.2", None):
        assert callers.find({"x-api-key": ALICE}, address).name == "alice"
    with pytest.raises(Error, match="not known"):
        callers.find({"x-api-key": BOB}, None)


@pytest.mark.parametrize(
    ("credentials", "is_known"),
    [
        (b64encode(f"any:{ALICE}".encode()).decode(), True),
        (b64encode(f":{ALICE}".encode()).decode(), True),
        (b64encode(ALICE.encode()).decode(), False),
        (b64encode(f"{ALICE}:".encode()).decode(), False),
        (b64encode(b"a:\xff").decode(), False),
        ("", False),
        ("é", False),
        ("YTpi YTpi", False),
        ("*", False),
    ],
)
def test_a_browser_sends_the_key_as_a_password_where_that_is_allowed(credentials: str, is_known: bool) -> None:
    headers = {"authorization": f"Basic {credentials}"}
    if is_known:
        assert CALLERS.find(headers, "", basic=True).name == "alice"
    else:
        with pytest.raises(Error, match="this key is not known here"):
            CALLERS.find(headers, "192.0.2.9", basic=True)
    with pytest.raises(Error, match="must be `Bearer KEY`"):
        CALLERS.find(headers, "")
