"""The docs have a bound: a new page takes its words from others."""

from __future__ import annotations

from typing import Final

import pytest

from tests.docs.pages import ROOT, words_of

BOUND: Final = 48_300
"""The words of README.md and of all pages in docs/, 1,700 of them for runs. They are 200 pages of print, which nobody
reads; a fact that stands there twice is cut."""


def test_the_pages_have_no_more_words_than_the_bound() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    counted = {page.name: words_of(page.read_text(encoding="utf-8")) for page in pages}
    assert sum(counted.values()) <= BOUND, sorted(counted.items(), key=lambda item: -item[1])[:10]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two words, and `one_name` more.", 5),
        ("# A heading\n\n* an item\n* **Bold** text", 6),
        ("[a link](https://example.com/a page)", 2),
        ("| key | 2 |\n|---|--:|\n| `a` `b` | 0.14–0.56 |", 3),
        ("before\n\n```python\nfive = words + of - code\n```\n\nafter", 2),
    ],
)
def test_words_are_counted_in_prose_and_tables_without_code_and_addresses(text: str, words: int) -> None:
    assert words_of(text) == words
