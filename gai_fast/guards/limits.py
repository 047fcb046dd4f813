"""Limits of guards.

Only this folder uses them. Limits of the configuration are in `config/limits.py`, of requests to judges in
`net/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in characters, times in milliseconds, unless the name says otherwise."""

    pattern: int = 1024
    """The length of a pattern. A longer one is a list, which has a line for each entry."""

    pattern_depth: int = 100
    """Groups within each other: each one is a level of recursion of the parser."""

    pattern_repeats: int = 1000
    """The number in a counted repeat, as in RE2: each repetition is a position of its own."""

    positions: int = 500_000
    """Places between the characters of a guard's patterns and words, each with 200 bytes: 100 MB."""

    wait: int = 4096
    """Characters since the last place where a match could have ended. So many may be held, and are decided at once: a
    reader waits for a page of text at most."""

    subset_steps: int = 200_000
    """Steps of the proof that a pattern does not wait although one of its paths does: 0.1 s. A pattern that needs more
    is refused."""

    states: int = 50_000
    """States of an automaton, which are made as texts need them. A state needs some 800 bytes. Then all are dropped,
    and freed as others are made: for a while there are twice as many."""

    state_size: int = 40
    """The size of a state besides its positions, in positions: `state_places` for `states`."""

    edge_size: int = 5
    """The size of a transition, in positions: `state_places` for `state_edges`."""

    request_room: int = 100_000
    """The size of what the texts of one request add to an automaton, in positions: a twentieth of all, 2,500 states.
    Prose and code need some hundreds, a megabyte of base64 as many. Where a pattern needs more, it needs a state a
    character."""

    caller_room: int = 1_000_000
    """As `request_room`, of all texts of a caller if there are several callers: half."""

    freed: int = 16
    """Dropped states that are freed for each that is made: those of patterns with large ones are few."""

    request_steps: int = 10_000_000
    """Steps of making transitions for the texts of one request, above which its guards fail: some 5 s of a processor.
    400 KB of digits in any order need 4 million, prose some thousands."""

    trial: int = 1000
    """Characters of half of the text on which a pattern is tried (`growth`): repeats of hundreds are full by then."""

    trial_growth: int = 4
    """Characters of its second half, of which a pattern that grows needs a state for one at least: usual ones need one
    for twenty, those with two long repeats that begin again within them one for two."""

    trial_path: int = 16
    """Characters of a path through a pattern on which it is tried, on average: the next beginning is within the repeat
    of the one before."""

    trial_letters: int = 32
    """Characters of a range of which the text of a trial has some: a script has as many letters."""

    trial_steps: int = 5_000_000
    """Steps of trying the patterns of all guards, some 5 s: a hundred that grow, or three hundred that do not."""

    trial_character: int = 8
    """The steps that making and reading a character of the trial's text count for."""

    checked: int = 64
    """Characters of a match that are checked in the time of a step."""

    near: int = 64
    """Classes of characters, the first that texts have, whose transitions stand in a list, 512 bytes a state: letters
    and digits of a language."""

    group_steps: int = 8
    """Steps that a group takes in making a transition, besides one for each of its places: digits with blanks between
    them have 20 groups of one place each."""

    age: int = 16
    """Characters after which a group of threads gets a register. Most attempts fail sooner; loops have states for each
    age."""

    state_places: int = 2_000_000
    """Positions in all states together, 8 bytes each. Patterns with counted repeats have states of thousands."""

    state_edges: int = 400_000
    """Transitions of all states together, each up to 100 bytes: eight a state. Texts in many scripts need more."""

    classified: int = 64 * KIB
    """Code points whose class is remembered, in each of two tables: all that texts in a few languages use."""

    slice: int = 16 * KIB
    """Characters that are searched in one turn of the loop: unseen text takes up to 50 ms."""

    slice_text: int = 8
    """Characters of a slice that a text takes besides its own, if only because it is there: its search begins and ends,
    in a few microseconds. Arguments of a call may be 100,000 strings without a character."""

    turn_steps: int = 50_000
    """Steps of making transitions in one turn of the loop, above which the rest waits: 50 ms. Patterns with counted
    repeats may need a thousand for a character."""

    output_steps: int = 20_000
    """What the search of an answer takes in one turn of the loop, in steps of making transitions: 20 ms. Answers do not
    wait for each other, and five of them may have long deltas at once."""

    behind: int = 64 * KIB
    """Characters and bytes of the events that wait behind a held text: usage, citations, signatures. No answer has so
    many of them in one place."""

    character_steps: int = 2
    """The steps that count for a character of an answer, which the search reads whatever transitions there are."""

    jwt: int = 4000
    """The length of a token: HTTP servers accept headers of 4 to 8 KiB."""

    enumerated: int = 1024
    """Code points of a class whose NFKC is looked up one by one (`normalize`): no class that is written by hand has
    more."""

    held: int = 64 * KIB
    """Held characters with those that do not count (`normalize`). No text that is read has so many without width in
    one place: then all held text passes, because memory must stay bounded."""

    placeholders: int = 1000
    """Placeholders of a request. Further values get the guard's replacement."""

    built: int = 4096
    """Positions that are built, or letters of words that are read, between two calls of `pause`: a few milliseconds."""

    judged_first: int = 32
    """Characters at which the first piece of a text is judged: some eight tokens, the least that has a meaning."""

    judged_growth: int = 2
    """The size of a piece relative to the last one: a long text needs few requests, and its beginning waits little."""

    judged_usual: int = 512
    """Characters up to which pieces grow: a paragraph, which a reader gets at once."""

    judged_wait: int = 100
    """Milliseconds after the first character of a piece at which it is judged, whatever its size: a pause that readers
    hardly notice."""

    judged_context: int = 256
    """Characters before a piece that are judged with it: two or three sentences."""

    judged_at_once: int = 4
    """Pieces of one stream that one judge has at a time: at 300 ms each, 13 in a second, more than a stream has."""

    judged_most: int = 32_768
    """Characters of the largest piece: less than the 32,768 tokens that moderations accept. Complete arguments of a
    call are one piece, whatever their size."""


LIMITS: Final = Limits()
