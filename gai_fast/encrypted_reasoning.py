"""The providers whose signatures are their whole reasoning, encrypted: those that have a Responses API.

Owns the set alone, so that formats need no names of providers, nor providers those of formats.
"""

from __future__ import annotations

from typing import Final

_PROVIDERS: Final[set[str]] = set()


def add_encrypting(provider: str) -> None:
    """Adds a provider. Each Responses API adds its own when it is made, which is before its first answer."""
    _PROVIDERS.add(provider)


def is_encrypted(provider: str | None) -> bool:
    """Whether a provider's signatures are its whole reasoning, encrypted.

    Args:
        provider: The name in events; `None`: unknown.
    """
    return provider in _PROVIDERS
