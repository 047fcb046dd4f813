"""A thousandth of `make leaks`, and its oracle: what stands in a text by the specification, in examples."""

from __future__ import annotations

from typing import Any

import pytest

from tests.leaks.__main__ import SHARE, run
from tests.leaks.asked import BODIES, ask
from tests.leaks.cases import KINDS, ROUTES, make
from tests.leaks.oracle import Wanted, matches, seen
from tests.leaks.upstreams import DIALECTS
from tests.readers import READERS

SEED = 70
WAYS = ("without a match", "judged", "own words", "normalized", "usage", "citation", "calls in turns")

ASKED = ("own words", "calls", "unknown members", "stopped")


@pytest.mark.parametrize("begin", [0, SHARE])
def test_nothing_leaks_and_nothing_else_is_changed(begin: int) -> None:
    counts, found = run(SEED, begin)
    assert found == []
    for name in (*ROUTES, *DIALECTS, *READERS, *WAYS, *[f"asked: {each}" for each in (*BODIES, *DIALECTS, *ASKED)]):
        assert counts[name] > 0, name
    assert counts["matches"] > SHARE
    assert counts["asked: matches"] > SHARE


def test_a_seed_is_a_case() -> None:
    assert make(5) == make(5)
    assert make(5) != make(6)
    assert ask(5) == ask(5)
    assert ask(5) != ask(6)


def found_in(text: str, *kinds: str) -> list[str]:
    return [text[begin:end] for begin, end, _ in matches(text, Wanted("pii", kinds=kinds))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_finds_the_first_text_of_each_kind_and_not_the_last(kind: str) -> None:
    texts = KINDS[kind]
    whole = {"url_credentials": "anna:secret"}.get(kind, texts[0])
    assert found_in(f"<{texts[0]}>", kind) == [whole]
    if kind not in ("ip", "url_credentials"):
        assert found_in(f"<{texts[-1]}>", kind) == []


def test_the_oracle_takes_the_leftmost_and_of_those_the_longest() -> None:
    assert found_in("10.0.0.1 and a@10.x.com", "ip", "email") == ["10.0.0.1", "a@10.x.com"]
    patterns = Wanted("patterns", patterns=("ab", "abc{1,3}", "bcd"))
    assert [(begin, end) for begin, end, _ in matches("abccd bcd", patterns)] == [(0, 4), (6, 9)]


@pytest.mark.parametrize(
    ("action", "text", "stopped"), [("mask", "a [words].", False), ("stop", "a ", True), ("flag", "a kestrel.", False)]
)
def test_the_oracle_knows_the_actions(action: Any, text: str, stopped: bool) -> None:
    behind = seen("a kestrel.", [Wanted("words", action, words=("kestrel",)), Wanted("words", words=("nothing",))])
    assert (behind.text, behind.stopped, behind.matches) == (text, stopped, 1)
