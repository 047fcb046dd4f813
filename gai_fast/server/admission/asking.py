"""Admissions that wait: for a ledger, by the limits of a key and of the server; for the store, by the ids of a request.

Owns the waits, as compiled modules have no coroutines. An admission that fails, or whose client disconnects, counts for
no limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gai_fast.core.requests.stored_ids import StoredId
from gai_fast.ledger import Demand, Ledger
from gai_fast.model.errors import Error, RateLimited
from gai_fast.model.settings import KeySettings
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.admission.stored_ids import not_found
from gai_fast.server.limits import LIMITS
from gai_fast.stores.owned_ids import OwnedIds


class AdmissionPlace(NamedTuple):
    """A place among the streams of a caller of the ledger.

    Attributes:
        caller: The caller, with its limit of streams.
        place_id: The id of the place.
        refusal: Returns the error if there is no place.
    """

    caller: KeySettings
    place_id: str
    refusal: Callable[[], Error]


async def take_places(ledger: Ledger, places: Sequence[AdmissionPlace], give_back: Callable[[], object]) -> None:
    """Takes all of several places, or none.

    Args:
        ledger: The ledger of the server.
        places: The places.
        give_back: Returns the places that were taken.

    Raises:
        Error: There is no place.
    """
    is_admitted = False
    try:
        for place in places:
            try:
                await ledger.take(place.caller, place.place_id)
            except RateLimited:
                raise place.refusal() from None
        is_admitted = True
    finally:
        if not is_admitted:
            give_back()


async def borrow(ledger: Ledger, caller: KeySettings, places: list[str], then: Callable[[bool], object]) -> None:
    """Takes a place for another connection to an upstream.

    Args:
        ledger: The ledger of the server.
        caller: The upstream, with its limit of connections that workers ask for.
        places: The ids of the places that were taken; gets the new one.
        then: Called with whether there was a place.
    """
    place_id = new_stream_id()
    try:
        await ledger.take(caller, place_id)
    except Error:
        then(False)
    else:
        places.append(place_id)
        then(True)


async def admit(
    engine: Engine,
    key: KeySettings | None,
    caller: str,
    stream_id: str,
    demand: Demand,
) -> None:
    """Admits a request by the limits of its key, and last by those of the server.

    Args:
        engine: The engine with both limits.
        key: The key of the caller. None if the server has no keys.
        caller: The name of the caller.
        stream_id: The id of the stream that the request starts.
        demand: As for `Ledger.take`.

    Raises:
        Error: A limit refuses the request.
    """
    is_admitted = False
    try:
        if key is not None:
            await engine.ledger.take(key, stream_id, demand)
        asking = engine.admission(stream_id, caller)
        if asking is not None:
            await asking
        is_admitted = True
    finally:
        if not is_admitted:
            engine.cancel_admission(stream_id, caller)


async def check_owner(owned: OwnedIds, caller: str, named: Sequence[StoredId]) -> None:
    """Checks that a caller owns the ids that its request names.

    Answers' ids are recorded just before their ends are sent, so an unknown id is looked for twice.

    Args:
        owned: The records of who got which id.
        caller: The name of the caller.
        named: The ids.

    Raises:
        Error: The caller does not own an id (400), or the store is out of reach (503).
    """
    ids = [each.identifier for each in named]
    if await owned.missing(caller, ids) is not None:
        await asyncio.sleep(LIMITS.ids_settling)
        missing = await owned.missing(caller, ids)
        if missing is not None:
            raise not_found(named[ids.index(missing)])
