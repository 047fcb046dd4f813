"""The `limits.py` of each folder: every bound is positive, immutable, says why it is what it is, and stands once."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from typing import Any

import pytest

from gai_fast.model.limits import KIB, MIB
from tests.limits import HOLDERS, LIMITS, PACKAGE

FIELDS = [(module, field) for module, holder in HOLDERS.items() for field in dataclasses.fields(holder)]


def test_each_folder_has_its_limits() -> None:
    assert {"gai_fast.model.limits", "gai_fast.server.limits", "gai_fast.net.limits"} < HOLDERS.keys()
    names = [field.name for _, field in FIELDS]
    assert len(names) == len(set(names)) > 300


def test_limits_cannot_be_changed() -> None:
    for holder in HOLDERS.values():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(holder, dataclasses.fields(holder)[0].name, 1)


@pytest.mark.parametrize(("module", "field"), FIELDS, ids=lambda value: getattr(value, "name", value))
def test_a_limit_is_a_positive_number_of_its_type(module: str, field: dataclasses.Field[Any]) -> None:
    value = getattr(HOLDERS[module], field.name)
    assert type(value).__name__ == getattr(field.type, "__name__", field.type)  # compiled, it is the type itself
    assert value > 0


@pytest.mark.parametrize("module", HOLDERS)
def test_each_limit_has_its_reason_beside_it(module: str) -> None:
    source = PACKAGE.parent.joinpath(*module.split("."))
    path = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    tree = ast.parse(path.read_text())
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
    assert LIMITS.response_head == 64 * KIB
    assert LIMITS.event == 8 * MIB
    assert LIMITS.identifier == 128
    assert LIMITS.retry_after_ms == 120_000
    assert LIMITS.malformed_chunks == 3


def test_limits_agree_with_each_other() -> None:
    assert LIMITS.error_message < LIMITS.error_body < LIMITS.event < LIMITS.whole_answer
    assert LIMITS.json_depth <= LIMITS.arguments_depth
