"""Placeholders: what is issued, and what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.guards.automaton import Match
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.restore import Placeholders, Restorer
from tests.unit.guards.searching import cut, sizes


def placeholders() -> Placeholders:
    found = Placeholders(["speak of <EMAIL_2> and <IP_1>, not of <EMAIL_03>"])
    assert [found.issue("email", each) for each in ("a@x.com", "b@x.com", "a@x.com", "c@x.com")] == [
        "<EMAIL_1>",
        "<EMAIL_3>",
        "<EMAIL_1>",
        "<EMAIL_4>",
    ]
    assert found.issue("ip", "::1") == "<IP_2>"
    assert found.issue("api_key", "::1") == "<API_KEY_1>"
    return found


def test_numbers_are_by_first_appearance_and_none_that_the_text_has() -> None:
    found = placeholders()
    assert len(found) == 5
    assert found.value("<EMAIL_3>") == "b@x.com"
    assert found.value("<EMAIL_2>") is None
    assert "x.com" not in repr(found)


def test_a_value_is_known_by_its_placeholder_alone_also_in_another_process() -> None:
    found = placeholders()
    other = Placeholders()
    other.recall(found.values)
    for each in (found, other):
        assert each.issued("email", "b@x.com") == "<EMAIL_3>"
        assert each.issued("api_key", "::1") == "<API_KEY_1>"
        assert each.issued("email", "z@x.com") is None
        assert len(each) == 5


def test_there_are_no_more_than_the_limit() -> None:
    found = Placeholders()
    issued = [found.issue("email", f"{number}@x.com") for number in range(LIMITS.placeholders + 1)]
    assert issued[-2:] == ["<EMAIL_1000>", None]
    assert found.issue("email", "0@x.com") == "<EMAIL_1>"
    restorer = Restorer(found)
    assert restorer.restored(restorer.feed("<EMAIL_100> <EMAIL_10> <EMAIL_1001>")) == "99@x.com 9@x.com <EMAIL_1001>"


@pytest.mark.parametrize(
    ("text", "restored"),
    [
        ("to <EMAIL_1>.", "to a@x.com."),
        ("<EMAIL_1><EMAIL_3><IP_2>", "a@x.comb@x.com::1"),
        ("<<EMAIL_1>>", "<a@x.com>"),
        ("<EMAIL_<EMAIL_1>", "<EMAIL_a@x.com"),
        ("<EMAIL_2> <EMAIL_5> <email_1> <EMAIL_01> <EMAIL_1 > < EMAIL_1> EMAIL_1 &lt;EMAIL_1>", None),
        ("a < b > c <- d -> e <a@x.com>", None),
        ("<EMAIL_1", None),
        ("<API_KEY_1> <API_KEY_", "::1 <API_KEY_"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_only_what_was_issued_is_restored_and_only_as_it_is_spelled(text: str, restored: str | None, size: int) -> None:
    restorer = Restorer(placeholders())
    out = "".join(restorer.restored(restorer.feed(piece)) for piece in cut(text, [size]))
    assert out + restorer.restored(restorer.end()) == (text if restored is None else restored)
    assert restorer.held == 0


def test_only_the_beginning_of_one_that_was_issued_is_held() -> None:
    restorer = Restorer(placeholders())
    assert restorer.feed("a <") == ["a "]
    assert restorer.held == 1
    assert restorer.feed("EMAIL_3") == []
    assert restorer.held == 8
    assert restorer.feed("4") == ["<EMAIL_34"]
    assert restorer.feed("<EMAIL_2") == ["<EMAIL_2"]
    assert restorer.feed("<EMAIL_3> <") == [Match("<EMAIL_3>", 19, 28, 0), " "]
    assert restorer.feed("b>") == ["<b>"]
    (passed,) = restorer.feed(text := "nothing to restore")
    assert passed is text
    assert restorer.feed("") == []


def test_an_empty_map_restores_nothing_and_holds_nothing() -> None:
    restorer = Restorer(Placeholders())
    assert restorer.feed("<EMAIL_1") == ["<EMAIL_1"]
    restorer.feed("<")
    restorer.reset()
    assert restorer.end() == []


@given(st.text(alphabet="<>EMAIL_13 ", max_size=30), sizes)
def test_any_cut_gives_what_the_whole_text_does(text: str, sizes: list[int]) -> None:
    restorer = Restorer(placeholders())
    expected = text.replace("<EMAIL_1>", "a@x.com").replace("<EMAIL_3>", "b@x.com")
    out = "".join(restorer.restored(restorer.feed(piece)) for piece in cut(text, sizes))
    assert out + restorer.restored(restorer.end()) == expected


def test_the_values_of_another_request_do_not_come_back() -> None:
    other = Placeholders()
    other.issue("email", "mine@x.com")
    restorer = Restorer(Placeholders())
    assert restorer.restored(restorer.feed("<EMAIL_1>")) == "<EMAIL_1>"
    assert Restorer(other).restored(Restorer(other).feed("<EMAIL_1>")) == "mine@x.com"


def test_another_process_knows_what_was_issued() -> None:
    issued, known = Placeholders(["<IP_1>"]), Placeholders()
    for kind, value in (("email", "a@b.example"), ("ip", "10.0.0.1")):
        issued.issue(kind, value)
    known.recall(issued.values)
    assert (len(known), known.longest, known.values) == (2, issued.longest, issued.values)
    assert known.have_beginning("<IP")
    assert not known.have_beginning("<IP_1")
    restorer = Restorer(known)
    assert restorer.restored([*restorer.feed("<IP_2> <IP_1>"), *restorer.end()]) == "10.0.0.1 <IP_1>"


def test_a_recalled_placeholder_is_not_issued_for_another_value() -> None:
    placeholders = Placeholders()
    placeholders.recall({"<EMAIL_1>": "a@x.com"})
    assert placeholders.issue("email", "b@x.com") == "<EMAIL_2>"
    assert placeholders.values == {"<EMAIL_1>": "a@x.com", "<EMAIL_2>": "b@x.com"}
