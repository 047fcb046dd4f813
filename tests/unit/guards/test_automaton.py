"""The search, judged by RE2 and, for what is held, by trying every way in which a text may go on."""

from __future__ import annotations

import itertools
import random
import tracemalloc

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gai_fast.guards import pii
from gai_fast.guards.automaton import Automaton, Match, Piece, SearchTurn, Words, compile_rules
from gai_fast.guards.program import CheckGate, Rule
from gai_fast.guards.syntax import BadPattern, Sequence, parse
from tests.conftest import ChangeLimits
from tests.limits import LIMITS, set_limit
from tests.unit.guards.searching import Span, cut, judged, pattern_rules, patterns_of, put_back, searched, sizes, spans


def automaton_of(*patterns: str) -> Automaton:
    try:
        return compile_rules(pattern_rules(patterns))
    except BadPattern:
        assume(False)
        raise


few = st.lists(patterns_of("a", "b", "c", "[ab]", "[^a]", ".", "bc"), min_size=1, max_size=3)
many = st.lists(patterns_of("a", "k", r"\d", r"\w", r"\W", "[^1]", "é", "[a-é]", ".", "ss"), min_size=1, max_size=3)


@given(few, st.text(alphabet="abc\n", max_size=24), sizes)
@settings(max_examples=settings().max_examples * 3 // 2)
def test_any_cut_finds_what_re2_finds_in_the_whole_text(patterns: list[str], text: str, sizes: list[int]) -> None:
    automaton = automaton_of(*patterns)
    found = searched(automaton.scan(), cut(text, sizes))
    assert spans(found) == judged(patterns, text)
    assert put_back(found, text) == text


@given(many, st.booleans(), st.text(alphabet="aAkK\u212aßẞsSſ1é -\n\U0001f600", max_size=16), sizes)
@settings(max_examples=settings().max_examples * 3 // 4)
def test_classes_and_case_are_re2s(patterns: list[str], fold: bool, text: str, sizes: list[int]) -> None:
    patterns = [f"(?i){each}" if fold else each for each in patterns]
    automaton = automaton_of(*patterns)
    assert spans(searched(automaton.scan(), cut(text, sizes))) == judged(patterns, text)


def undecided(patterns: list[str], text: str, alphabet: str, longest: int) -> int:
    """Returns the first place of a text whose match depends on how the text goes on; its length if there is none."""

    def covers(spans: list[Span]) -> list[int]:
        found = [-1] * len(text)
        for start, end in spans:
            found[start : min(end, len(text))] = [start] * (min(end, len(text)) - start)
        return found

    ways = [
        covers(judged(patterns, text + "".join(way)))
        for size in range(longest + 1)
        for way in itertools.product(alphabet, repeat=size)
    ]
    return next((at for at, states in enumerate(zip(*ways, strict=True)) if len(set(states)) > 1), len(text))


@given(
    st.lists(patterns_of("a", "b", "[ab]", "ab", leaves=4), min_size=1, max_size=2),
    st.text(alphabet="ab", min_size=1, max_size=8),
    sizes,
)
@settings(max_examples=settings().max_examples // 2)
def test_exactly_what_may_become_a_match_is_held(patterns: list[str], text: str, sizes: list[int]) -> None:
    rules = automaton_of(*patterns)
    assume(sum(each.node.positions() for each in pattern_rules(patterns)) <= 6)
    scan = rules.scan()
    at = 0
    for piece in cut(text, sizes):
        scan.feed(piece)
        at += len(piece)
        assert at - scan.held == undecided(patterns, text[:at], "ab", 6)


@given(few, st.text(alphabet="abc", max_size=24), sizes)
def test_a_search_that_holds_nothing_passes_each_piece_at_once(
    patterns: list[str], text: str, sizes: list[int]
) -> None:
    automaton = automaton_of(*patterns)
    scan = automaton.scan(holds=False)
    matches: list[Match] = []
    for piece in cut(text, sizes):
        first, *others = scan.feed(piece)
        assert first == piece
        assert scan.held == 0
        matches += [each for each in others if isinstance(each, Match)]
    matches += [each for each in scan.end() if isinstance(each, Match)]
    assert spans(matches) == judged(patterns, text)


@given(few, st.lists(st.text(alphabet="abc", max_size=12), min_size=2, max_size=4), sizes)
def test_texts_share_an_automaton_whose_states_are_dropped(
    patterns: list[str], texts: list[str], sizes: list[int]
) -> None:
    former = LIMITS.states
    set_limit("states", 3)
    try:
        automaton = automaton_of(*patterns)
        scans = [automaton.scan() for _ in texts]
        found: list[list[Span]] = [[] for _ in texts]
        for turn in itertools.zip_longest(*[cut(text, sizes) for text in texts]):
            for scan, spans_, piece in zip(scans, found, turn, strict=True):
                spans_ += spans(scan.feed(piece or ""))
                assert automaton.state_count <= 3
        for scan, spans_ in zip(scans, found, strict=True):
            spans_ += spans(scan.end())
        assert found == [judged(patterns, text) for text in texts]
    finally:
        set_limit("states", former)


@given(few, st.text(alphabet="abcd-", max_size=20), sizes, st.sampled_from([0, 1, 2]))
def test_transitions_stand_in_a_list_or_not(patterns: list[str], text: str, sizes: list[int], near: int) -> None:
    former = LIMITS.near
    set_limit("near", near)
    try:
        scan = automaton_of(*patterns).scan()
        for _ in range(2):  # made, and found again
            assert spans(searched(scan, cut(text, sizes))) == judged(patterns, text)
    finally:
        set_limit("near", former)


def test_text_without_a_candidate_passes_as_the_same_object() -> None:
    scan = compile_rules(pattern_rules(["sk-[a-z]{4,}"])).scan()
    for text in ("nothing here", "é漢"):
        (passed,) = scan.feed(text)
        assert passed is text
    assert scan.feed("") == []


def test_a_match_that_goes_on_is_swallowed_as_it_comes() -> None:
    scan = compile_rules(pattern_rules(["sk-[a-z]{4,}"])).scan()
    assert scan.feed("a sk-abc") == ["a "]
    assert scan.held == 6
    assert scan.certain is None
    assert scan.feed("d") == []
    assert scan.held == 0
    assert scan.certain == Match("found", 2, 9, 0)
    assert scan.feed("x" * 100_000) == []
    assert scan.held == 0
    assert scan.feed(" b") == [Match("found", 2, 100_009, 0), " b"]
    assert scan.certain is None


def test_the_end_of_a_text_decides() -> None:
    scan = compile_rules(pattern_rules(["ab", "abcd", "bce"])).scan()
    assert scan.feed("xabc") == ["x"]
    assert scan.held == 1
    assert scan.end() == [Match("found", 1, 3, 0), "c"]
    assert scan.feed("ab") == []
    assert scan.end() == [Match("found", 0, 2, 0)]  # as of another text
    assert scan.end() == []
    scan.feed("xab")
    scan.reset()
    assert scan.feed("cd") == ["cd"]


def test_the_longest_match_at_a_place_names_its_rule_and_the_first_of_equal_ones() -> None:
    scan = compile_rules(pattern_rules(["a", "ab", "a.", "ac+"])).scan()
    assert searched(scan, ["abacca"]) == [
        Match("found", 0, 2, 1),
        Match("found", 2, 5, 3),
        Match("found", 5, 6, 0),
    ]


def test_matches_behind_a_longer_one_that_fails_are_all_found() -> None:
    """`ab` matches again and again while `(ab){0,1000}c` may still match everything."""
    scan = compile_rules(pattern_rules(["ab", "(?:ab){0,1000}c"])).scan()
    assert scan.feed("ab" * 300) == []
    assert scan.held == 598
    found = searched(scan, ["x"])
    assert len(spans(found)) == 300
    assert spans(searched(scan, ["ab" * 300 + "c"])) == [(0, 601)]


@pytest.mark.parametrize("size", [1, 7, 16_384])
def test_long_texts_without_a_space(size: int) -> None:
    automaton = compile_rules(
        [*pattern_rules(["a[ab]{30}c", "[^ ]{100}d", "x{1,200}y"]), Words("words", ["aaa", "bab"])]
    )
    text = "".join(random.Random(size).choices("ab", k=2000)) + "x" * 1000
    found = searched(automaton.scan(), cut(text, [size]))
    assert found == [text]
    assert automaton.state_count < 40_000


@pytest.mark.parametrize("alphabet", ["abc_-.%+@:/?#", "0123456789", "ABCdef0123456789+/="])
def test_64_kib_without_a_space_take_few_steps_and_hold_little(alphabet: str) -> None:
    automaton = compile_rules([*pii.rules(pii.KINDS), *pattern_rules(["[^ ]{30}d", "(x{1,9}x{1,9}){1,9}y"])])
    text = "".join(random.Random(7).choices(alphabet, k=64 * 1024))
    scan = automaton.scan()
    passed: list[str | Match] = []
    for piece in cut(text, [512]):
        passed += scan.feed(piece)
        assert scan.held <= 4096
    assert put_back([*passed, *scan.end()], text) == text
    assert automaton.steps <= 500 * len(text)


@pytest.mark.parametrize("pattern", [r"[\x00-\x{10FFFF}]", r".|\n", r"[\x00-\x{10FFFF}]{1,3}"])
def test_a_pattern_that_matches_everything_lets_nothing_pass(pattern: str) -> None:
    text = "a\n\U0001f600" * 300
    for size in (1, 2, 1000):
        scan = automaton_of(pattern).scan()
        found = searched(scan, cut(text, [size]))
        assert not [each for each in found if isinstance(each, str)]
        assert put_back(found, text) == text


@given(few, st.text(alphabet="abc", max_size=24), st.integers(1, 9), st.integers(1, 40))
@settings(max_examples=settings().max_examples // 2)
def test_a_long_text_is_searched_in_turns(patterns: list[str], text: str, size: int, steps: int) -> None:
    automaton = automaton_of(*patterns)
    former = {name: getattr(LIMITS, name) for name in ("slice", "turn_steps")}
    set_limit("slice", size)
    set_limit("turn_steps", steps)
    try:
        scan = automaton.scan()
        found, at = [], 0
        while at < len(text):
            pieces, following = scan.feed_turn(text, at, LIMITS.turn_steps)
            assert at < following <= at + size
            found += pieces
            at = following
    finally:
        for name, value in former.items():
            set_limit(name, value)
    assert spans([*found, *scan.end()]) == judged(patterns, text)


def test_a_turn_ends_where_much_must_be_made(change_limits: ChangeLimits) -> None:
    change_limits(turn_steps=1000)
    automaton = compile_rules(pattern_rules(["a[ab]{100}c"]))
    scan = automaton.scan()
    text = "".join(random.Random(1).choices("ab", k=1000))
    turns, at = 0, 0
    while at < len(text):
        before = automaton.steps
        at = scan.feed_turn(text, at, LIMITS.turn_steps)[1]
        assert automaton.steps - before < 2000  # the last transition has as many as all of its groups
        turns += 1
    assert turns > 20
    assert scan.feed_turn(text, at, LIMITS.turn_steps) == ([], 1000)


@given(few, st.text(alphabet="abcd-", max_size=24), sizes, st.integers(0, 60))
def test_a_text_that_goes_on_with_threads_finds_holds_and_passes_the_same(
    patterns: list[str], text: str, sizes: list[int], room: int
) -> None:
    kept, alone = automaton_of(*patterns).scan(), automaton_of(*patterns).scan(turn=SearchTurn())
    former = LIMITS.request_room
    set_limit("request_room", room)
    try:
        for piece in cut(text, sizes):
            assert alone.feed(piece) == kept.feed(piece)
            assert (alone.held, alone.certain) == (kept.held, kept.certain)
        assert alone.end() == kept.end()
    finally:
        set_limit("request_room", former)


@given(few, st.text(alphabet="abc", max_size=40), sizes)
def test_threads_alone_find_what_re2_finds(patterns: list[str], text: str, sizes: list[int]) -> None:
    former = LIMITS.request_room
    set_limit("request_room", 0)
    try:
        automaton = automaton_of(*patterns)
        assert spans(searched(automaton.scan(turn=SearchTurn()), cut(text, sizes))) == judged(patterns, text)
        assert automaton.state_count == 1
    finally:
        set_limit("request_room", former)


@given(many, st.text(alphabet="aAkK\u212aßẞsSſ1é -\n\U0001f600", max_size=16), sizes, st.integers(0, 60), st.booleans())
@settings(max_examples=settings().max_examples // 2)
def test_two_states_or_threads_find_the_same_in_every_script(
    patterns: list[str], text: str, sizes: list[int], room: int, normal: bool
) -> None:
    def found(pieces: list[str], turn: SearchTurn | None = None) -> list[Piece]:
        return searched(compile_rules(pattern_rules(patterns, normal=normal)).scan(turn=turn), pieces)

    try:
        whole = found([text])
    except BadPattern:
        assume(False)
    former = {name: getattr(LIMITS, name) for name in ("states", "request_room")}
    try:
        set_limit("states", 2)
        assert found(cut(text, sizes)) == whole
        set_limit("states", former["states"])
        set_limit("request_room", room)
        assert found(cut(text, sizes), SearchTurn()) == whole
    finally:
        for name, value in former.items():
            set_limit(name, value)


GROWING = "token.{0,500}[a-f0-9]{20}"
"""A pattern for which a fitting text needs a state a character."""


def fitting(size: int, seed: int = 1) -> str:
    """Returns a text that fits to `GROWING`."""
    parts = random.Random(seed).choices(["token", "token x", "abc ", "0123456789abcdef", "\n"], k=size)
    return "".join(parts)[:size]


def test_what_one_request_adds_is_bounded_and_its_work_is_linear() -> None:
    automaton = compile_rules(pattern_rules([GROWING]))
    turn = SearchTurn()
    scan = automaton.scan(turn=turn)
    text = fitting(60_000)
    found: list[str | Match] = []
    steps: list[int] = []
    for half in (text[:30_000], text[30_000:]):
        before = automaton.steps
        for piece in cut(half, [1000]):
            turn.begin()
            found += scan.feed(piece)
            while scan.behind:
                turn.begin()
                found += scan.feed("")
        steps.append(automaton.steps - before)
    assert spans([*found, *scan.end()]) == judged([GROWING], text)
    assert turn.kept <= LIMITS.request_room + 2000
    assert automaton.state_count < 3000
    assert steps[1] < 1.5 * steps[0]


def test_texts_of_one_caller_leave_the_states_of_others() -> None:
    """A hostile caller sends as many texts as it likes; what others need is there, and made once."""
    automaton = compile_rules(pattern_rules([GROWING]))
    usual = "a token of thanks, and 0123456789 more words\n" * 20

    def steps(caller: str, text: str) -> int:
        before = automaton.steps
        turn = SearchTurn(caller)
        scan = automaton.scan(turn=turn)
        for piece in cut(text, [1000]):
            turn.begin()
            scan.feed(piece)
            while scan.behind:
                turn.begin()
                scan.feed("")
        scan.end()
        return automaton.steps - before

    assert steps("anna", usual) > 0
    assert steps("anna", usual) == 0
    for seed in range(14):
        steps("mallory", fitting(6000, seed))
        assert steps("anna", usual) == 0
    assert automaton.generation == 0


def test_states_are_dropped_and_freed_a_few_at_a_time(change_limits: ChangeLimits) -> None:
    change_limits(states=400, freed=2)
    automaton = compile_rules(pattern_rules([GROWING]))
    scan = automaton.scan()
    former = 0
    dropped = 0
    for character in fitting(3000):
        generation = automaton.generation
        scan.feed(character)
        now = automaton.former_count
        if automaton.generation > generation:
            dropped += 1
            assert now >= 390
        elif former:
            assert former - now <= 2 * 2  # a state and its transition
        former = now
    assert dropped > 2
    assert former <= 400


def test_a_request_is_not_searched_beyond_its_steps(change_limits: ChangeLimits) -> None:
    change_limits(request_steps=2000)
    automaton = compile_rules(pattern_rules([GROWING]))
    for seed, holds in enumerate((True, False)):
        text = fitting(6000, seed)
        turn = SearchTurn()
        scan = automaton.scan(holds=holds, turn=turn)
        passed: list[str | Match] = []
        for piece in cut(text, [100]):
            turn.begin()
            passed += scan.feed(piece)
        assert turn.is_used_up
        assert turn.made < 2000 + LIMITS.output_steps
        assert (scan.held, scan.end()) == (0, [])
        whole = "".join([each for each in passed if isinstance(each, str)])
        assert whole == text if not holds else len(whole) < len(text) / 2


LARGE = {
    "nodes": ("(?:a{0,40}1?){0,40}d", "aaaa", 100),
    "groups": ("a.{0,900}b", "a" * 60, 300),
    "several": (r"[\x{0600}-\x{06FF} ]{1,60}x", "\ufdfa", 300),
}
"""A pattern, a text of which one character needs too much, and what it may need."""


@pytest.mark.parametrize("way", ["stream", "request", "end"])
@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("name", LARGE)
def test_a_character_that_needs_too_much_is_given_up(
    name: str, holds: bool, way: str, change_limits: ChangeLimits
) -> None:
    """It would hold the loop. The guards have failed, as beyond `request_steps`; others are searched as before."""
    pattern, text, most = LARGE[name]
    change_limits(turn_steps=most, output_steps=most)
    is_normal = name == "several"
    automaton = compile_rules(pattern_rules([pattern], normal=is_normal), normal=is_normal)
    turn = SearchTurn()
    scan = automaton.scan(holds=holds, turn=turn)
    pieces: list[str | Match] = []
    if way == "request":
        at = 0
        while at < len(text) and not turn.is_used_up:
            found, at = scan.feed_turn(text, at, LIMITS.turn_steps)
            pieces += found
        assert turn.is_used_up
        pieces += [*scan.feed(text[at:]), *scan.end()]
    else:
        if way == "end":
            turn.left = 0
        pieces += scan.feed(text)
        while scan.behind and way == "stream":
            turn.begin()
            pieces += scan.feed("")
        pieces += scan.end()
    assert turn.is_used_up
    if name == "nodes":
        assert automaton.state_count == 1, "the state behind it was not made"
    assert (scan.held, scan.behind) == (0, 0)
    if way != "request":  # it has failed as soon as its turn is used up
        assert "".join([each for each in pieces if isinstance(each, str)]) == ("" if holds else text)
    other = automaton.scan(turn=SearchTurn())
    assert [*other.feed("."), *other.end()] == ["."]


def test_what_a_check_answers_has_the_same_bound(change_limits: ChangeLimits) -> None:
    behind = parse(LARGE["nodes"][0])
    automaton = compile_rules([Rule("", Sequence([parse("x"), CheckGate(lambda *_: True), behind]))])
    change_limits(turn_steps=100)
    turn = SearchTurn()
    assert automaton.scan(turn=turn).feed("x") == []
    assert turn.is_used_up


def test_the_usual_patterns_of_a_large_guard_are_not_given_up() -> None:
    patterns = [f"sk-[A-Za-z0-9]{{1,8}}-{at:04}[A-Za-z0-9]{{20,24}}" for at in range(2000)]
    automaton = compile_rules(pattern_rules(patterns))
    turn = SearchTurn()
    scan = automaton.scan(turn=turn)
    found: list[str | Match] = []
    for each in cut("a sk-live-1234abcdefghijklmnopqrst sk-sk-1-sk-x" * 2 + ".", [7]):
        turn.begin()
        found += scan.feed(each)
    while scan.behind:
        turn.begin()
        found += scan.feed("")
    assert not turn.is_used_up
    assert len([each for each in found if isinstance(each, Match)]) == 2


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        (pii.rules(["card"]), "4111 1111 1111 1112 " * 40),
        (pattern_rules(["x"]), "".join(map(chr, range(0x4E00, 0x4F00)))),
    ],
)
def test_checks_and_new_characters_are_work(rules: list[Rule], text: str) -> None:
    """They take time although all transitions are there."""
    automaton = compile_rules(rules)
    first, again = automaton.scan(), automaton.scan()
    first.feed(text[: len(text) // 2])
    before = automaton.steps
    again.feed(text[: len(text) // 2] if ord(text[0]) < 256 else text[len(text) // 2 :])
    assert automaton.steps - before > len(text) / 20


def test_halves_of_a_character_meet() -> None:
    scan = compile_rules(pattern_rules(["\U0001f600+", "\ufffd"])).scan()
    assert scan.feed("a\ud83d") == ["a"]
    assert scan.held == 1
    assert scan.feed("\ude00\ud83d") == []
    assert scan.feed("\ude00b") == [Match("found", 1, 3, 0), "b"]
    assert scan.feed("\ud83d") == []
    assert scan.end() == [Match("found", 4, 5, 1)]
    assert searched(scan, ["\ud83d", "c"]) == [Match("found", 0, 1, 1), "c"]


def test_a_text_is_read_in_every_script() -> None:
    automaton = compile_rules(pattern_rules(["[\\x{4E00}-\\x{9FFF}]{3}", "[^\\x{0}-\\x{FFFF}]"]))
    text = "a漢字漢b\U0001f600" + "".join(map(chr, range(0x400, 0x3000)))
    assert spans(searched(automaton.scan(), [text])) == [(1, 4), (5, 6)]


def test_a_search_that_holds_nothing_is_small() -> None:
    """A stream may keep 8 KiB, for several channels."""
    automaton = compile_rules(pattern_rules(["sk-[a-z]{4,}"]))
    automaton.scan().feed("nothing" * 1000)
    tracemalloc.start()
    try:
        scans = [automaton.scan() for _ in range(100)]
        for scan in scans:
            scan.feed("nothing" * 1000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept / len(scans) < 1024
