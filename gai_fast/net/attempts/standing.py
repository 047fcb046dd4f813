"""The standing of our credentials after an upstream's refusals (401).

A caller can bring about a refusal: by a path, a model or a member for which the credential has no scope. So a refusal
alone says nothing of the credential. Pure policy, as `balance.py`: the caller passes the time.

1. A *place* is a model, or a method and a path that are passed through. A refusal at a path that was never served with
   the credential says nothing; at a model, the second one in a row says that the model is out of its scope.
2. A refusal at a place that was served with the credential says that the credential is refused.
3. One caller says this to others only after a minute in which no request at the place was served. Before that it takes
   two callers. Without keys there is one caller, which is everybody.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import Any, Final

from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS
from gai_fast.net.limits import LIMITS


class Refusal(Enum):
    """The subject of a refusal."""

    OF_THE_PLACE = auto()
    """A path that may be out of the credential's scope."""
    OF_THE_REQUEST = auto()
    """A request, as far as is known. Another credential may do better."""
    OF_THE_MODEL = auto()
    """A credential at one place: all requests there would be refused."""
    OF_THE_CREDENTIAL = auto()
    """The credential, at all places."""


class _Record:
    """The state of places, by the hash of each: paths may be long. The oldest first."""

    def __init__(self) -> None:
        self.served: dict[int, None] = {}
        self.refused: dict[int, tuple[float, str]] = {}  # the first refusal in a row: its time, its caller


class Standing:
    """The standing of one credential with its upstream."""

    def __init__(self) -> None:
        self._models = _Record()
        self._paths = _Record()  # apart: a caller may ask for any number of paths

    def serve(self, place: str, *, is_model: bool) -> None:
        """Notes that a request was served.

        Args:
            place: As for `refuse`.
            is_model: As for `refuse`.
        """
        record, key = self._models if is_model else self._paths, hash(place)
        if key not in record.served:
            _put(record.served, key, None)
        if record.refused:
            record.refused.pop(key, None)

    def refuse(self, place: str, caller: str, now: float, *, is_model: bool) -> Refusal:
        """Notes a refusal, and returns what it concerns.

        Args:
            place: The place.
            caller: The name of the request's caller.
            now: Monotonic seconds.
            is_model: Whether the place is a model, not a path.
        """
        record, key = self._models if is_model else self._paths, hash(place)
        is_served = key in record.served
        if not is_served and not is_model:
            return Refusal.OF_THE_PLACE
        first = record.refused.get(key)
        if first is None:
            _put(record.refused, key, (now, caller))
        if caller == ANONYMOUS:
            is_confirmed = is_served or first is not None
        else:
            is_confirmed = first is not None and (first[1] != caller or now - first[0] >= LIMITS.refused_key)
        if not is_confirmed:
            return Refusal.OF_THE_REQUEST
        return Refusal.OF_THE_CREDENTIAL if is_served else Refusal.OF_THE_MODEL


class Aside:
    """The times until which a credential is not used, everywhere or at some places."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[float, bool]] = {}  # with whether the reason was a limit

    def put(self, place: str, until: float, *, is_limited: bool) -> None:
        """Sets it aside, unless it is for longer already.

        Args:
            place: The place; empty: everywhere.
            until: Monotonic seconds.
            is_limited: Whether the reason is a limit.
        """
        places = self._places
        if until <= self.at(place)[0]:
            return
        if place not in places and len(places) >= LIMITS.limited_places:
            del places[min(places, key=lambda each: places[each][0])]
        places[place] = until, is_limited

    def at(self, place: str) -> tuple[float, bool]:
        """Returns the time until which the credential is not used at a place, and whether the reason is a limit."""
        if not self._places:  # nearly always
            return _NEVER
        everywhere = self._places.get("", _NEVER)
        here = self._places.get(place, _NEVER)
        return here if here[0] > everywhere[0] else everywhere


_NEVER: Final = (-math.inf, False)


def is_refusal(error: Error) -> bool:
    """Returns whether an upstream refuses a credential."""
    return error.code == "unauthorized" or (error.code == "forbidden" and "expired" in error.message.lower())


def _put(places: dict[int, Any], key: int, value: Any) -> None:
    places[key] = value
    if len(places) > LIMITS.known_places:
        del places[next(iter(places))]
