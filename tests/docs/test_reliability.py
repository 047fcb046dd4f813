"""docs/reliability.md: every fault of the catalogue stands there once, with tests that are there."""

from __future__ import annotations

import ast
import re
from typing import Final

from tests.docs.pages import ROOT, coded, read, rows, section

FAULTS: Final = 44
TABLE: Final = rows(section(read("docs/reliability.md"), "Faults"))[1:]
TESTS: Final = ROOT / "tests"


def test_every_fault_stands_in_the_table_once() -> None:
    assert [row[0] for row in TABLE] == [str(number) for number in range(1, FAULTS + 1)]


def test_a_promise_has_tests_and_what_has_none_has_not_come() -> None:
    for number, _, promise, tests in TABLE:
        assert bool(coded(tests)) is not promise.startswith("not yet"), number


def test_every_test_that_is_named_is_there() -> None:
    page = read("docs/reliability.md")
    defined = {name for path in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    named, files = set(re.findall(r"`(test_\w+)`", page)), set(re.findall(r"`(tests/[^`]+)`", page))
    assert {name for row in TABLE for name in coded(row[3])} <= named <= defined
    assert files
    assert [each for each in files if not (ROOT / each).exists()] == []


def test_every_test_of_a_fault_stands_in_its_rows() -> None:
    named = {(int(row[0]), name) for row in TABLE for name in coded(row[3])}
    found = set()
    for path in sorted((TESTS / "faults").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef):
                found |= {(number, node.name) for number in _rows_of(node)}
    assert found
    assert found <= named


def _rows_of(test: ast.AsyncFunctionDef) -> list[int]:
    """Returns the arguments of its `@fault(…)`."""
    calls = [each for each in test.decorator_list if isinstance(each, ast.Call)]
    marks = [each for each in calls if isinstance(each.func, ast.Name) and each.func.id == "fault"]
    return [ast.literal_eval(argument) for mark in marks for argument in mark.args]
