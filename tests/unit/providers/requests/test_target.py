"""A request's target: what it changes of a request is recorded by its policy."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Unsupported
from gai_fast.providers import Target


def test_a_target_records_by_its_own_policy() -> None:
    lenient, other = Target("m", on_unsupported="drop"), Target("m", on_unsupported="drop")
    lenient.changes.leave_out("one", "seed")
    assert (lenient.changes.dropped, other.changes.dropped) == (["seed"], [])
    with pytest.raises(Unsupported, match="one does not support `seed`"):
        Target("m").changes.leave_out("one", "seed")
