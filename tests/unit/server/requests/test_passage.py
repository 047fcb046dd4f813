"""`server/requests/passage.py`: a request walks from where it was, and holds what its gates have taken."""

from __future__ import annotations

from gai_fast.server.requests.passage import Gate, Passage, Wait
from tests.unit.server.requests.stub_passage import StubPassage


class Taking(Gate):
    """A gate that takes something, and waits if it is asked to."""

    def __init__(self, left: list[Gate], *, waits: bool = False) -> None:
        self.left = left
        self.waits = waits

    def admit(self, passage: Passage) -> Wait | None:
        passage.hold(self)
        return self.wait if self.waits else None

    async def wait(self) -> None:
        return None

    def leave(self, passage: Passage) -> None:
        self.left.append(self)


def test_a_request_goes_on_behind_the_gate_that_made_it_wait() -> None:
    left: list[Gate] = []
    first, second, third = Taking(left), Taking(left, waits=True), Taking(left)
    passage = StubPassage("a")
    assert passage.enter((first, second, third)) == second.wait
    assert passage.go_on() is None
    passage.leave()
    assert left == [third, second, first]
    passage.leave()
    assert len(left) == 3, "what was given back is not given back again"
