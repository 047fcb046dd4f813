"""Whether a chat that is sent again shows the call that a run has asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gai_fast.server.admission.given_decisions import _alike, _shown
from gai_fast.stores import StreamLog

CALL = b'data: {"type":"tool.call","call_id":"%b","tool_call":{"name":"n","input":{"a":%d}}}\n\n'


class Log:
    """A log of some calls; `read` says how often it was asked for."""

    def __init__(self, count: int) -> None:
        self.reads = 0
        self._text = b"".join(CALL % (b"c%d" % number, number) for number in range(count))

    def read(self, after: int, most: int) -> Any:
        self.reads += 1
        return SimpleNamespace(pieces=[self._text])


def test_calls_are_found_in_one_reading_of_the_log() -> None:
    log = Log(100)
    found = _shown(cast(StreamLog, log), {b'"c7"', b'"c70"', b'"c700"'})
    assert {name: event.count(b"tool.call") for name, event in found.items()} == {b'"c7"': 1, b'"c70"': 1}
    assert log.reads == 1


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (1, 1.0, True),
        (2**53, 2**53 + 1, True),
        (10**400, 10**400, True),
        (10**400, -(10**400), False),
        (10**400, 1, False),
        (True, 1, False),
        ({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1], [1, 2], False),
        ("1", 1, False),
    ],
)
def test_values_are_the_same_if_they_are_to_a_browser(one: Any, other: Any, is_same: bool) -> None:
    assert _alike(one, other) is is_same
