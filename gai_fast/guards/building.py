"""The automaton of a `[[guard]]` that finds matches itself: its patterns, its words, or its kinds of personal data."""

from __future__ import annotations

from collections.abc import Callable

from gai_fast.guards.automaton import Automaton, compile_rules
from gai_fast.guards.pii import rules
from gai_fast.guards.program import Rule, Words, nothing
from gai_fast.guards.waits import read_pattern
from gai_fast.model.settings import GuardSettings


def build(guard: GuardSettings, *, pause: Callable[[], object] = nothing) -> Automaton:
    """Builds the automaton of a guard.

    Args:
        guard: A guard without a judge. A match has its kind of personal data as category, or the guard's category.
        pause: As of `compile_rules`.

    Raises:
        BadPattern: A pattern is refused.
        TooLarge: There are more patterns or words than a guard may have.
    """
    category = guard.category_of()
    found: list[Rule | Words] = []
    for each in guard.patterns:
        pause()
        found.append(Rule(category, read_pattern(each, normal=guard.normalize, pause=pause)))
    if guard.words:
        found.append(Words(category, list(guard.words)))
    found += rules(guard.kinds)
    return compile_rules(found, normal=guard.normalize, pause=pause)
