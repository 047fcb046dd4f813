"""`docs/providers.md`: what is generated is what the adapters do, and what the page says of a provider has its test."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from gai_fast.providers import PROVIDERS, get_provider
from tools.provider_table import FIXTURES, PAGE, apis, blocks, generated, written

TESTS = Path(__file__).parent / "unit" / "providers"

SECTION = re.compile(r"^## .*?`([a-z-]+)`\n(.*?)(?=^## |\Z)", re.M | re.S)
NAMED_TEST = re.compile(r"`(test_\w+\.py)::([\w:]+)`")
NAMED_FIXTURE = re.compile(r"`([\w-]+/\w+\.(?:sse|ndjson|jsonarray|json))`")


def page() -> str:
    return PAGE.read_text()


@cache
def there_in(module: str) -> set[str]:
    """The tests of a module, those of a class after its name."""
    names = set()
    for node in ast.parse((TESTS / module).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_the_page_is_up_to_date() -> None:
    assert page() == written(page()), "run `python -m tools.provider_table`"


def test_every_registered_provider_has_a_section_with_its_facts_and_what_is_odd_about_it() -> None:
    sections = dict(SECTION.findall(page()))
    assert list(sections) == list(PROVIDERS)
    for name, text in sections.items():
        assert blocks(text) == ([] if get_provider(name).recording else [name])
        for oddity in re.findall(r"^\* .*(?:\n  .*)*", re.sub(r"<!-- gen.*?<!-- end -->", "", text, flags=re.S), re.M):
            assert NAMED_TEST.search(oddity) or NAMED_FIXTURE.search(oddity), oddity
        assert NAMED_TEST.search(text), name


def test_the_tests_and_fixtures_that_are_named_are_there() -> None:
    missing = [f"{module}::{test}" for module, test in NAMED_TEST.findall(page()) if test not in there_in(module)]
    missing += [name for name in NAMED_FIXTURE.findall(page()) if not (FIXTURES / name).is_file()]
    assert not missing


@pytest.mark.parametrize("block", ["requests", "answers"])
def test_the_tables_have_every_api_and_tell_them_apart(block: str) -> None:
    table = generated(block)
    heads = [head for head in table.splitlines() if head.startswith("|  |")]
    assert [name for head in heads for name in re.findall("`(.+?)`", head)] == [
        *(name for name in apis() if ":" not in name),
        *(name for name in apis() if ":" in name),
    ]
    assert "✓" in table
    assert "–" in table


def test_a_block_without_a_name_of_ours_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        generated("nobody")
