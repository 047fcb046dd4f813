"""Facts about the providers whose signatures a dialect passes on.

Read from the registry of providers: which encrypt their reasoning (if a provider does so in one of its APIs only, the
`start` has that API), whose a dialect is, and the names of authors. `core/requests/signatures.py` has the sealed form.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from gai_fast.model.events import Event


def encrypts(start: Event) -> bool:
    """Returns whether each signature of an answer is its whole reasoning, encrypted.

    Args:
        start: The answer's `start`, or an empty dict if it is unknown.
    """
    return start.get("provider_metadata", {}).get("api") == "responses" or is_encrypted(start.get("provider"))


def is_encrypted(provider: str | None) -> bool:
    """Returns whether a provider's signatures are its whole reasoning, encrypted, as in the Responses API.

    Args:
        provider: The name in events, or None if it is unknown.
    """
    return provider is not None and bool(_registry().encrypts(provider))


def signs_texts(provider: str | None) -> bool:
    """Returns whether a provider's signature without a reasoning text signs the visible text."""
    return provider is not None and bool(_registry().signs_texts(provider))


@cache
def author_of(dialect: str) -> str:
    """Returns the provider that defines a dialect: the author of its signatures and blocks without an author's name."""
    return str(_registry().DIALECT_AUTHORS[dialect])


def detail_format_of(provider: str) -> str | None:
    """Returns OpenRouter's own name for an author, or None if it has none."""
    found: str | None = _registry().DETAIL_FORMATS.get(provider)
    return found


def author_by_detail_format(name: str) -> str | None:
    """Returns the provider for which OpenRouter has an own name, or None if no provider has this one."""
    for provider, known in _registry().DETAIL_FORMATS.items():
        if known == name:
            return str(provider)
    return None


def _registry() -> Any:
    # Imported by name, since formats do not depend on providers. A stream of another process may have any provider.
    return import_module("gai_fast.providers")
