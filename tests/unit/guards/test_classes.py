"""Classes of characters: one for all that no rule tells apart."""

from __future__ import annotations

from gai_fast.guards.characters import OF_WORDS
from gai_fast.guards.classes import Classes
from gai_fast.guards.program import Program, Rule
from gai_fast.guards.syntax import parse
from tests.conftest import ChangeLimits


def classes_of(*rules: Rule, normal: bool = False) -> Classes:
    program = Program(normal=normal)
    for rule in rules:
        program.add(rule)
    return Classes(program)


def partition(classes: Classes, text: str) -> list[str]:
    """Returns the characters of a text by their classes, in the order in which they come first."""
    found: dict[str, str] = {}
    for each in text:
        sort = classes.classes_of(ord(each))
        found[sort] = found.get(sort, "") + each
    return list(found.values())


def test_characters_that_no_rule_tells_apart_have_one_class() -> None:
    classes = classes_of(Rule("", parse("[a-c]x")), Rule("", parse("[b-z]{3}")), Rule("", parse("[^\u0100-\u2fff]")))
    assert partition(classes, "abcdxyz019 \u0100\u2000漢") == ["a", "bc", "dyz", "x", "019 漢", "\u0100\u2000"]


def test_neighbours_and_the_letters_of_leads_tell_characters_apart() -> None:
    assert partition(classes_of(Rule("", parse("x"), before=OF_WORDS)), "xab -漢é") == ["x", "abé", " -漢"]
    assert partition(classes_of(Rule("", parse("x"), lead="://")), "x:/ab") == ["x", ":", "/", "ab"]


def test_a_character_is_in_the_class_of_what_it_is_compared_as() -> None:
    classes = classes_of(Rule("", parse("af")), normal=True)
    assert classes.classes_of(ord("а")) == classes.classes_of(ord("a"))  # Cyrillic
    for _ in range(2):
        assert classes.classes_of(0x200B) == ""
        assert classes.classes_of(0xAD) == ""
        assert classes.classes_of(ord("ﬃ")) == "".join([classes.classes_of(ord(each)) for each in "ffi"])


def test_classes_are_remembered_up_to_a_limit(change_limits: ChangeLimits) -> None:
    change_limits(classified=10)
    classes = classes_of(Rule("", parse("[α-ω]")), normal=True)
    found = [classes.classes_of(code) for code in range(0x370, 0x400)]
    assert len(classes.far) <= 10
    assert {classes.classes_of(code) for code in range(0xFE00, 0xFE10)} == {""}  # variation selectors
    assert found == [classes.classes_of(code) for code in range(0x370, 0x400)]
