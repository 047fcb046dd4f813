"""JSON with another value in one place."""

from __future__ import annotations

import copy
from typing import Any


def replaced(whole: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Returns a copy with another value at a path. It shares the rest with the original."""
    if not path:
        return value
    copied = copy.copy(whole)
    copied[path[0]] = replaced(whole[path[0]], path[1:], value)
    return copied
