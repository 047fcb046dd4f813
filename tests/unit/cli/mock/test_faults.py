"""`cli/mock/faults.py`: a fault is a kind, with or without a number of deltas."""

from __future__ import annotations

import pytest

from gai_fast.cli.mock.faults import FAULTS, Fault


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_a_kind_with_or_without_a_count(kind: str) -> None:
    assert Fault.parse(kind) == Fault(kind, None)
    assert Fault.parse(f"{kind}@0") == Fault(kind, 0)
    assert Fault.parse(f"{kind}@12") == Fault(kind, 12)


@pytest.mark.parametrize("text", ["", "nope", "@3", "cut@", "cut@-1", "cut@+1", "cut@1_0", "cut@x", "CUT", "cut @1"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no fault|how many deltas"):
        Fault.parse(text)
