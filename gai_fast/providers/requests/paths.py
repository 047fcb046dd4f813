"""The caller's text in the path of a request: the id of a model, where an API has it in the URL.

Owns which ids are refused. A request carries the gateway's credential, so its path must mean one thing to every server
that reads it: a proxy may decode it, once or twice, before it resolves dot segments (RFC 3986, 5.2.4 and 6.2.2).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from gai_fast.model.errors import NotFound

_ENCODED: Final = re.compile("%[0-9A-Fa-f]{2}")
_DOTS: Final = frozenset(("", ".", ".."))


def in_path(identifier: str, kind: str, safe: str = "") -> str:
    """Returns an id percent-encoded for a path.

    Args:
        identifier: The id of a model; the caller may have chosen it.
        kind: What the id names, such as `a model`, for the error.
        safe: The characters that stay as they are, as for `urllib.parse.quote`.

    Raises:
        NotFound: The id could lead to another path: it has a percent-encoded character, a backslash, a character that
            cannot be printed, or an empty or dot segment.
    """
    segments = [each.partition(";")[0] for each in identifier.split("/")]  # servlets read `..;x` as `..`
    is_clear = identifier.isprintable() and "\\" not in identifier and not _ENCODED.search(identifier)
    if not is_clear or not _DOTS.isdisjoint(segments):
        raise NotFound(message=f"The model's id is no name of {kind}", reason="model")
    return quote(identifier, safe=safe)
