"""`server/requests/passage.py`: a request gives back what its gates have taken, once."""

from __future__ import annotations

from gai_fast.server.requests.passage import Gate, Passage
from tests.unit.server.requests.stub_passage import StubPassage


class Taking(Gate):
    """A gate that has taken something."""

    def __init__(self, left: list[Gate]) -> None:
        self.left = left

    def leave(self, passage: Passage) -> None:
        self.left.append(self)


def test_what_was_taken_is_given_back_once_and_last_first() -> None:
    left: list[Gate] = []
    first, second = Taking(left), Taking(left)
    passage = StubPassage("a")
    passage.leave()
    assert left == []
    passage.hold(first)
    passage.hold(second)
    passage.leave()
    assert left == [second, first]
    passage.leave()
    assert len(left) == 2, "what was given back is not given back again"
