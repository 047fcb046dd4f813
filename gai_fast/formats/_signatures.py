"""What a dialect must know of the providers whose signatures it passes on.

Read from the registry of providers: which encrypt their reasoning (if a provider does so in one of its APIs only, the
`start` has that API), and the names of signatures' authors. `core/signatures.py` has the sealed form.
"""

from __future__ import annotations

from importlib import import_module

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
    # Imported by name, since formats do not depend on providers. A stream of another process may have any provider.
    return provider in import_module("gai_fast.providers").ENCRYPTING
