"""docs/architecture/shared-state.md: each state has a home, a bound and tests, and all of them are there."""

from __future__ import annotations

import re
from typing import Final

from tests.docs.pages import ROOT, coded, read, rows, section

PAGE: Final = read("docs/architecture/shared-state.md")
SECTIONS: Final = ("Upstreams", "Logs and records", "Limits", "Figures")
STATES: Final = [row for name in SECTIONS for row in rows(section(PAGE, name))[1:]]
MODULE: Final = re.compile(r"[a-z_/0-9]+\.pyx?")


def test_every_state_has_a_home_that_is_there() -> None:
    for state, *_ in STATES:
        paths = [each for each in coded(state) if MODULE.fullmatch(each)]
        folder = paths[0].rpartition("/")[0] if paths else ""
        assert paths, state
        for path in paths:
            here = path if "/" in path else f"{folder}/{path}"
            assert (ROOT / "gai_fast" / here).is_file(), state


def test_every_state_has_writers_readers_and_a_bound() -> None:
    assert [row[0] for row in STATES if len(row) != 5 or not all(row)] == []
    assert len({row[0] for row in STATES}) == len(STATES)


def test_every_row_names_tests_that_are_there() -> None:
    files = (ROOT / "tests").rglob("test_*.py")
    defined = {name for path in files for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    for state, *_, tests in STATES:
        named = coded(tests)
        assert named, state
        assert set(named) <= defined, state
    assert set(re.findall(r"`(test_\w+)`", PAGE)) <= defined
