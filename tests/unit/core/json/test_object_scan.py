"""Whether a JSON object that arrives in pieces is complete."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.json.object_scan import ObjectScan
from gai_fast.kernels import compact_json


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("{}", True),
        (' {"a": "}", "b": [1, {"c": null}]}', True),
        ('{"a": "\\"}"}', True),
        ('{"a": "\\\\"}', True),
        ("", False),
        ("{} ", False),
        ("[{}]", False),
        ('{"a": {}', False),
        ('{"a": "{}', False),
        ("{}}", False),
        ("{}{}", False),
        ("{} x {}", False),
        ("nonsense}", False),
        ("[1}", False),
        ("{a}", False),
        ('{"a": 1]}', False),
    ],
)
@pytest.mark.parametrize("asked_often", [True, False])
def test_one_whole_object_is_complete_however_it_comes(text: str, complete: bool, asked_often: bool) -> None:
    assert ObjectScan().is_whole([text]) is complete
    scan, pieces = ObjectScan(), list[str]()
    for character in text:
        pieces.append(character)
        if asked_often:
            assert scan.is_whole(pieces) is ObjectScan().is_whole(["".join(pieces)]), pieces
    assert scan.is_whole(pieces) is complete


@given(st.text('{}[]"\\\\ a:1,', max_size=12), st.integers(0, 12))
def test_it_is_what_a_parser_says_of_text_that_ends_with_a_brace(text: str, at: int) -> None:
    scan, pieces = ObjectScan(), list[str]()
    for piece in filter(None, (text[:at], text[at:])):
        pieces.append(piece)
        so_far = "".join(pieces)
        assert scan.is_whole(pieces) is (so_far.endswith("}") and compact_json(so_far) is not None)
