"""The interface of processors: what those do that say nothing else, and the one that says what is said of a request."""

from __future__ import annotations

from collections.abc import Iterable

from gai_fast.core.processing.chain import Chain
from gai_fast.core.processing.processor import Preface, Processor
from gai_fast.model.events import Event
from tests.unit.processors.streams import FINISH, START, delta


class Plain(Processor):
    """Passes all events."""

    def process(self, event: Event, now_ms: int = 0) -> Iterable[Event]:
        return (event,)


def test_a_processor_that_holds_nothing_is_never_due() -> None:
    plain = Plain()
    assert (plain.due_ms, plain.holds, plain.waiting) == (None, False, 0)
    assert [*plain.flush(5), *plain.release(5)] == []
    assert plain.announce(FINISH) is FINISH
    chain = Chain([plain, Plain()])
    assert (chain.due_ms, chain.holds, chain.waiting, chain.size, chain.touches) == (None, False, 0, 2, "deltas")
    assert [*chain.process(START), *chain.flush(5), *chain.release(5)] == [START]


def test_a_chain_of_none_passes_all() -> None:
    assert list(Chain([]).process(START)) == [START]


def test_what_is_said_of_the_request_comes_behind_start_and_deltas_need_not_be_seen() -> None:
    said: Event = {"type": "warning", "reason": "guard_failed", "guard": "policy"}
    chain = Chain([Preface((said, said))])
    assert chain.touches == "events"
    events = [event for each in (START, delta("a"), FINISH) for event in chain.process(each)]
    assert events == [START, said, said, delta("a"), FINISH]
