"""The site (`make docs`): it is built without a warning, its links lead somewhere, and it needs no network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_blocks import PAGES
from tests.waiting import SECONDS

LOADED: Final = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src"}
"""The attribute by which an element makes the browser load something."""


class Page(HTMLParser):
    """The ids, the links and the loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.loads.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the built site, by the command of `make docs`."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        ["bash", "ci/docs.sh", folder],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS * 4,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_page_is_on_the_site_and_in_its_contents(site: Path, pages: dict[Path, Page]) -> None:
    for name in PAGES:
        page = site / Path(name).with_suffix(".html")
        assert page in pages
        assert page == site / "README.html" or page.relative_to(site).as_posix() in pages[site / "index.html"].links


def test_every_link_within_the_site_leads_to_a_file_and_to_an_anchor(pages: dict[Path, Page]) -> None:
    broken = defaultdict(list)
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids
            ):
                broken[path.name].append(link)
    assert broken == {}


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loaded = [load for page in pages.values() for load in page.loads]
    assert loaded
    assert [load for load in loaded if urlsplit(load).netloc] == []
    styles = list(site.rglob("*.css"))
    assert styles
    assert [style.name for style in styles if any(_foreign(style))] == []


def _foreign(style: Path) -> Iterator[bool]:
    """Yields whether a style loads a font, an image or another style over the network."""
    text = style.read_text(encoding="utf-8")
    for word in ("url(http", "url('http", 'url("http', "url(//", "@import", "@font-face"):
        yield word in text
