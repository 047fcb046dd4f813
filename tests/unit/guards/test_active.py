"""`guards/active.py`: which guards hold for a request."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.guards.active import ActiveGuard, Guards
from gai_fast.guards.building import build
from gai_fast.model.errors import Error
from gai_fast.model.settings import GuardSettings, Settings
from tests.limits import LIMITS


def guards(*given: GuardSettings) -> Guards:
    return Guards(Settings(guards=given), [ActiveGuard(each, build(each)) for each in given])


def guard(name: str, **values: Any) -> GuardSettings:
    return GuardSettings(name, "pii", kinds=("email",), **values)


def names(found: tuple[ActiveGuard, ...]) -> list[str]:
    return [each.name for each in found]


def test_guards_hold_for_a_request_in_the_order_of_the_file() -> None:
    found = guards(guard("all", on=("input",)), guard("of-fast", models=("fast",)), guard("of-web", keys=("web-*",)))
    assert names(found.for_request("fast", "web-1")) == ["all", "of-fast", "of-web"]
    assert names(found.for_request("slow", "anonymous")) == ["all"]
    assert found.for_request("fast", "web-1") is found.for_request("fast", "web-1")
    assert [found.active[0].sees("input"), found.active[0].sees("output")] == [True, False]


def test_what_no_guard_can_look_into_is_closed() -> None:
    found = guards(guard("all", on=("output",), models=("m",)))
    found.check_closed("m", "ann", "x", "input")
    found.check_closed("other", "ann", "x")
    with pytest.raises(Error, match="'all' holds here, and cannot look into x") as refusal:
        found.check_closed("m", "ann", "x")
    error = refusal.value
    assert (error.code, error.reason, error.temporary, error.status, error.guard) == (
        "unsupported",
        "guard",
        False,
        400,
        "all",
    )


def test_guards_of_calls_alone_close_nothing() -> None:
    found = guards(guard("calls", on=("tool_input", "tool_result")))
    found.check_closed("m", "ann", "x")
    found.check_closed_at("up", "ann", "x")


def test_the_pairs_that_are_remembered_have_a_bound() -> None:
    found = guards(guard("all"))
    for number in range(2 * LIMITS.guarded_pairs + 1):
        assert names(found.for_request("fast", f"staff:{number}")) == ["all"]
        assert len(found._chosen) <= LIMITS.guarded_pairs
