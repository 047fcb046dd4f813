"""`gai_fast/grpc/statuses.py`: errors as statuses.

`integration/test_grpc.py` reads the details of each code with grpcio's own reader.
"""

from __future__ import annotations

import grpc

from gai_fast.grpc.limits import LIMITS
from gai_fast.grpc.statuses import STATUSES, status_of
from gai_fast.model.errors import CLASSES, Error


def test_each_code_has_a_status() -> None:
    assert STATUSES.keys() == CLASSES.keys()
    assert grpc.StatusCode.DEADLINE_EXCEEDED not in STATUSES.values(), "it is the client's own"


def test_the_longest_error_fits_into_trailing_metadata() -> None:
    longest = Error("network", "\N{GRINNING FACE}" * 10_000, reason="r" * 100, phase="mid_stream", retry_after_ms=1)
    ending = status_of(longest, "i" * 128)
    assert len(ending.details.encode()) == LIMITS.grpc_words
    (name, value), *others = ending.trailing_metadata
    assert (name, others) == ("grpc-status-details-bin", [])
    assert 3 * len(ending.details.encode()) + len(value) * 4 / 3 < 8192 - 256, "there are others"
