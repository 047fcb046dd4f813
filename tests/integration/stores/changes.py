"""Changes of copies, as their owner writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gai_fast.stores import LogHeader
from gai_fast.stores.backend import CopyChange, Record


def changed(
    stream_id: str,
    header: LogHeader | None = None,
    worker: str = "worker",
    records: Sequence[Record] = (),
    epoch: int = 1,
    **parts: Any,
) -> CopyChange:
    """Returns a change of a copy's owner."""
    return CopyChange(stream_id, header, worker, records, epoch=epoch, **parts)
