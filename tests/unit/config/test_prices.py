"""`price` of a `[[model]]`, and the price list that `[prices] file` names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gai_fast.config import ConfigError, load, read
from gai_fast.config.prices import build_price
from gai_fast.model.money import UNIT
from gai_fast.model.settings import Price, Settings
from tests.limits import LIMITS

UPSTREAM = '[[upstream]]\nname = "o"\nprovider = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
MODEL = '[[model]]\nname = "fast"\nupstream = "o"\nid = "m"\n'
LIST = """
date = 2026-11-20
currency = "EUR"

[[price]]
provider = "openai"
id = "m"
input = 1
output = 2.5
cached_input = 0.1

[[price]]
provider = "demo:"
id = "demo"
input = 0
output = 0
"""


def loaded(folder: Path, text: str, prices: str | None = None) -> Settings:
    file = folder / "gai-fast.toml"
    file.write_text(text)
    if prices is not None:
        (folder / "prices.toml").write_text(prices)
    return load(file, environ={})


def problems(folder: Path, text: str, prices: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, prices)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def test_what_a_price_leaves_out_costs_what_it_is_part_of() -> None:
    part = build_price({"input": 3, "output": 15.5}, "USD")
    assert part == Price(3 * UNIT, 155 * UNIT // 10, 3 * UNIT, 3 * UNIT, 155 * UNIT // 10, "USD")
    whole = build_price({"input": 3, "output": 15, "cached_input": 0.3, "cache_write": 3.75, "reasoning": 0}, "EUR")
    assert whole == Price(3 * UNIT, 15 * UNIT, 3 * UNIT // 10, 375 * UNIT // 100, 0, "EUR")


def test_a_price_may_name_that_of_input_which_is_cached_for_an_hour() -> None:
    assert build_price({"input": 3, "output": 15}, "USD").cache_write_1h is None
    assert build_price({"input": 3, "output": 15, "cache_write_1h": 5}, "USD").cache_write_1h == 5 * UNIT


def test_the_price_of_a_model_is_also_that_of_its_upstreams_id(tmp_path: Path) -> None:
    settings = loaded(tmp_path, UPSTREAM + MODEL + "price = { input = 3, output = 15 }\n")
    price = Price(3 * UNIT, 15 * UNIT, 3 * UNIT, 3 * UNIT, 15 * UNIT)
    assert settings.price(settings.chosen("fast")) == price
    assert settings.price(settings.chosen("o/m")) == price
    assert settings.price(settings.chosen("o/other")) is None
    assert settings.price(settings.chosen("demo")) is None


def test_a_model_does_not_have_the_price_of_another_one_of_the_same_upstream_and_id(tmp_path: Path) -> None:
    text = UPSTREAM + MODEL + MODEL.replace("fast", "own") + "price = { input = 7, output = 7 }\n"
    settings = loaded(tmp_path, text)
    assert settings.price(settings.chosen("fast")) is None
    settings = loaded(tmp_path, text + '[prices]\nfile = "prices.toml"\n', LIST)
    listed, own, by_upstream = (settings.price(settings.chosen(name)) for name in ("fast", "own", "o/m"))
    assert listed == Price(UNIT, 25 * UNIT // 10, UNIT // 10, UNIT, 25 * UNIT // 10, "EUR")
    assert own == by_upstream == Price(7 * UNIT, 7 * UNIT, 7 * UNIT, 7 * UNIT, 7 * UNIT, "EUR")


def test_the_price_of_a_model_is_that_of_all_its_targets(tmp_path: Path) -> None:
    targets = 'targets = [{ upstream = "o", id = "m" }, { upstream = "o", id = "n" }]'
    settings = loaded(tmp_path, f'{UPSTREAM}[[model]]\nname = "fast"\n{targets}\nprice = {{ input = 3, output = 3 }}\n')
    price = Price(3 * UNIT, 3 * UNIT, 3 * UNIT, 3 * UNIT, 3 * UNIT)
    assert [settings.price(settings.chosen(name)) for name in ("fast", "o/m", "o/n")] == [price] * 3


def test_a_price_list_is_found_beside_the_configuration(tmp_path: Path) -> None:
    settings = loaded(tmp_path, UPSTREAM + MODEL + '[prices]\nfile = "prices.toml"\n', LIST)
    assert (settings.prices.date, settings.prices.currency) == ("2026-11-20", "EUR")
    price = Price(UNIT, 25 * UNIT // 10, UNIT // 10, UNIT, 25 * UNIT // 10, "EUR")
    assert settings.price(settings.chosen("fast")) == settings.price(settings.chosen("o/m")) == price
    assert settings.price(settings.chosen("demo")) == Price(0, 0, 0, 0, 0, "EUR")
    assert settings.price(settings.chosen("o/other")) is None


def test_the_price_of_a_model_counts_before_the_list_and_is_in_its_currency(tmp_path: Path) -> None:
    text = UPSTREAM + MODEL + 'price = { input = 7, output = 7 }\n[prices]\nfile = "prices.toml"\n'
    settings = loaded(tmp_path, text, LIST)
    assert settings.price(settings.chosen("fast")) == Price(7 * UNIT, 7 * UNIT, 7 * UNIT, 7 * UNIT, 7 * UNIT, "EUR")


@pytest.mark.parametrize("date", ["2026-11-20", '"2026-11-20"', "2026-11-20T08:00:00Z"])
def test_the_date_of_a_list_may_be_text(tmp_path: Path, date: str) -> None:
    settings = loaded(tmp_path, '[prices]\nfile = "prices.toml"\n', f"date = {date}\n")
    assert (settings.prices.date, settings.prices.currency, dict(settings.prices.listed)) == ("2026-11-20", "USD", {})


def test_the_environment_names_a_list_too(tmp_path: Path) -> None:
    (tmp_path / "list.toml").write_text(LIST)
    found = read(None, environ={"GAI_FAST_PRICES__FILE": str(tmp_path / "list.toml")})
    assert found.settings.prices.date == "2026-11-20"
    assert found.prices["file"].origin == "GAI_FAST_PRICES__FILE"


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ("{}", "must be a table with input and output"),
        ("{ input = 1 }", "must be a table with input and output"),
        ("3", "must be a table with input and output"),
        ('"3"', "must be a table with input and output"),
        ("{ input = -1, output = 2 }", "must have a number for input, 0 to 1000000"),
        ("{ input = 1, output = nan }", "must have a number for output"),
        ("{ input = 1, output = inf }", "must have a number for output"),
        ("{ input = 1, output = 1e30 }", "must have a number for output"),
        ('{ input = "1", output = 2 }', "must have a number for input"),
        ("{ input = true, output = 2 }", "must have a number for input"),
        ("{ input = 1, output = 2, cached_input = -0.1 }", "must have a number for cached_input"),
    ],
)
def test_a_price_that_is_none_is_refused(tmp_path: Path, price: str, message: str) -> None:
    (line,) = problems(tmp_path, UPSTREAM + MODEL + f"price = {price}\n")
    assert line.startswith(f"gai-fast.toml:9: `price` in [[model]] {message}")
    assert "million tokens" in line


def test_an_unknown_key_of_a_price_is_named_with_the_nearest(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, UPSTREAM + MODEL + "price = { input = 1, outptu = 2 }\n")
    assert line.endswith(": `price` in [[model]] has an unknown key 'outptu'; did you mean output?")


ENTRY = '[[price]]\nprovider = "openai"\nid = "m"\ninput = 1\noutput = 2\n'


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ("date = \n", "the price list cannot be used: prices.toml:1"),
        ("price = 3\n", "prices.toml:1: [price] must be [[price]]"),
        ("price = [3]\n", "prices.toml:1: entry 1 of `price` must be a table"),
        ("dates = 3\n", "prices.toml:1: unknown key 'dates' in a price list; did you mean date?"),
        ("date = 3\n", "prices.toml:1: `date` must be a date, such as 2026-11-20, not 3"),
        ('date = "yesterday"\n', "prices.toml:1: `date` must be a date"),
        ('currency = "dollars"\n', 'prices.toml:1: `currency` must be three capital letters, such as "USD"'),
        ("currency = 1\n", "prices.toml:1: `currency` must be"),
        (ENTRY + ENTRY, "prices.toml:6: a second [[price]] of 'm' of 'openai': leave one out"),
        (ENTRY + ENTRY.replace("openai", "openai:responses"), "prices.toml:6: a second [[price]]"),
        (ENTRY + "inputs = 3\n", "prices.toml:6: unknown key 'inputs' in [[price]]; did you mean input?"),
        (ENTRY.replace("openai", "opnai"), "prices.toml:2: no provider is named 'opnai'; did you mean openai?"),
        (ENTRY.replace('"m"', '""'), "prices.toml:3: `id` in [[price]] must be a string that is not empty"),
        (ENTRY.replace('id = "m"\n', ""), "prices.toml:1: `id` in [[price]] must be a string"),
        (ENTRY.replace("input = 1\n", ""), "prices.toml:1: [[price]] of 'm' must be a table with input and output"),
        (ENTRY.replace("= 2", "= -2"), "prices.toml:1: [[price]] of 'm' must have a number for output"),
        (ENTRY.replace("= 2", "= nan"), "prices.toml:1: [[price]] of 'm' must have a number for output"),
        (ENTRY.replace("= 2", '= "2"'), "prices.toml:1: [[price]] of 'm' must have a number for output"),
    ],
)
def test_a_broken_list_is_reported_with_its_file_and_line(tmp_path: Path, prices: str, message: str) -> None:
    (line,) = problems(tmp_path, '[prices]\nfile = "prices.toml"\n', prices)
    assert message in line


def test_a_list_that_is_not_there_is_reported_where_it_is_named(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, '[prices]\nfile = "prices.toml"\n')
    assert line.startswith("gai-fast.toml:2: `file` in [prices]: the price list cannot be used: prices.toml: cannot be")
    assert line.endswith("No such file or directory: write the list, or correct its path")


def test_a_list_has_an_end_and_so_have_its_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "".join(f'[[price]]\nprovider = "x"\nid = "{number}"\ninput = 1\noutput = 2\n' for number in range(12))
    lines = problems(tmp_path, '[prices]\nfile = "prices.toml"\n', wrong)
    assert len(lines) == 11
    assert lines[-1] == "prices.toml: 2 more mistakes"
    entries = [f'[[price]]\nprovider = "demo"\nid = "{number}"\ninput = 1\noutput = 2\n' for number in range(8193)]
    assert LIMITS.price_list == 8192
    (line,) = problems(tmp_path, '[prices]\nfile = "prices.toml"\n', "".join(entries))
    assert "more than 8192 entries" in line


def test_every_mistake_of_an_entry_is_reported_at_once(tmp_path: Path) -> None:
    both: Any = ENTRY.replace("openai", "opnai") + ENTRY.replace("= 1", "= -1")
    assert len(problems(tmp_path, '[prices]\nfile = "prices.toml"\n', both)) == 2


def test_a_request_may_have_a_price_of_its_own_beside_that_of_its_tokens_or_alone(tmp_path: Path) -> None:
    both = loaded(tmp_path, UPSTREAM + MODEL + "price = {input = 3, output = 15, request = 0.01}\n")
    assert both.models["fast"].price == Price(
        3 * UNIT, 15 * UNIT, 3 * UNIT, 3 * UNIT, 15 * UNIT, "USD", request=UNIT // 100
    )
    alone = loaded(tmp_path, UPSTREAM + MODEL + "price = {request = 2}\n")
    assert alone.models["fast"].price == Price(0, 0, 0, 0, 0, "USD", request=2 * UNIT)
    searching = loaded(tmp_path, UPSTREAM + MODEL + "price = {input = 3, output = 15, web_search = 10}\n")
    assert searching.models["fast"].price == replace(both.models["fast"].price, request=0, web_search=10 * UNIT)
    found = problems(tmp_path, UPSTREAM + MODEL + "price = {request = 2, input = 1}\n")
    assert "or request alone" in found[0]
