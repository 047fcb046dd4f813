"""The names and digests of sessions, as their clients give them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.core.session import HEADERS, Session, named_session, session_digest, session_name, session_of_user
from tests.limits import LIMITS

ID = "a8bd7ad6-53ae-4fc2-9b15-3f7e1a0e2f51"
# As Claude Code has sent it until 2.1.80, and since.
OLD_USER = f"user_{'0a' * 32}_account__session_{ID}"
USER = json.dumps({"device_id": "0a" * 32, "account_uuid": "", "session_id": ID})


def of_user(user_id: Any) -> dict[str, Any]:
    return {"metadata": {"user_id": user_id}}


def native(**members: Any) -> Any:
    return parse_request(json.dumps({"query": "Hi", **members}).encode())


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


def test_a_digest_takes_any_text() -> None:
    assert len(session_digest("\ud800\0", "größe")) == 16


def test_a_named_session_has_its_name_and_its_digest() -> None:
    assert named_session({"session_id": "a"}, {}, "c") == Session("a", session_digest("a", "c"))
    assert named_session({}, {}, "c") is None
