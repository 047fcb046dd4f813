"""The targets of models, as the admin API shows, drains and restores them.

Owns the fields of a target there, and how the conditions of one target in several workers are combined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from gai_fast.core.requests.reading import decode_json
from gai_fast.net.engine.engine import Engine

CONDITIONS: Final = ("unused", "ready", "slow_start", "full", "failing", "cooling", "open", "drained", "draining")
"""The conditions of a target. If workers differ, the later condition in this list counts: a target is drained once no
worker has a stream at it."""


class NamedTarget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A target, as an admin's request names it; `Target` in the description of the API."""

    model: str
    upstream: str
    id: str


_DECODER: Final = msgspec.json.Decoder(NamedTarget)


def read_target(body: bytes) -> NamedTarget:
    """Reads the body of `POST /admin/v1/targets/…`.

    Args:
        body: `model`, `upstream` and `id`.

    Raises:
        InvalidRequest: The body is invalid.
    """
    return decode_json(_DECODER, body)


def all_targets(engine: Engine) -> list[dict[str, Any]]:
    """Returns the targets of one process.

    Args:
        engine: Owns the targets.
    """
    return [
        {"model": model, "upstream": upstream, "id": identifier, "state": condition, "streams": streams}
        for model, (upstream, identifier), condition, streams in engine.list_targets()
    ]


def set_drained(engine: Engine, target: NamedTarget, *, is_drained: bool) -> bool:
    """Drains or restores a target. Returns whether the target exists.

    Args:
        engine: Owns the target.
        target: The target.
        is_drained: Whether no more streams start at the target.
    """
    change = engine.targets.drain if is_drained else engine.targets.restore
    return change(target.model, target.upstream, target.id)


def together(parts: Sequence[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the targets of several processes as if of one.

    Args:
        parts: The result of `all_targets` in each process.
    """
    merged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for part in parts:
        for row in part:
            place = row["model"], row["upstream"], row["id"]
            known = merged.setdefault(place, {**row, "state": CONDITIONS[0], "streams": 0})
            known["streams"] += row["streams"]
            known["state"] = max(known["state"], row["state"], key=CONDITIONS.index)
    return list(merged.values())
