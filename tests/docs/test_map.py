"""tests/README.md: every test file stands in the map, and the map names nothing that is not there."""

from __future__ import annotations

import re
from typing import Final

from tests.docs.pages import ROOT, coded, read, rows, section

TESTS: Final = ROOT / "tests"
TEXT: Final = read("tests/README.md")
MAP: Final = [(coded(row[1]), row[2]) for row in rows(section(TEXT, "Promises"))[1:]]
NAMED: Final = {path for paths, _ in MAP for path in paths}


def test_every_test_file_stands_in_the_map() -> None:
    """A unit test belongs to the module of its name; the map names those that are worth opening first."""
    files = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    assert sorted(file for file in files - NAMED if not file.startswith("unit/")) == []


def test_everything_that_the_map_names_is_there() -> None:
    assert sorted(path for path in NAMED if not (TESTS / path).exists()) == []


def test_a_promise_stands_with_the_layers_of_its_files() -> None:
    for paths, layers in MAP:
        folders = dict.fromkeys(path.partition("/")[0] for path in paths if "/" in path)
        assert ", ".join(folders) == layers, paths


def test_every_layer_is_described() -> None:
    result = {name.rstrip("/") for row in rows(section(TEXT, "Layers")) for name in coded(row[0])}
    assert result == {path.parent.relative_to(TESTS).parts[0] for path in TESTS.rglob("*/test_*.py")}


def test_every_variable_that_tests_read_is_described() -> None:
    result = {name.partition("=")[0] for row in rows(section(TEXT, "Environment variables")) for name in coded(row[0])}
    read_by = re.compile(r"(?:\bis_set\(|\benviron(?:\.get\(|\[))\"(GAI_FAST_\w+)\"")
    used = {name for path in TESTS.rglob("*.py") for name in read_by.findall(path.read_text())}
    assert used <= result
