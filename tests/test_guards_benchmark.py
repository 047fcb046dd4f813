"""`benchmarks/macro/guards.py`: its bounds, and those of its figures that are counted and not timed."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.macro.guards import (
    EXPOSURE,
    LARGE,
    MOST,
    TOKEN_SECONDS,
    TOKENS,
    VERDICT_SECONDS,
    beginnings,
    patterns,
    stage_memory,
    words,
)
from benchmarks.macro.running import Fault
from benchmarks.macro.scene import check
from gai_fast.core.processing.processor import StreamInfo
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.automaton import Automaton, compile_rules
from gai_fast.guards.building import build
from gai_fast.guards.input import InputCheck
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.program import Rule, Words
from gai_fast.guards.stages.pieces import Passed, Piece, Pieces, Rules
from gai_fast.guards.verdicts import JudgeVerdict
from gai_fast.guards.waits import read_pattern
from gai_fast.model.settings import GuardSettings
from gai_fast.net.stream.guarding import GuardTallies

STEPS = 100
"""Steps of making transitions for a character that no state has seen, in lists as long as the benchmark's."""


def test_a_figure_beyond_its_bound_fails() -> None:
    check({**MOST}, MOST)
    for name, most in MOST.items():
        with pytest.raises(Fault, match=f"{name} is"):
            check({name: most * 1.01}, MOST)


def test_a_stream_that_holds_nothing_keeps_little() -> None:
    assert stage_memory(50) <= MOST["memory"] * 1024


def test_a_judge_within_its_exposure_delays_no_token() -> None:
    pieces = Pieces([Rules("stop", str, EXPOSURE)])
    waiting: list[tuple[int, Piece]] = []
    sent = asked = 0
    for now in range(int(TOKENS * TOKEN_SECONDS * 1000)):
        while waiting and waiting[0][0] <= now:
            pieces.judged(waiting.pop(0)[1], JudgeVerdict(flagged=False))
        number, rest = divmod(now, int(TOKEN_SECONDS * 1000))
        if not rest:
            pieces.add(number, f"{number:03} ", 0, "text", now_ms=now)
        for piece in pieces.asks(now):
            waiting.append((now + int(VERDICT_SECONDS * 1000), piece))
            asked += 1
        sent += sum(isinstance(each, Passed) for each in pieces.take())
        assert sent == number + 1, "as it comes"
    assert asked > TOKENS / 20


def test_no_turn_of_a_request_or_of_a_reload_is_long() -> None:
    pauses: list[int] = []
    lists = tuple(patterns(Random(1))), tuple(words(Random(2)))
    settings = [
        GuardSettings("patterns", "patterns", patterns=lists[0]),
        GuardSettings("words", "words", words=lists[1]),
    ]
    guards = [ActiveGuard(each, build(each, pause=lambda: pauses.append(1))) for each in settings]
    assert sum(map(len, lists[0] + lists[1])) / len(pauses) <= LIMITS.built, "letters between two pauses"
    text = beginnings(Random(3), LARGE // 8)
    made = InputCheck(guards, [text], StreamInfo("s"), GuardTallies())
    turns, before, is_over = 0, 0, False
    while not is_over:
        is_over = made.turn()
        steps = sum(each.automaton.steps for each in guards if each.automaton is not None)
        assert steps - before <= LIMITS.turn_steps + STEPS * LIMITS.slice_text
        turns, before = turns + 1, steps
    assert turns >= 2 * len(text) / LIMITS.slice


@pytest.mark.parametrize("kind", ["patterns", "words"])
def test_unseen_text_makes_few_states_and_known_text_none(kind: str) -> None:
    if kind == "patterns":
        automaton = compile_rules([Rule("p", read_pattern(each)) for each in patterns(Random(1))])
    else:
        automaton = compile_rules([Words("w", words(Random(2)))])
    text = beginnings(Random(5), 2_000)
    search(automaton, text)
    unseen = automaton.steps
    assert unseen <= STEPS * len(text)
    assert automaton.state_count <= min(LIMITS.states, 2 * len(text))
    search(automaton, text)
    assert automaton.steps == unseen


def search(automaton: Automaton, text: str) -> None:
    """Searches a text that comes in tokens."""
    scan = automaton.scan()
    for at in range(0, len(text), 4):
        scan.feed(text[at : at + 4])
    scan.end()
