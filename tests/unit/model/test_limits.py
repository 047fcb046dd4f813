"""`gai_fast/model/limits.py`: every bound is positive, immutable and says why it is what it is."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from pathlib import Path

import pytest

from gai_fast.model import limits
from gai_fast.model.limits import LIMITS


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LIMITS.event = 1


@pytest.mark.parametrize("field", dataclasses.fields(LIMITS), ids=lambda field: field.name)
def test_a_limit_is_a_positive_number_of_its_type(field: dataclasses.Field[object]) -> None:
    value = getattr(LIMITS, field.name)
    assert type(value).__name__ == field.type
    assert value > 0


def test_each_limit_has_its_reason_beside_it() -> None:
    tree = ast.parse(Path(limits.__file__).read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    fields = [node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    reasons = {
        before.target.id
        for before, after in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }
    assert fields
    assert [name for name in fields if name not in reasons] == []


def test_the_limits_that_the_contract_fixes() -> None:
    assert LIMITS.response_head == 64 * limits.KIB
    assert LIMITS.event == 8 * limits.MIB
    assert LIMITS.identifier == 128
    assert LIMITS.retry_after_ms == 120_000
    assert LIMITS.malformed_chunks == 3


def test_limits_agree_with_each_other() -> None:
    assert LIMITS.error_message < LIMITS.error_body < LIMITS.event < LIMITS.whole_answer
    assert LIMITS.feed_slice <= LIMITS.stream_turn
    assert LIMITS.json_depth <= LIMITS.arguments_depth
