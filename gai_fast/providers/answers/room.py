"""`Room`: the memory that an adapter may use for one response.

The upstream determines the number and length of the calls, sources and identifiers of a response. Everything that an
adapter keeps of them until the response ends is counted against one `Room`. Knows no provider.
"""

from __future__ import annotations

from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED

_PIECE: Final[int] = SHARED.kept_piece  # a constant: adapters call `take` for every fragment of a call


class Room:
    """A memory limit, and the part of it that is not used yet.

    Args:
        limit: In bytes.
    """

    def __init__(self, limit: int = SHARED.kept_answer) -> None:
        self.remaining = limit

    def take(self, characters: int, pieces: int = 1) -> None:
        """Counts strings against the limit.

        Args:
            characters: The number of their characters.
            pieces: The number of strings, and of other objects that hold them.

        Raises:
            Error: The limit is exceeded.
        """
        self.remaining -= characters + pieces * _PIECE
        if self.remaining < 0:
            raise _full()

    def note(self, characters: int, pieces: int = 1) -> None:
        """Counts strings that are kept already. If they exceed the limit, the next `take` raises."""
        self.remaining -= characters + pieces * _PIECE

    def give_back(self, characters: int, pieces: int = 1) -> None:
        """Releases bytes counted by `take`."""
        self.remaining += characters + pieces * _PIECE


def _full() -> Error:
    return Error(
        "provider_unavailable",
        f"an answer of which more than {SHARED.kept_answer} bytes would have to be kept in memory",
        reason="answer_too_large",
    )


def too_many(what: str, limit: int) -> Error:
    """Returns the error for a response with more parts than are kept in memory; `what` is the name of the limit."""
    return Error("provider_unavailable", f"an answer with more than {limit} {what.replace('_', ' ')}", reason=what)
