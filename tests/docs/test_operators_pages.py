"""docs/production.md: keys, commands and metrics exist, figures stand where they are measured."""

from __future__ import annotations

import re
from typing import Final

import click
import pytest

from gai_fast.cli import main
from gai_fast.config.keys import SECTIONS
from gai_fast.model.figures import SERIES
from gai_fast.server.observe.metrics import GAUGES, PROCESS, PrometheusSink
from tests.docs.pages import coded, read, rows, section

CHAPTERS: Final = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", read("docs/production.md"), re.M | re.S))
ITEMS: Final = re.findall(r"^\* (.*(?:\n  .*)*)", CHAPTERS["Checklist"], re.M)
CHECKLIST: Final = [[*re.findall(r"(.*[.]) \((.*)\)", " ".join(item.split()))[0]] for item in ITEMS]
SOURCE: Final = re.compile(r"\[(.+)\]\((\w+\.md)#([\w-]+)\)")
FIGURES: Final = [row for row in rows(CHAPTERS["Size"]) if SOURCE.fullmatch(row[-1])]
NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


@pytest.mark.parametrize("row", CHECKLIST, ids=lambda row: row[0])
def test_an_item_of_the_checklist_is_shown_by_something_that_is_there(row: list[str]) -> None:
    assert all(row)
    assert coded(row[1]) or "](" in row[1]
    for key, table in re.findall(r"`(\w+)` in `\[+(\w+)\]+`", row[1]):
        assert key in SECTIONS[table]
    commands = [code.split()[1:] for code in coded(row[1]) if code.startswith("gai-fast ")]
    for command in commands:
        found = command_of(command)
        flags = {flag for parameter in found.params for flag in parameter.opts}
        assert {code for code in coded(row[1]) if code.startswith("--")} <= flags
    if not commands:
        assert [code for code in coded(row[1]) if code.startswith("--")] == []
    named = {code for code in coded(row[1]) if code.startswith(("gai_fast_", "process_"))}
    assert named <= metrics()


def command_of(words: list[str]) -> click.Command:
    """Returns the command of these words."""
    found: click.Command = main
    for word in words:
        assert isinstance(found, click.Group)
        below = found.get_command(click.Context(found), word)
        assert below is not None, word
        found = below
    return found


def metrics() -> set[str]:
    """Returns the names of all metrics."""
    body, _ = PrometheusSink([]).expose()
    shown = set(re.findall(r"^# TYPE (\S+)", body.decode(), re.M))
    assert "gai_fast_requests_total" in shown
    others = {f"gai_fast_{name}": reading for name, reading in GAUGES.items()} | PROCESS
    return shown | {f"{name}_total" if reading.is_counter else name for name, reading in others.items()}


def test_every_metric_of_streams_is_named() -> None:
    page = read("docs/operations.md")
    named = {f"{each.metric.name}{'' if each.metric.bounds else '_total'}" for each in SERIES}
    assert {name for name in named if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("row", FIGURES, ids=lambda row: row[0])
def test_a_figure_of_sizing_stands_on_the_page_that_it_is_from(row: list[str]) -> None:
    [(figure, page, anchor)] = SOURCE.findall(row[-1])
    text = read(f"docs/{page}")
    [heading] = [
        each
        for each in re.findall(r"^#+ (.+)$", text, re.M)
        if re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") == anchor
    ]
    begin = re.search(rf"^#+ {re.escape(heading)}\n", text, re.M)
    assert begin is not None
    there = {*NUMBER.findall(re.split(r"^#+ ", text[begin.end() :], maxsplit=1, flags=re.M)[0])}
    asked = {*NUMBER.findall(figure)}
    assert asked
    assert asked <= there


def test_every_table_of_sizing_but_the_arithmetic_has_sources() -> None:
    without = [row[0] for row in rows(CHAPTERS["Size"]) if row not in FIGURES and row[0] != "what"]
    assert without[1:] == ["10", "100"]


def test_the_arithmetic_of_sizing_is_right() -> None:
    table = [row for row in rows(section(CHAPTERS["Size"], "Processor")) if row[0].isdigit()]
    assert table
    for rate, full, half in table:
        streams = 1e6 / 15.5 / int(rate)
        assert abs(int(full.replace(",", "")) / streams - 1) < 0.02
        assert abs(int(half.replace(",", "")) * 2 / streams - 1) < 0.02
