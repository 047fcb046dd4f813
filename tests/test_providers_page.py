"""`docs/providers.md`: what is generated is what the adapters do, and what the page says of a provider has its test."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from gai_fast.providers import PROVIDERS
from tests.docs.pages import coded, rows
from tools.provider_table import FIXTURES, PAGE, apis, blocks, fate_of, generated, written

TESTS = Path(__file__).parent / "unit" / "providers"

SECTION = re.compile(r"^## .*?`([a-z-]+)`\n(.*?)(?=^## |\Z)", re.M | re.S)
NAMED_TEST = re.compile(r"`((?:\w+/)?test_\w+\.py)::([\w:]+)`")
NAMED_FIXTURE = re.compile(r"`([\w-]+/\w+\.(?:sse|ndjson|jsonarray|json))`")


def page() -> str:
    return PAGE.read_text()


@cache
def there_in(module: str) -> set[str]:
    """Returns the tests of a module; a class's tests after its name."""
    names = set()
    for node in ast.parse((TESTS / module).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_the_page_is_up_to_date() -> None:
    assert blocks(page()) == ["addresses", "routes", "requests", "answers"]
    assert page() == written(page()), "run `python -m tools.provider_table`"


def test_every_registered_provider_has_a_section_with_what_is_odd_about_it() -> None:
    sections = dict(SECTION.findall(page()))
    assert list(sections) == list(PROVIDERS)
    for name, text in sections.items():
        for oddity in re.findall(r"^\* .*(?:\n  .*)*", text, re.M):
            assert NAMED_TEST.search(oddity) or NAMED_FIXTURE.search(oddity), oddity
        assert NAMED_TEST.search(text), name


def test_the_providers_whose_dialect_does_not_pass_are_named() -> None:
    [named] = re.findall(r"pass unchanged, except at ([^.]+)\.", page())
    without = {name.partition(":")[0] for name, api in apis().items() if not api.dialect}
    assert set(re.findall("`(.+?)`", named)) == without


def test_the_tests_and_fixtures_that_are_named_are_there() -> None:
    missing = [f"{module}::{test}" for module, test in NAMED_TEST.findall(page()) if test not in there_in(module)]
    missing += [name for name in NAMED_FIXTURE.findall(page()) if not (FIXTURES / name).is_file()]
    assert not missing


@pytest.mark.parametrize("block", ["requests", "answers"])
def test_the_tables_have_every_api_once(block: str) -> None:
    table = rows(generated(block))[1:]
    assert sorted(name for row in table for name in coded(row[0])) == sorted(apis())
    assert len({tuple(row[1:]) for row in table}) == len(table)


def test_the_table_of_addresses_has_every_api() -> None:
    table = rows(generated("addresses"))[1:]
    named = {coded(row[0])[0] + further for row in table for further in ("", *coded(row[1]))}
    assert named == {*apis()}


def test_what_becomes_of_a_request_is_told_apart() -> None:
    user = {"user": "u1"}
    object_ = {"type": "object", "properties": {"a": {"type": "string"}}}
    schema = {"response_format": {"type": "json_schema", "name": "a", "schema": object_}}
    assert fate_of(apis()["openai"], user) == "sent"
    assert fate_of(apis()["gemini"], user) == "left out"
    assert fate_of(apis()["anthropic"], schema) == "nearest"
    assert fate_of(apis()["deepseek"], schema) == "refused"


def test_a_block_without_a_name_of_ours_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        generated("nobody")
