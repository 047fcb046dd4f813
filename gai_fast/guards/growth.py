"""Which patterns grow without end: a text that fits to them needs another state of the automaton a character.

Found out by a trial: a text of many beginnings of matches, the same each time, searched alone. A pattern that is done
with its states after the first half of it does not grow.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from gai_fast.guards.automaton import compile_rules
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.program import Program, Rule
from gai_fast.guards.waits import consuming, read_pattern
from gai_fast.model.settings import GuardSettings


def warnings(guards: Iterable[GuardSettings]) -> list[str]:
    """Returns a warning for each pattern of some guards that grows, and one for all that are not tried: all trials
    together take `limits.trial_steps`.

    Raises:
        BadPattern: A pattern is refused.
    """
    found: list[str] = []
    left = LIMITS.trial_steps
    untried = 0
    for guard in guards:
        for pattern in guard.patterns:
            if left <= 0:
                untried += 1
                continue
            grows, steps = _grows(Rule("", read_pattern(pattern, normal=guard.normalize)))
            left -= steps
            if grows:
                found.append(
                    f"guard {guard.name}: `{pattern}` needs much work for texts that fit to it: a repeat also reads "
                    "what begins a match. Make its repeats shorter, or their characters fewer"
                )
    if untried:
        found.append(
            f"guards: {untried} patterns were not tried for their work (limit trial_steps): `gai-fast guard test "
            "--guard NAME` tries those of one guard"
        )
    return found


def _grows(rule: Rule) -> tuple[bool, int]:
    """Returns whether the pattern of a rule grows, and the steps of the trial."""
    program = Program()
    program.add(rule)
    if not program.within:  # no repeat
        return False, 0
    automaton = compile_rules([rule])
    scan = automaton.scan()
    text = _fitting(program, 2 * LIMITS.trial)
    scan.feed_turn(text[: LIMITS.trial], 0, LIMITS.trial_steps)
    before = automaton.state_count
    scan.feed_turn(text[LIMITS.trial :], 0, LIMITS.trial_steps)
    is_large = automaton.generation > 0 or automaton.steps > LIMITS.trial_steps
    grows = is_large or (automaton.state_count - before) * LIMITS.trial_growth > LIMITS.trial
    return grows, automaton.steps + len(text) * LIMITS.trial_character


def _fitting(program: Program, size: int) -> str:
    """Returns a text of many beginnings of matches: paths through the nodes, each of some characters."""
    chance = random.Random(1)  # no secret: the same text each time
    begin = consuming(program, [node for entry in program.entries for node in entry.nodes])[0]
    nodes = begin
    letters: list[str] = []
    while len(letters) < size:
        if not nodes or chance.randrange(LIMITS.trial_path) == 0:
            nodes = begin
        node = chance.choice(nodes)
        points = program.sets[program.values[node]]
        at = 2 * chance.randrange(len(points) // 2)
        letters.append(chr(chance.randrange(points[at], min(points[at + 1], points[at] + LIMITS.trial_letters))))
        nodes = consuming(program, [program.following[node]])[0]
    return "".join(letters)
