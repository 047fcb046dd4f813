"""docs/architecture/: every folder stands in the map, and every module in the table of its folder."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.docs.pages import ROOT, blocks, coded, read, rows

PACKAGE: Final = ROOT / "gai_fast"
UNNAMED: Final = {"__init__", "limits"}
BY_FOLDER: Final = {"server": PACKAGE / "server", "net": PACKAGE}
BY_MODULE: Final = ("model-and-core", "stores-and-ledger", "library-and-commands")


def test_the_map_has_every_folder_and_no_other() -> None:
    [drawn] = [block.text for block in blocks(read("docs/architecture.md")) if block.text.startswith("gai_fast/")]
    shown, above = set(), ""
    for spaces, name in re.findall(r"^( +)(\w+)/", drawn, re.M):
        above = name if len(spaces) == 2 else above
        shown.add(name if len(spaces) == 2 else f"{above}/{name}")
    folders = [*PACKAGE.iterdir(), *(PACKAGE / "server").iterdir(), *(PACKAGE / "net").iterdir()]
    there = {str(each.relative_to(PACKAGE)) for each in folders if each.is_dir() and each.name != "__pycache__"}
    assert shown == there


@pytest.mark.parametrize("page", BY_FOLDER)
def test_a_table_of_folders_has_every_module(page: str) -> None:
    named: dict[str, set[str]] = {}
    folder = ""
    for first, modules in (row for row in rows(read(f"docs/architecture/{page}.md")) if len(row) == 2):
        folder = "." if first == "the root" else (coded(first) or [folder])[0]
        if folder:
            named.setdefault(folder, set()).update(coded(modules))
    named = {folder: words for folder, words in named.items() if (BY_FOLDER[page] / folder).is_dir()}
    assert len(named) > 6
    for folder, words in named.items():
        there = {file.stem for file in (BY_FOLDER[page] / folder).glob("*.py")} - UNNAMED
        assert there - words == set(), folder


@pytest.mark.parametrize("page", BY_MODULE)
def test_a_table_of_modules_has_every_module_and_no_other(page: str) -> None:
    tables = re.findall(
        r"^\| module of `([\w/]+)/` \|.*\n\|[-|]+\n((?:\|.*\n)+)", read(f"docs/architecture/{page}.md"), re.M
    )
    assert tables
    for folder, table in tables:
        named = {name.removesuffix(".py") for row in rows(table) for name in coded(row[0]) if name.endswith(".py")}
        there = {file.stem for file in (PACKAGE / folder).glob("*.py")} - UNNAMED
        assert named - UNNAMED == there, folder


def test_the_page_of_providers_and_formats_names_what_they_share_and_every_module_of_a_format() -> None:
    page = read("docs/architecture/providers-and-formats.md")
    wings = [folder for folder in (PACKAGE / "providers").iterdir() if (folder / "__init__.py").exists()]
    shared = [f"{folder.name}/{file.name}" for folder in wings for file in folder.glob("*.py")]
    shared = [name for name in shared if name.rpartition("/")[2].removesuffix(".py") not in UNNAMED]
    formats = [file.name for file in (PACKAGE / "formats").glob("*/[!_]*.py")]
    missing = [name for name in shared if f"`{name}`" not in page]
    assert missing + [name for name in formats if not re.search(rf"[`/]{name}`", page)] == []
