"""The headers of an upstream's response that are passed on to the client if it gets the upstream's own bytes.

Owns the list of their names and the check of their values. Never passed on are the headers of the connection and of the
body (`content-*`), cookies, and `x-request-id` and `request-id`, which name the gateway's own request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gai_fast.model.limits import SHARED

_PASSED: Final[tuple[str, ...]] = ("x-ratelimit", "openai-", "anthropic-")
"""The prefixes of their names: rate limits, times, versions, and the account."""
_FIRST: Final = frozenset(name[0] for name in _PASSED)
"""Their first letters: most headers are rejected by the first letter, which saves 200 instructions each."""
_NAME: Final = re.compile(r"[a-z0-9-]{1,64}")


def passed_headers(headers: dict[str, str]) -> Sequence[tuple[str, str]]:
    """Returns the headers that are passed on, at most `limits.passed_headers`.

    Args:
        headers: The headers of the upstream's response, which is not trusted; lower-case names.
    """
    passed = [
        (name, value)
        for name, value in headers.items()
        if name[:1] in _FIRST and name.startswith(_PASSED) and _is_writable(name, value)
    ]
    return passed[: SHARED.passed_headers]


def _is_writable(name: str, value: str) -> bool:
    """Returns whether a header is short, and has neither control nor non-ASCII characters."""
    is_text = value.isascii() and value.isprintable()
    return is_text and 0 < len(value) <= SHARED.passed_value and _NAME.fullmatch(name) is not None
