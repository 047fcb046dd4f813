"""`Room`: the memory that an adapter may use for one answer.

An upstream decides on the number and length of the calls, sources and identifiers of an answer. Everything that an
adapter keeps of them until the answer ends takes its room from one `Room`. Knows no provider.
"""

from __future__ import annotations

from typing import Final

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED

_PIECE: Final[int] = SHARED.kept_piece  # looked up once: adapters take room for every fragment of a call


class Room:
    """The rest of a limit.

    Args:
        limit: In bytes.
    """

    __slots__ = ("left",)

    def __init__(self, limit: int = SHARED.kept_answer) -> None:
        self.left = limit

    def take(self, characters: int, pieces: int = 1) -> None:
        """Takes room for strings.

        Args:
            characters: Their number.
            pieces: Strings or other objects that hold them.

        Raises:
            Error: There is no room left.
        """
        self.left -= characters + pieces * _PIECE
        if self.left < 0:
            raise _full()

    def note(self, characters: int, pieces: int = 1) -> None:
        """As `take`, for strings that are kept already: where there was no room, the next `take` raises."""
        self.left -= characters + pieces * _PIECE

    def give_back(self, characters: int, pieces: int = 1) -> None:
        """Gives room back."""
        self.left += characters + pieces * _PIECE


def _full() -> Error:
    return Error(
        "provider_unavailable",
        f"an answer of which more than {SHARED.kept_answer} bytes would have to be kept in memory",
        reason="answer_too_large",
    )


def too_many(what: str, limit: int) -> Error:
    """The error for an answer with more parts than are kept in memory; `what` is the name of the limit."""
    return Error("provider_unavailable", f"an answer with more than {limit} {what.replace('_', ' ')}", reason=what)
