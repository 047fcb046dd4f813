"""A JSON object that arrives in pieces: whether it is complete.

Owns the count of its brackets. Each piece is scanned once, so that a long object is not parsed with each piece.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gai_fast.kernels import compact_json
from gai_fast.model.events import join_surrogates

_MARKS: Final = re.compile(r"""[{}\[\]"\\]""")


class ObjectScan:
    """Counts the brackets of a growing text, so that the text is parsed only if it may be one whole object."""

    def __init__(self) -> None:
        self._taken = 0
        """The number of pieces that have been scanned."""
        self._depth = 0
        self._in_string = False
        self._skipped = 0
        """Characters at the start of the next piece that belong to an escape."""
        self._is_broken = False
        """Whether the text can no longer become one object."""
        self._is_parsed = False
        """Whether the text has been parsed. Any further bracket makes it invalid."""

    def is_whole(self, pieces: Sequence[str]) -> bool:
        """Returns whether the text is one object, and ends with it.

        Args:
            pieces: The text: the pieces of the last call, and those that have come since.
        """
        if not pieces or not pieces[-1].endswith("}"):
            return False
        for piece in pieces[self._taken :]:
            self._scan_piece(piece)
        self._taken = len(pieces)
        if not self._is_parsed and not (self._depth or self._in_string or self._is_broken):
            self._is_parsed = True  # once: any later bracket makes it invalid
            text = "".join(pieces)
            self._is_broken = compact_json(text if text.isascii() else join_surrogates(text)) is None
        return not (self._depth or self._in_string or self._is_broken)

    def _scan_piece(self, piece: str) -> None:
        skipped = self._skipped
        for mark in _MARKS.finditer(piece):
            at = mark.start()
            if at < skipped:
                continue
            character = piece[at]
            if self._in_string:
                if character == "\\":
                    skipped = at + 2
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._is_broken = self._is_broken or self._is_parsed
                self._depth += 1
            else:
                self._is_broken = self._is_broken or self._depth <= 0
                self._depth -= 1
        self._skipped = max(0, skipped - len(piece))
