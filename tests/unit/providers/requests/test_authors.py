"""The authors of signatures: dialects and providers that there are, each with a name of its own."""

from __future__ import annotations

from gai_fast.formats import FORMATS
from gai_fast.providers import DETAIL_FORMATS, DIALECT_AUTHORS, PROVIDERS, get_provider


def test_the_author_of_a_dialect_has_an_api_of_it() -> None:
    for dialect, provider in DIALECT_AUTHORS.items():
        assert dialect in FORMATS
        assert dialect in {get_provider(name).dialect for name in (provider, f"{provider}:{dialect}") if known(name)}


def known(name: str) -> bool:
    try:
        get_provider(name)
    except ValueError:
        return False
    return True


def test_a_name_of_openrouters_means_one_provider() -> None:
    assert set(DETAIL_FORMATS) <= set(PROVIDERS)
    assert len(set(DETAIL_FORMATS.values())) == len(DETAIL_FORMATS)
