"""What the tests of guards share: a search over a text that is cut in pieces, and RE2 as the judge of its matches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import re2
from hypothesis import strategies as st

from gai_fast.guards.arguments import TextSearch
from gai_fast.guards.automaton import Match, Piece
from gai_fast.guards.program import Rule
from gai_fast.guards.waits import read_pattern

Span = tuple[int, int]


def pattern_rules(patterns: Iterable[str], *, normal: bool = False) -> list[Rule]:
    return [Rule("found", read_pattern(each, normal=normal)) for each in patterns]


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    """Returns a text in pieces; the sizes repeat."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    return pieces


def searched(search: TextSearch, pieces: Iterable[str]) -> list[Piece]:
    """Returns what a search decides about a whole text, text that is not interrupted in one."""
    found: list[Piece] = []
    for each in [*(search.feed(piece) for piece in pieces), search.end()]:
        for decided in each:
            if isinstance(decided, str) and found and isinstance(found[-1], str):
                found[-1] += decided
            else:
                found.append(decided)
    return found


def spans(pieces: Iterable[Piece]) -> list[Span]:
    return [(each.start, each.end) for each in pieces if isinstance(each, Match)]


def put_back(pieces: Iterable[Piece], text: str) -> str:
    """Returns the text that a search was given, from what it decided."""
    return "".join(each if isinstance(each, str) else text[each.start : each.end] for each in pieces)


def judged(patterns: Iterable[str], text: str) -> list[Span]:
    """Returns the matches by RE2: the leftmost, and of those the longest."""
    options = re2.Options()
    options.longest_match = True
    options.log_errors = False
    alternatives = [each.removeprefix("(?i)") for each in patterns]
    fold = "(?i)" if any(each.startswith("(?i)") for each in patterns) else ""
    compiled = re2.compile(fold + "|".join(f"(?:{each})" for each in alternatives), options)
    return [found.span() for found in compiled.finditer(text)]


def patterns_of(*atoms: str, leaves: int = 8) -> st.SearchStrategy[str]:
    """Returns random patterns of some atoms."""
    repeats = ["?", "*", "+", "{2}", "{1,3}", "{0,2}", "{2,}", "*?", "+?", "??"]
    return st.recursive(
        st.sampled_from(atoms),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda both: f"(?:{both[0]}|{both[1]})"),
            st.tuples(inner, st.sampled_from(repeats)).map(lambda both: f"({both[0]}){both[1]}"),
        ),
        max_leaves=leaves,
    )


sizes = st.lists(st.integers(1, 5), min_size=1, max_size=6)
