"""The wire formats: one line each; a format's module is imported at its first use."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Final

from gai_fast.formats._base import (
    ClientRequest,
    Encoder,
    Format,
    Framing,
    KeptAnswer,
    PassthroughEncoder,
    RestingEncoder,
    StreamContext,
    StreamEncoder,
)

__all__ = [
    "FORMATS",
    "ClientRequest",
    "Encoder",
    "Format",
    "Framing",
    "KeptAnswer",
    "PassthroughEncoder",
    "RestingEncoder",
    "StreamContext",
    "StreamEncoder",
    "get_format",
    "known_format",
]

# A format's module holds `FORMAT`.
FORMATS: Final = {
    "anthropic": "gai_fast.formats.messages",
    "gai": "gai_fast.formats.gai",
    "openai": "gai_fast.formats.chat",
    "responses": "gai_fast.formats.responses",
    "completions": "gai_fast.formats.chat.completions",
    "simple": "gai_fast.formats.simple",
    "vercel": "gai_fast.formats.vercel",
    "agui": "gai_fast.formats.agui",
    "raw": "gai_fast.formats.raw",
}


def known_format(name: str) -> Format | None:
    """Returns the format of this name, or None if it is unknown.

    Args:
        name: From a client.
    """
    return get_format(name) if name in FORMATS else None


@cache
def get_format(name: str) -> Format:
    """Returns the format of this name.

    Raises:
        ValueError: The name is unknown; the text lists the known ones.
    """
    module = FORMATS.get(name)
    if module is None:
        raise ValueError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    found: Format = import_module(module).FORMAT
    return found
