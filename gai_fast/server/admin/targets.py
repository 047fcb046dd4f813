"""The targets of models, as the admin API shows them, drains them and takes them back.

Owns the fields of a target there, and what the conditions of one target in several workers read as.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from gai_fast.core.reading import decoded
from gai_fast.net.stream.streams import Engine

CONDITIONS: Final = ("unused", "ready", "slow_start", "full", "failing", "cooling", "open", "drained", "draining")
"""The conditions of a target. Of several workers the later one counts: a target is drained once no worker has a stream
of it."""


class Target(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The target that an admin means."""

    model: str
    upstream: str
    id: str


_DECODER: Final = msgspec.json.Decoder(Target)


def read_target(body: bytes) -> Target:
    """Reads the body of `POST /admin/v1/targets/…`.

    Args:
        body: `model`, `upstream` and `id`.

    Raises:
        InvalidRequest: It is not that.
    """
    return decoded(_DECODER, body)


def all_targets(engine: Engine) -> list[dict[str, Any]]:
    """Returns the targets of one process.

    Args:
        engine: Has them.
    """
    return [
        {"model": model, "upstream": upstream, "id": identifier, "state": condition, "streams": streams}
        for model, (upstream, identifier), condition, streams in engine.list_targets()
    ]


def set_drained(engine: Engine, target: Target, *, is_drained: bool) -> bool:
    """Takes a target out, or back in; returns whether there is such a target.

    Args:
        engine: Has it.
        target: The target.
        is_drained: No stream begins there any more.
    """
    change = engine.targets.drain if is_drained else engine.targets.restore
    return change(target.model, target.upstream, target.id)


def together(parts: Sequence[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the targets of several processes as of one.

    Args:
        parts: What `all_targets` returned in each.
    """
    merged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for part in parts:
        for row in part:
            place = row["model"], row["upstream"], row["id"]
            known = merged.setdefault(place, {**row, "state": CONDITIONS[0], "streams": 0})
            known["streams"] += row["streams"]
            known["state"] = max(known["state"], row["state"], key=CONDITIONS.index)
    return list(merged.values())
