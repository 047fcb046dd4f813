"""The configurations that pages show: each can be loaded as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks
from tests.unit.config.folders import Folder

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE_OF = {page.name: page for page in PAGES}
SHOWN = [(page.name, block) for page in PAGES for block in blocks(page.read_text()) if block.language == "toml"]


@pytest.mark.parametrize(("page", "block"), SHOWN, ids=[f"{page}:{block.line}" for page, block in SHOWN])
def test_a_configuration_of_a_page_can_be_loaded(tmp_path: Path, page: str, block: Block) -> None:
    if "[[price]]" in block.text:  # a price list, which a configuration names
        (tmp_path / "prices.toml").write_text(block.text)
        Folder(tmp_path).read('[prices]\nfile = "prices.toml"')
        return
    if 'python = "my_model:answer"' in block.text:  # the function is on the page, too
        [code] = [each for each in blocks((ROOT / "docs" / page).read_text()) if each.language == "python"]
        (tmp_path / "my_model.py").write_text(code.text)
    for code in blocks((PAGE_OF[page]).read_text()):  # what its reader has written before
        for name, text in re.findall(r"cat > (\w+\.py) <<'END'\n(.*?)^END$", code.text, re.M | re.S):
            (tmp_path / name).write_text(text)
    variables = re.findall(r"env:(\w+)", block.text)
    Folder(tmp_path).read(block.text, dict.fromkeys(variables, "a-long-secret"))
