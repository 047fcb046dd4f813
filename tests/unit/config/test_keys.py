"""`config/keys.py`: the table of all keys: defaults, planned keys, the manual."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from gai_fast.cli.config import toml
from gai_fast.config import DEFAULTS, LISTS, SECTIONS, TABLES
from gai_fast.config.keys import title
from gai_fast.processors import PROCESSORS, parameters
from tests.unit.config.folders import Folder


def test_every_key_has_its_default_in_the_settings() -> None:
    for section in TABLES:
        assert set(SECTIONS[section]) <= set(DEFAULTS[section])


def test_a_key_that_is_like_no_other_is_answered_with_those_that_can_be_used(folder: Folder) -> None:
    [message] = folder.problems("[server]\nqqqq = 1")
    assert message == f"gai-fast.toml:2: unknown key 'qqqq' in [server]; known: {', '.join(sorted(SECTIONS['server']))}"
    [message] = folder.problems("[qqqqqq]")
    sections = ", ".join(sorted(map(title, SECTIONS)))
    assert message == f"gai-fast.toml:1: unknown section 'qqqqqq'; known: {sections}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("retries = -1", "must be a whole number, 0 to 10"),
        ("breaker = true", "must be false or a table of failures, window, open"),
        ("breaker = { failure = 1 }", "has an unknown key 'failure'; did you mean failures?"),
        ("breaker = { failures = 0 }", "has a `failures` that must be a whole number, 1 to 1000, not 0"),
        ("breaker = { open = 0 }", "has a `open` that must be seconds, more than 0"),
    ],
)
def test_when_an_upstream_is_left_alone_is_checked(folder: Folder, line: str, problem: str) -> None:
    [message] = folder.problems(f'[[upstream]]\nname = "a"\nprovider = "openai"\n{line}')
    assert message.startswith(f"gai-fast.toml:4: `{line.partition(' ')[0]}` in [[upstream]] ")
    assert problem in message


@pytest.mark.parametrize("section", SECTIONS)
def test_the_manual_has_every_key_with_its_default(section: str) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    title = f"### `[[{section}]]`" if section in LISTS else f"### `[{section}]`"
    part = manual.partition(title)[2].partition("\n### ")[0]
    for name in SECTIONS[section]:
        if section == "model" and name in SECTIONS["stream"]:
            continue
        default = DEFAULTS[section].get(name)
        shown = "" if default is None else f"`{toml(default)}` "
        assert re.search(rf"^\| (`\w+` )*`{name}` (`\w+` )*\| {re.escape(shown)}", part, re.M), name


@pytest.mark.parametrize("use", PROCESSORS)
def test_the_manual_has_every_parameter_with_its_default(use: str) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    part = manual.partition(f'`use = "{use}"`: ')[2].partition("`use =")[0].partition("\n### ")[0]
    for field in msgspec.structs.fields(parameters(use)):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        shown = "required " if field.required else "" if default is None else f"`{toml(default)}` "
        assert f"| `{field.name}` | {shown}" in part
