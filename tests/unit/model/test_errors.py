"""`gai_fast/model/errors.py`: thirteen codes and the exceptions of their names."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model import errors
from gai_fast.model.errors import CLASSES, Code, Error, Malformed
from tests.limits import LIMITS

# The table of `docs/events.md`.
TABLE: dict[Code, tuple[int, bool]] = {
    "invalid_request": (400, False),
    "unauthorized": (401, False),
    "forbidden": (403, False),
    "not_found": (404, False),
    "rate_limited": (429, True),
    "overloaded": (503, True),
    "timeout": (504, True),
    "network": (502, True),
    "provider_unavailable": (503, True),
    "context_length_exceeded": (400, False),
    "content_filtered": (400, False),
    "unsupported": (400, False),
    "internal": (500, False),
}


def test_codes_statuses_and_temporary_are_those_of_the_contract() -> None:
    assert {code: (Error(code).status, Error(code).temporary) for code in TABLE} == TABLE
    assert list(CLASSES) == list(TABLE)


@pytest.mark.parametrize("code", TABLE)
def test_an_error_is_of_the_class_that_is_named_as_its_code(code: Code) -> None:
    error = Error(code, "what happened")
    assert type(error).__name__ == code.title().replace("_", "")
    assert type(error)(message="what happened").code == code
    assert isinstance(error, errors.GaiFastError)
    assert error.is_temporary is error.temporary
    assert str(error) == error.message == "what happened"


def test_an_unknown_code_is_a_value_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown error code 'nonsense'; known: invalid_request, unauthorized"):
        Error("nonsense")


def test_a_payload_has_its_keys_in_order_and_none_empty() -> None:
    assert list(Error("network").payload().items()) == [
        ("code", "network"),
        ("message", "network"),
        ("temporary", True),
    ]
    full = Error(
        "rate_limited", "slow down", reason="tokens", temporary=False, retry_after_ms=0, phase="connect", provider="x"
    )
    assert list(full.payload().items()) == [
        ("code", "rate_limited"),
        ("message", "slow down"),
        ("temporary", False),
        ("retry_after_ms", 0),
        ("phase", "connect"),
        ("reason", "tokens"),
    ]


def test_a_payload_becomes_the_same_error_again() -> None:
    reported = Error("overloaded", "busy", reason="capacity", retry_after_ms=5, phase="mid_stream")
    read = Error.from_payload(reported.payload(), "openai")
    assert type(read) is errors.Overloaded
    assert read.payload() == reported.payload()
    assert read.provider == "openai"


def test_a_payload_with_an_unknown_code_is_internal() -> None:
    assert type(Error.from_payload({"code": "of_a_later_version"})) is errors.Internal
    assert type(Error.from_payload({})) is errors.Internal


def test_members_of_another_type_are_left_out() -> None:
    wrong = {"code": [], "message": 5, "temporary": "yes", "retry_after_ms": "soon", "phase": {}, "reason": 7}
    assert Error.from_payload(wrong).payload() == {"code": "internal", "message": "5", "temporary": False}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copied_error_says_the_same(copied: object) -> None:
    error = Error("invalid_request", "too big", reason="size", status=413, provider="p", details={"param": "x"})
    twin = copied(error)
    assert type(twin) is type(error)
    assert (twin.__dict__, twin.args) == (error.__dict__, error.args)


@pytest.mark.parametrize(("asked", "kept"), [(-5, 0), (0, 0), (7_000, 7_000), (10**12, LIMITS.retry_after_ms)])
def test_the_wait_is_clamped(asked: int, kept: int) -> None:
    assert Error("rate_limited", retry_after_ms=asked).retry_after_ms == kept


@given(st.text(st.characters(exclude_categories=())))
def test_a_message_is_one_bounded_line_that_utf8_can_say(text: str) -> None:
    message = Error("internal", text).message
    assert message
    assert len(message) <= LIMITS.error_message
    assert not any(
        character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029" for character in message
    )
    message.encode()


def test_a_line_end_cannot_forge_a_line_of_a_log() -> None:
    assert Error("internal", "a\r\n\tERROR all is lost\x1b[31m").message == "a ERROR all is lost [31m"


def test_a_page_is_no_message() -> None:
    message = Error("internal", "x" * 10**6).message
    assert len(message) == LIMITS.error_message
    assert message.endswith("x…")


def test_a_malformed_chunk_is_a_value_error_of_ours() -> None:
    assert issubclass(Malformed, (errors.GaiFastError, ValueError))


def test_the_guard_that_refuses_or_fails_is_the_last_member() -> None:
    refused = Error("content_filtered", "the guard 'names' refuses this", reason="guard", param="input", guard="names")
    assert [*refused.payload()][-3:] == ["reason", "param", "guard"]
    assert (refused.status, refused.temporary) == (400, False)
    assert Error.from_payload(refused.payload()).guard == "names"
    assert Error.from_payload({**refused.payload(), "guard": 5}).guard is None
    closed = Error("provider_unavailable", "late", reason="guard_failed", guard="policy")
    assert (closed.status, closed.temporary) == (503, True)
    assert "guard" not in Error("network", "cut").payload()
