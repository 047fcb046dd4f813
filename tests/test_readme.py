"""What the README shows works as it stands there."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from gai_fast.config import load

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.S | re.M)


def test_the_library_in_ten_lines_runs(capsys: pytest.CaptureFixture[str]) -> None:
    library, in_process = blocks("python")
    exec(compile(library, "README.md", "exec"), {})
    told = capsys.readouterr().out
    assert "Hello stop" in told
    assert "event: text.delta" in told
    compile(in_process, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_configuration_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "k")
    (toml,) = blocks("toml")
    tomllib.loads(toml)
    file = tmp_path / "gai-fast.toml"
    file.write_text(toml)
    assert load(file).model("fast") is not None


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_page_is_linked_and_every_link_leads_somewhere(page: Path) -> None:
    if page.name != "local-model.md":
        assert f"](docs/{page.name})" in TEXT
    for text, folder in ((TEXT, ROOT), (page.read_text(), page.parent)):
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
            assert (folder / link).exists(), f"{page.name}: {link}"
