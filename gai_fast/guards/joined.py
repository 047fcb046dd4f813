"""The texts of a request as judges get them: joined by a blank line, in pieces. Sans-IO."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from gai_fast.guards.limits import LIMITS
from gai_fast.guards.verdicts import JudgeVerdict

_BETWEEN: Final = "\n\n"


Edit = tuple[int, int, str]
"""A replacement: its begin and end in the joined text, and what stands there instead."""


def edits_of(start: int, text: str, verdict: JudgeVerdict, replacement: str) -> list[Edit]:
    """Returns the replacements of a piece that is masked: of its spans, without spans of the whole.

    Args:
        start: The piece's begin in the joined text.
        text: The piece.
        verdict: The verdict on the piece.
        replacement: What replaces a match.
    """
    if not verdict.flagged:
        return []
    spans = verdict.spans or ((0, len(text)),)
    return [(start + begin, start + end, replacement) for begin, end in spans]


class JoinedTexts:
    """The texts of a request as one text. Empty texts are left out.

    Args:
        texts: The texts, in the order of the request.

    Attributes:
        text: The whole.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.text = _BETWEEN.join([text for text in texts if text])

    def pieces(self) -> list[tuple[int, str]]:
        """Returns the pieces that are judged, each with its begin in the whole.

        A piece has at most `limits.judged_most` characters. It ends behind white space if one of its last
        `limits.judged_context` characters is some: a word is in one piece.
        """
        text, most = self.text, LIMITS.judged_most
        found: list[tuple[int, str]] = []
        start = 0
        while len(text) - start > most:
            end = start + most
            while end > start + most - LIMITS.judged_context and not text[end - 1].isspace():
                end -= 1
            if not text[end - 1].isspace():
                end = start + most
            found.append((start, text[start:end]))
            start = end
        if start < len(text):
            found.append((start, text[start:]))
        return found

    def masked(self, edits: Sequence[Edit]) -> list[str]:
        """Returns the texts with replacements, in the order of the request.

        Args:
            edits: The replacements. One that lies in several texts replaces its part of each. Where two overlap, one
                replacement stands: that of the one that begins first.
        """
        merged = _merged(edits)
        begins = [begin for begin, _, _ in merged]
        ends = [end for _, end, _ in merged]
        found = list(self._texts)
        places = [place for place, text in enumerate(found) if text]
        starts = [0, *accumulate([len(found[place]) + len(_BETWEEN) for place in places])]
        # Texts without an edit are not looked at: there may be 100,000.
        for begin, end, _ in merged:
            for at in range(max(bisect_right(starts, begin) - 1, 0), bisect_left(starts, end, hi=len(places))):
                place, start = places[at], starts[at]
                text = self._texts[place]
                if found[place] is text:
                    last = start + len(text)
                    found[place] = _masked(text, start, merged[bisect_right(ends, start) : bisect_left(begins, last)])
        return found


def _begin_of(edit: Edit) -> int:
    return edit[0]


def _merged(edits: Sequence[Edit]) -> list[Edit]:
    merged: list[Edit] = []
    for begin, end, replacement in sorted(edits, key=_begin_of):
        if merged and begin < merged[-1][1]:
            last = merged[-1]
            merged[-1] = last[0], max(last[1], end), last[2]
        else:
            merged.append((begin, end, replacement))
    return merged


def _masked(text: str, start: int, edits: Sequence[Edit]) -> str:
    """Returns a text with the replacements that lie in it.

    Args:
        text: The text.
        start: Its begin in the whole.
        edits: The replacements that lie in it, by their places in the whole: in order, without an overlap.
    """
    found: list[str] = []
    at = 0
    for begin, end, replacement in edits:
        found.append(text[at : max(begin - start, 0)])
        found.append(replacement)
        at = end - start
    found.append(text[at:])
    return "".join(found)
