"""The names and digests of sessions, as their clients give them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.core.session import (
    HEADERS,
    NamedSession,
    beginning,
    cache_key,
    name_in_body,
    name_in_headers,
    name_in_request,
    named_session,
    session_digest,
    session_of_user,
)
from gai_fast.model.request import Request
from tests.limits import LIMITS

ID = "a8bd7ad6-53ae-4fc2-9b15-3f7e1a0e2f51"
# As Claude Code has sent it until 2.1.80, and since.
OLD_USER = f"user_{'0a' * 32}_account__session_{ID}"
USER = json.dumps({"device_id": "0a" * 32, "account_uuid": "", "session_id": ID})


def of_user(user_id: Any) -> dict[str, Any]:
    return {"metadata": {"user_id": user_id}}


def native(**members: Any) -> Any:
    return parse_request(json.dumps({"query": "Hi", **members}).encode())


def session_name(headers: dict[str, str], request: Request | dict[str, Any]) -> str | None:
    in_request = name_in_body(request) if isinstance(request, dict) else name_in_request(request)
    named = name_in_headers(headers)
    return in_request if named is None else named


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_names_a_session(header: str) -> None:
    assert session_name({"host": "x", header: "main"}, {"prompt_cache_key": "other"}) == "main"


def test_the_first_header_counts_and_headers_count_before_members() -> None:
    headers = {name: f"by-{name}" for name in reversed(HEADERS)}
    assert session_name(headers, of_user(USER)) == "by-x-session-id"
    del headers["x-session-id"]
    assert session_name(headers, of_user(USER)) == "by-x-claude-code-session-id"


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({"prompt_cache_key": "main", **of_user(USER)}, "main"),
        (native(cache={"key": "main"}), "main"),
        (native(cache={"ttl": "1h"}), None),
        (native(), None),
        (of_user(USER), ID),
        (of_user(OLD_USER), ID),
        ({}, None),
        ({"metadata": None}, None),
        ({"metadata": {}}, None),
        ({"metadata": "x"}, None),
        ({"prompt_cache_key": None, **of_user(USER)}, ID),
        ({"prompt_cache_key": 5, **of_user(USER)}, ID),
    ],
)
def test_a_member_names_a_session(request_: Any, name: str | None) -> None:
    assert session_name({}, request_) == name


@pytest.mark.parametrize(
    "name", ["", "x" * (LIMITS.session_name + 1), "x" * 5_000, "a b", " a", "a\n", "a\x7f", "größe", "\ud800", "a\0"]
)
def test_a_name_that_does_not_count_is_absent(name: str) -> None:
    assert session_name({"x-session-id": name}, {}) is None
    assert session_name({"x-session-id": name, "session_id": "next"}, {}) == "next"
    assert session_name({}, {"prompt_cache_key": name, **of_user(USER)}) == ID
    assert session_of_user(f"user_1_session_{name}") is None
    assert session_of_user(json.dumps({"session_id": name})) is None


def test_a_name_has_at_most_256_characters() -> None:
    assert session_name({"session-id": "~" * 256}, {}) == "~" * 256


@pytest.mark.parametrize(
    "user_id",
    [
        None,
        5,
        {"session_id": ID},
        "",
        "user-7",
        "user_7",
        f"7_session_{ID}",
        f" {USER}",
        "{",
        "{}",
        "[]",
        json.dumps([ID]),
        json.dumps({"session_id": [ID]}),
        json.dumps({"session": ID}),
        '{"session_id": ' + "[" * 1_000 + "]" * 1_000 + "}",
        '{"a": ' * 300 + "1" + "}" * 300,
        "{\ud800",
        json.dumps({"session_id": ID, "pad": "x" * (1 << 20)}),
        "user_" + "x" * (1 << 20) + f"_session_{ID}",
    ],
    ids=lambda value: str(value)[:20],
)
def test_any_other_user_id_is_no_session(user_id: Any) -> None:
    assert session_name({}, of_user(user_id)) is None


def test_a_digest_is_of_the_name_and_the_caller() -> None:
    digests = {session_digest(name, caller) for name in ("a", "b") for caller in ("c", "d", "")}
    assert len(digests) == 6
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)
    assert session_digest("a", "c") == session_digest("a", "c") == "9bb8666ccc80067b"


def test_the_key_of_a_cache_is_the_name_or_the_digest_of_a_long_one() -> None:
    assert cache_key(NamedSession("x" * 64, "d")) == "x" * 64
    assert cache_key(NamedSession("x" * 65, "d")) == "d"


def test_a_digest_takes_any_text() -> None:
    assert len(session_digest("\ud800\0", "größe")) == 16


def test_a_named_session_has_its_name_and_its_digest() -> None:
    assert named_session("a", "c") == NamedSession("a", session_digest("a", "c"))
    assert named_session(None, "c") is None


# ---- beginnings


def whole(**members: Any) -> Any:
    return parse_request(json.dumps(members).encode())


ASKED = [{"type": "text", "text": "Hi"}]
LATER = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And now?"}]
TURNS: dict[str, list[Request | dict[str, Any]]] = {
    "native": [
        native(system="Be brief."),
        whole(system="Be brief.", messages=[{"role": "user", "content": "Hi"}]),
        whole(system="Be brief.", messages=[{"role": "user", "content": ASKED}, LATER[0]], query="And now?"),
    ],
    "chat": [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": ASKED}, *LATER]},
    ],
    "messages": [
        {"system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
        {"system": [{"type": "text", "text": "Be brief."}], "messages": [{"role": "user", "content": ASKED}, *LATER]},
    ],
    "responses": [
        {"instructions": "Be brief.", "input": "Hi"},
        {"instructions": "Be brief.", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]},
        {"instructions": "Be brief.", "input": [{"role": "user", "content": "Hi"}, *LATER], "temperature": 1},
    ],
}


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
def test_every_turn_of_a_conversation_has_its_beginning(turns: list[Request | dict[str, Any]]) -> None:
    assert {beginning(turn, 1) for turn in turns} == {"Be brief.\0Hi\0"}


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [{"role": "user", "content": "Bye"}]},
        {"messages": [{"role": "system", "content": "H"}, {"role": "user", "content": "i"}]},
        {"prompt": "Bye"},
        {"prompt": ["Bye"]},
    ],
)
def test_another_conversation_has_another(other: dict[str, Any]) -> None:
    assert beginning(other, 1) != beginning({"messages": [{"role": "user", "content": "Hi"}]}, 1)


def test_a_legacy_prompt_is_a_beginning() -> None:
    assert beginning({"prompt": "Once upon a time"}, 1) == "Once upon a time\0"


def test_images_and_options_are_no_part_of_it() -> None:
    image = {"type": "image", "url": "https://x.example/1.png"}
    asked = parse_request(json.dumps({"messages": [{"role": "user", "content": [image, *ASKED]}]}).encode())
    assert beginning(asked, 1) == "Hi\0"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": [None, 5, {"role": "user"}]},
        {"messages": [{"content": [None, {"text": 5}, "x"]}]},
        {"system": {"a": 1}, "input": 7, "prompt": [[1, 2]]},
    ],
)
def test_whatever_a_client_sends_has_a_beginning_or_none(body: dict[str, Any]) -> None:
    assert beginning(body, 1) == ""


LONG = LIMITS.session_beginning


@pytest.mark.parametrize("over", [0, 1, 100_000])
def test_of_a_long_one_the_first_and_the_last_half_count(over: int) -> None:
    system, user = "s" * 10_000, "u" * (LONG - 10_002 + over)
    name = beginning({"system": system, "messages": [{"role": "user", "content": user}]}, 1)
    assert len(name) == LONG
    assert name.startswith(system)
    at_end = beginning({"system": system, "messages": [{"role": "user", "content": user[:-1] + "x"}]}, 1)
    assert at_end != name
    middle = user[: LONG // 2] + "x" + user[LONG // 2 + 1 :]
    in_the_middle = beginning({"system": system, "messages": [{"role": "user", "content": middle}]}, 1)
    assert (in_the_middle == name) is (over > LONG)


def test_a_request_with_little_text_has_no_name() -> None:
    little = {"messages": [{"role": "system", "content": "s" * 2000}, {"role": "user", "content": "u" * 2095}]}
    assert beginning(little, 4096) == ""
    assert beginning(little, 4095) == "s" * 2000 + "\0" + "u" * 2095 + "\0"
    later = {"messages": [*little["messages"], {"role": "assistant", "content": "a"}]}
    assert beginning(later, 4096) == beginning(little, 4095), "the texts of the request count, its beginning names it"
    assert beginning(whole(messages=later["messages"]), 4096) == beginning(later, 4096)


ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.80.a1b; cch=%s;"
PROMPT = {"type": "text", "text": "You are an agent."}


def attributed(turn: str) -> list[Any]:
    block = {"type": "text", "text": ATTRIBUTION % turn}
    return [[block, PROMPT], [PROMPT, block], f"{ATTRIBUTION % turn}\nYou are an agent."]


@pytest.mark.parametrize("form", range(3))
def test_the_block_of_attribution_is_no_part_of_it(form: int) -> None:
    asked = [{"role": "user", "content": "Hi"}]
    names = {beginning({"system": attributed(turn)[form], "messages": asked}, 1) for turn in ("00000", "1f2e3")}
    assert names == {"You are an agent.\0Hi\0"}


def test_such_a_text_of_a_user_is_a_part_and_so_is_a_second_one() -> None:
    block = {"type": "text", "text": ATTRIBUTION % "1"}
    asked = [{"role": "user", "content": [block]}]
    assert beginning({"messages": asked}, 1) == ATTRIBUTION % "1" + "\0"
    assert beginning({"system": [block, block], "messages": []}, 1) == ATTRIBUTION % "1" + "\0"
    assert beginning({"system": [block]}, 1) == beginning({"system": ATTRIBUTION % "1"}, 1).strip("\0") == ""


def test_a_digest_takes_any_text_and_depends_on_the_caller() -> None:
    digests = {session_digest(name, caller) for name in ("a", "\ud800", "x" * LONG) for caller in ("anna", "ben")}
    assert len(digests) == 6
    assert all(len(each) == 16 for each in digests)
