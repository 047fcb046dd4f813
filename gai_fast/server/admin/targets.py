"""The targets of models, as the admin API shows, drains and restores them.

Owns how the conditions of one target in several workers are combined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

import msgspec

from gai_fast.core.requests.reading import decode_json
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admin.bodies import Condition, Target, TargetState, rows_of

_CONDITIONS: Final[tuple[Condition, ...]] = get_args(Condition)
_DECODER: Final = msgspec.json.Decoder(Target)


def read_target(body: bytes) -> Target:
    """Reads the body of `POST /admin/v1/targets/…`.

    Args:
        body: `model`, `upstream` and `id`.

    Raises:
        InvalidRequest: The body is invalid.
    """
    return decode_json(_DECODER, body)


def all_targets(engine: Engine) -> list[TargetState]:
    """Returns the targets of one process.

    Args:
        engine: Owns the targets.
    """
    return [
        TargetState(model, upstream, identifier, condition, streams)
        for model, (upstream, identifier), condition, streams in engine.list_targets()
    ]


def set_drained(engine: Engine, target: Target, *, is_drained: bool) -> bool:
    """Drains or restores a target. Returns whether the target exists.

    Args:
        engine: Owns the target.
        target: The target.
        is_drained: Whether no more streams start at the target.
    """
    change = engine.targets.drain if is_drained else engine.targets.restore
    return change(target.model, target.upstream, target.id)


def together(parts: Iterable[Iterable[TargetState | Mapping[str, Any]]]) -> list[TargetState]:
    """Returns the targets of several processes as if of one.

    Args:
        parts: The result of `all_targets` in each process.
    """
    merged: dict[tuple[str, str, str], TargetState] = {}
    for row in rows_of(parts, TargetState):
        place = row.model, row.upstream, row.id
        known = merged.get(place, row)
        streams = row.streams if known is row else known.streams + row.streams
        merged[place] = TargetState(*place, max(known.state, row.state, key=_CONDITIONS.index), streams)
    return list(merged.values())
