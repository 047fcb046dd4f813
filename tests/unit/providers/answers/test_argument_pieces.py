"""Arguments in pieces: the text is the whole object's, however its values are cut."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.model.errors import Malformed
from gai_fast.providers.answers.argument_pieces import ArgumentPiece, ArgumentWriter, argument_path
from tests.limits import LIMITS


def piece(path: str, value: Any = None, *, says: bool = True) -> ArgumentPiece:
    text = json.dumps(value, ensure_ascii=False) if says else ""
    is_string = says and isinstance(value, str)
    return ArgumentPiece(argument_path(path), text[:-1] if is_string else text, is_string)


def written(*pieces: ArgumentPiece) -> str:
    writer = ArgumentWriter()
    return "".join(map(writer.write, pieces)) + writer.close()


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "steps"),
        [
            ("$.a", ("a",)),
            ("$.recipe.ingredients[10].name", ("recipe", "ingredients", 10, "name")),
            ("$['a.b'][\"c]\"]", ("a.b", "c]")),
            (r"$['it\'s'].ü x-y", ("it's", "ü x-y")),
            (r'$["\u00e9\""][0][1]', ('é"', 0, 1)),
        ],
    )
    def test_keys_and_indices(self, path: str, steps: tuple[str | int, ...]) -> None:
        assert argument_path(path) == steps

    @pytest.mark.parametrize("path", ["", "$", "a", "$a", "$.", "$..a", "$.a[", "$.a[-1]", "$.a[*]", "$['a", "$.a]"])
    def test_what_names_no_value_is_malformed(self, path: str) -> None:
        with pytest.raises(Malformed):
            argument_path(path)

    def test_a_path_deeper_than_arguments_may_be_is_malformed(self) -> None:
        assert argument_path("$" + ".a" * LIMITS.arguments_depth)
        with pytest.raises(Malformed):
            argument_path("$" + ".a" * (LIMITS.arguments_depth + 1))


class TestWriter:
    def test_a_string_grows_until_another_value_comes(self) -> None:
        writer = ArgumentWriter()
        assert writer.write(piece("$.a", "Bos")) == '{"a":"Bos'
        assert writer.write(piece("$.a", 'to"')) == 'to\\"'
        assert writer.write(piece("$.b", "n")) == '","b":"n'
        assert writer.close() == '"}'

    @pytest.mark.parametrize("end", [piece("$.a", ""), piece("$.a", says=False)])
    def test_an_empty_piece_adds_nothing(self, end: ArgumentPiece) -> None:
        assert written(piece("$.a", "x"), end, end, piece("$.b", 1)) == '{"a":"x","b":1}'
        assert written(piece("$.a", 1), end, piece("$.b", 1)) == '{"a":1,"b":1}'

    def test_another_value_ends_a_string(self) -> None:
        assert written(piece("$.a[0]", "x"), piece("$.a[1]", "y")) == '{"a":["x","y"]}'

    def test_a_string_that_was_left_takes_no_more(self) -> None:
        with pytest.raises(Malformed):
            written(piece("$.a", "x"), piece("$.b", 1), piece("$.a", "y"))

    def test_a_piece_without_a_value_writes_nothing(self) -> None:
        assert written(piece("$.a", says=False)) == ""
        assert written() == ""

    def test_containers_open_and_close_by_their_paths(self) -> None:
        pieces = [
            piece("$.a[0][0].b", True),
            piece("$.a[0][1]", None),
            piece("$.a[1].c", -1.5),
            piece("$.d", {"e": []}),
        ]
        assert written(*pieces) == '{"a":[[{"b":true},null],{"c":-1.5}],"d":{"e": []}}'

    @pytest.mark.parametrize(
        "paths",
        [
            ("$[0]",),
            ("$.a[1]",),
            ("$.a", "$.a"),
            ("$.a", "$.a.b"),
            ("$.a.b", "$.a"),
            ("$.a.b", "$.a[0]"),
            ("$.a[0]", "$.a.b"),
            ("$.a[0]", "$.a[2]"),
            ("$.a[0]", "$.a[0]"),
            ("$.a.b", "$.c", "$.a.d"),
            ("$.a", "$[1]"),
        ],
    )
    def test_a_value_for_a_place_that_was_left_or_is_of_another_kind_is_malformed(self, paths: tuple[str, ...]) -> None:
        with pytest.raises(Malformed):
            written(*(piece(path, 1) for path in paths))


def pieces_of(value: Any, path: str, dice: random.Random) -> Iterator[ArgumentPiece]:
    """Yields a value in the pieces that a model may send of it."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from pieces_of(inner, f"{path}[{json.dumps(key)}]", dice)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from pieces_of(inner, f"{path}[{index}]", dice)
    elif isinstance(value, str):
        edges = sorted(dice.choices(range(len(value) + 1), k=dice.randrange(3)))
        for begin, end in zip([0, *edges], [*edges, len(value)], strict=True):
            yield piece(path, value[begin:end])
        yield piece(path, "")
    else:
        yield piece(path, value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), st.integers())
def test_any_object_is_what_its_pieces_say(value: dict[str, Any], seed: int) -> None:
    text = written(*pieces_of(value, "$", random.Random(seed)) if value else ())
    assert json.loads(text or "{}") == value
