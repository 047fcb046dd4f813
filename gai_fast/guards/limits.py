"""Limits of guards.

Only this folder uses them. Limits shared by several folders are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in characters, unless the name says otherwise."""

    guards: int = 32
    """Guards of a configuration: each one reads every character."""

    guard_name: int = 32
    """The length of a guard's name, which is a label of metrics."""

    patterns: int = 10_000
    """Patterns of a guard: ten times as many as the largest public list of secrets' forms has."""

    pattern: int = 1024
    """The length of a pattern. A longer one is a list, which has a line for each entry."""

    pattern_depth: int = 100
    """Groups within each other: each one is a level of recursion of the parser."""

    pattern_repeats: int = 1000
    """The number in a counted repeat, as in RE2: each repetition is a position of its own."""

    guarded_words: int = 100_000
    """Words of a guard: all names of a large company's staff. They need 30 MiB."""

    guarded_word: int = 256
    """The length of a word, which may be a sentence. So many characters may be held."""

    positions: int = 500_000
    """Places between the characters of a guard's patterns and words, each with 200 bytes: 100 MB."""

    wait: int = 4096
    """Characters since the last place where a match could have ended. So many may be held, and are decided at once: a
    reader waits for a page of text at most."""

    subset_steps: int = 200_000
    """Steps of the proof that a pattern does not wait although one of its paths does: 0.1 s. A pattern that needs more
    is refused."""

    states: int = 50_000
    """States of an automaton, which are made as texts need them. A state needs some 600 bytes. Then all are dropped."""

    age: int = 16
    """Characters after which a group of threads gets a register. Most attempts fail sooner; loops have states for each
    age."""

    state_places: int = 2_000_000
    """Positions in all states together, 8 bytes each. Patterns with counted repeats have states of thousands."""

    state_edges: int = 400_000
    """Transitions of all states together, each up to 100 bytes: eight a state. Texts in many scripts need more."""

    classified: int = 64 * KIB
    """Code points beyond Latin-1 whose class is remembered: all that texts in a few languages use."""

    slice: int = 16 * KIB
    """Characters that are searched in one turn of the loop: unseen text takes up to 50 ms."""

    turn_steps: int = 50_000
    """Steps of making transitions in one turn of the loop, above which the rest waits: 50 ms. Patterns with counted
    repeats may need a thousand for a character."""

    jwt: int = 4000
    """The length of a token: HTTP servers accept headers of 4 to 8 KiB."""

    enumerated: int = 1024
    """Code points of a class whose NFKC is looked up one by one (`normalize`): no class that is written by hand has
    more."""

    held: int = 64 * KIB
    """Held characters with those that do not count (`normalize`). No text that is read has so many without width in
    one place: then all held text passes, because memory must stay bounded."""

    piece: int = 32
    """Characters after which a first piece is judged: a line of a chat."""

    longest_piece: int = 512
    """Characters of a piece: each has twice as many as the one before, because each costs a request."""

    piece_ms: int = 100
    """Milliseconds after which a shorter piece is judged: a reader takes less for a pause."""

    piece_context: int = 256
    """Characters that go along with a piece: what is wrong in it may have begun there."""

    exposure: int = 64 * KIB
    """The most characters that may be out before their verdict."""

    pieces_out: int = 4
    """Pieces of a stream that are judged at a time: a judge that takes longer than their text slows the stream."""

    input_piece: int = 32 * KIB
    """Characters of a piece of a request: moderations accept some 100,000."""

    input_pieces: int = 8
    """Pieces of a request that are judged at a time: a request of 256 KiB at once."""

    placeholders: int = 1000
    """Placeholders of a request. Further values get the guard's replacement."""

    built: int = 4096
    """Positions that are built between two calls of `pause`: a few milliseconds."""


LIMITS: Final = Limits()
