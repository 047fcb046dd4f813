"""What a provider accepts of a request in its dialect, and what was changed for it."""

from __future__ import annotations

from gai_fast.model.limits import SHARED
from gai_fast.providers import Changes


def test_changes_are_bounded_whatever_a_request_holds() -> None:
    changes = Changes()
    for at in range(10_000):
        changes.drop(f"messages[{at}]")
        changes.adjust(f"messages[{at}].role", "system")
    assert changes.dropped == [f"messages[{at}]" for at in range(SHARED.request_changes)]
    assert changes.adjusted == {f"messages[{at}].role": "system" for at in range(SHARED.request_changes)}
