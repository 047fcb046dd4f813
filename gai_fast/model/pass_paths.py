"""The entries of `[[upstream]] lane`: the methods and the paths of an upstream that the pass-through offers.

Owns their form and which paths they match. Sees decoded segments only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from gai_fast.model.limits import SHARED

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
"""The methods that an entry may name."""
_USUAL: Final = ("GET", "POST")
ENTRY: Final = re.compile(rf"(?:(?:{'|'.join(METHODS)}) )?(?:/(?!\.\.?(?:/|$))[^/\s?#%\\\x00-\x20\x7f]+)+")
"""The form of an entry: a method or none, and the path, decoded."""


class PassPath(NamedTuple):
    """One entry.

    Attributes:
        methods: The methods that it offers.
        segments: The patterns of the path's segments.
    """

    methods: tuple[str, ...]
    segments: tuple[re.Pattern[str], ...]

    def matches(self, segments: Sequence[str]) -> bool:
        """Returns whether the entry has this path.

        Args:
            segments: The decoded segments of the path.
        """
        return len(segments) == len(self.segments) and all(
            pattern.fullmatch(segment) for pattern, segment in zip(self.segments, segments, strict=True)
        )


@lru_cache(SHARED.known_values)
def pass_path(entry: str) -> PassPath:
    """Reads an entry: `/v1/embeddings`, `/v1/audio/*` or `DELETE /v1/x`. A `*` is any text within one segment.

    Args:
        entry: The entry.

    Raises:
        ValueError: It is not a valid entry.
    """
    if not ENTRY.fullmatch(entry):
        raise ValueError(f'{entry[: SHARED.identifier]!r} is no path such as "/v1/embeddings" or "DELETE /v1/x"')
    method, _, path = entry.rpartition(" ")
    segments = [".+".join(map(re.escape, segment.split("*"))) for segment in path[1:].split("/")]
    return PassPath((method,) if method else _USUAL, tuple(re.compile(each, re.DOTALL) for each in segments))


def offered_methods(entries: Sequence[str], segments: Sequence[str]) -> list[str]:
    """Returns the methods that the entries of an upstream offer for a path; empty if they do not have it.

    Args:
        entries: The entries.
        segments: The decoded segments of the path.
    """
    paths = [pass_path(entry) for entry in entries]
    return sorted({method for path in paths if path.matches(segments) for method in path.methods})
