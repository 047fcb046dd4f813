"""docs/architecture/glossary.md: alphabetical, one meaning a word, and each has a home that exists."""

from __future__ import annotations

from typing import Final

from tests.docs.pages import ROOT, coded, read, rows, section

GLOSSARY: Final = rows(section(read("docs/architecture/glossary.md"), "Glossary"))[1:]


def test_the_words_are_in_alphabetical_order_and_stand_once() -> None:
    words = [row[0] for row in GLOSSARY]
    assert words == sorted({*words}, key=str.casefold)


def test_every_word_has_a_meaning_and_a_home_that_exists() -> None:
    for word, meaning, home in GLOSSARY:
        assert meaning, word
        assert [path for path in coded(home) if not (ROOT / "gai_fast" / path).exists()] == [], word
