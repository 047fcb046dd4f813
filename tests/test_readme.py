"""The README's examples work as they stand; every page is linked, and every link leads somewhere."""

from __future__ import annotations

import os
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
    library, _ = blocks("python")
    exec(compile(library, "README.md", "exec"), {})
    result = capsys.readouterr().out
    assert "Hello stop" in result
    assert "event: text.delta" in result


def test_the_gateway_in_process_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in os.environ:
        if name.startswith("GAI_FAST_") or name.endswith("_API_KEY") or name == "OLLAMA_HOST":
            monkeypatch.delenv(name)
    _, in_process = blocks("python")
    exec(compile(in_process, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("One stormy night")


def test_the_configuration_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "k")
    (toml,) = blocks("toml")
    tomllib.loads(toml)
    file = tmp_path / "gai-fast.toml"
    file.write_text(toml)
    assert load(file).model("fast") is not None


PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks/README.md",
    ROOT / "ci/README.md",
    ROOT / "benchmarks/HISTORY.md",
    ROOT / "examples/README.md",
    ROOT / "programs/README.md",
    ROOT / "tests/README.md",
]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_every_page_is_linked(page: Path) -> None:
    assert f"]({page.relative_to(ROOT)})" in TEXT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for name, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#]*)#?([^)]*)\)", page.read_text()):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
