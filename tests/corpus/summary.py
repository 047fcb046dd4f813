"""The lines at the end of a run: how many recordings were exact, and how many equal for each client."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from gai_fast import IMPLEMENTATION

_COUNTS: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)


def note_exact(how: str, part: str, exact: int, judged: int) -> None:
    """Notes for the summary how many recordings were judged and are exact, as the process that judged them counted.

    Args:
        how: Which implementation, and by which way.
        part: A provider or an API.
        exact: Recordings that came out as they must.
        judged: Recordings that were decoded and compared.
    """
    _COUNTS[how][part] = exact, judged


_EQUAL: dict[str, tuple[int, int]] = {}


def note_equal(client: str, equal: int, compared: int) -> None:
    """Notes for the summary how many recordings a client got through the gateway as it gets them straight.

    Args:
        client: The format, and who read it where that is not our own reader.
        equal: Recordings without a difference.
        compared: Recordings that were read and compared.
    """
    _EQUAL[client] = equal, compared


def lines() -> Iterator[str]:
    """Yields a line for each way in which recordings were judged in this run, and for each client."""
    for how, parts in _COUNTS.items():
        exact, judged = (sum(column) for column in zip(*parts.values(), strict=True))
        each = ", ".join(f"{part} {parts[part][0]} of {parts[part][1]}" for part in sorted(parts))
        yield f"recordings exact, {how}: {exact} of {judged} ({each})"
    for client, (equal, compared) in _EQUAL.items():
        yield f"client {client}: {equal} of {compared} equal, straight against through the gateway ({IMPLEMENTATION})"
