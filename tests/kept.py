"""Kept responses for tests, and a list that keeps them as the rules say, to compare a store with."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple

from gai_fast.core.requests.stored_ids import response_of_item
from gai_fast.model.settings import ANONYMOUS, ResponsesSettings
from gai_fast.stores.backend import Backend
from gai_fast.stores.health import Health
from gai_fast.stores.responses import KeptResponse, KeptResponses
from tests.limits import LIMITS


def over(backend: Backend | None, settings: ResponsesSettings | None = None) -> KeptResponses:
    """Returns the kept responses of a backend."""
    made = KeptResponses(backend, Health(time.monotonic), time.monotonic)
    if settings is not None:
        made.use(settings)
    return made


def response(
    identifier: str,
    parent: str = "",
    *,
    text: str = "",
    output: Sequence[str] = (),
    items: Sequence[str] = (),
    status: str = "completed",
) -> KeptResponse:
    """Returns a response.

    Args:
        identifier: Its id.
        parent: Its parent's.
        text: A text in its instructions.
        output: The ids of its output.
        items: The ids of its input, which are those by which it is found.
        status: Its status.
    """
    own = [{"id": each, "type": "message"} for each in output]
    whole = {"id": identifier, "status": status, "instructions": text, "output": own}
    return KeptResponse(
        identifier,
        parent,
        status,
        json.dumps([{"id": each} for each in items]).encode(),
        json.dumps(whole).encode(),
        items,
    )


def read(kept: KeptResponse | None) -> tuple[str, str, str, bytes, bytes] | None:
    """Returns what every store returns of a response: not the ids by which it is found."""
    return None if kept is None else kept[:5]


async def keep(responses: KeptResponses, kept: KeptResponse, caller: str = ANONYMOUS) -> bool:
    """Keeps a response, and waits for the store."""
    is_kept = responses.keep(caller, kept)
    return bool(await is_kept if isawaitable(is_kept) else is_kept)


async def keep_chain(responses: KeptResponses, length: int, caller: str = ANONYMOUS, begin: int = 1) -> list[str]:
    """Keeps a chain; returns its ids, the first first."""
    ids = [f"resp_{number}" for number in range(begin, begin + length)]
    for before, each in zip(["", *ids], ids, strict=False):
        assert await keep(responses, response(each, before), caller)
    return ids


class Op(NamedTuple):
    """A call: its name, the caller, an id, and what else it has."""

    name: str
    caller: str
    identifier: str
    rest: Any = None


class Reference:
    """Keeps responses in a list, the oldest first.

    Args:
        of_caller: Bytes of a caller.
        of_all: Bytes of all.
    """

    def __init__(self, of_caller: int, of_all: int) -> None:
        self.kept: list[tuple[str, KeptResponse]] = []
        self.dropped = 0
        self.too_large = 0
        self._of_caller = of_caller
        self._of_all = of_all

    def keep(self, caller: str, kept: KeptResponse, *, is_accepted: bool = True) -> bool:
        if size_of(kept) > self._of_caller:
            self.too_large += 1
            return False
        self.delete(caller, kept.identifier)
        self.kept.append((caller, kept))
        while sum(size_of(each) for name, each in self.kept if name == caller) > self._of_caller:
            self._drop(next(place for place in self.kept if place[0] == caller))
        while sum(size_of(each) for _, each in self.kept) > self._of_all:
            self._drop(self.kept[0])
        return True

    def _drop(self, place: tuple[str, KeptResponse]) -> None:
        self.kept.remove(place)
        self.dropped += 1

    def find(self, caller: str, identifier: str) -> KeptResponse | None:
        found = [kept for name, kept in self.kept if name == caller and kept.identifier == identifier]
        return found[0] if found else None

    def delete(self, caller: str, identifier: str) -> bool:
        found = self.find(caller, identifier)
        if found is not None:
            self.kept.remove((caller, found))
        return found is not None

    def chain(self, caller: str, identifier: str) -> list[KeptResponse] | None:
        found: list[KeptResponse] = []
        while identifier:
            kept = self.find(caller, identifier)
            if kept is None or kept in found:
                return None
            found.append(kept)
            identifier = kept.parent
        return found[::-1]

    def holding(self, caller: str, item_ids: Iterable[str]) -> dict[str, KeptResponse]:
        found: dict[str, KeptResponse] = {}
        for each in item_ids:
            kept = self._holding(caller, each)
            if kept is not None:
                found[each] = kept
        return found

    def _holding(self, caller: str, item: str) -> KeptResponse | None:
        for name, kept in reversed(self.kept):
            if name == caller and item in kept.items:
                return kept
        return self.find(caller, response_of_item(item)) if response_of_item(item) else None


def size_of(kept: KeptResponse) -> int:
    """Returns the bytes that a response counts for."""
    own = len(kept.input) + len(kept.response)
    return own + LIMITS.response_cost + LIMITS.response_item_cost * len(kept.items)


async def agree(stores: Sequence[KeptResponses], trace: Sequence[Op], of_caller: int, of_all: int) -> None:
    """Carries calls out, by each of some stores in turn, as processes would; compares each answer with `Reference`."""
    model = Reference(of_caller, of_all)
    for each in stores:
        each.use(ResponsesSettings(max_bytes=of_all, max_bytes_per_caller=of_caller))
    seen: dict[tuple[str, str], None] = {}
    items: dict[tuple[str, str], None] = {}
    for number, op in enumerate(trace):
        store = stores[number % len(stores)]
        if op.name == "keep":
            assert await keep(store, op.rest, op.caller) == model.keep(op.caller, op.rest)
            seen[op.caller, op.identifier] = None
            items |= dict.fromkeys((op.caller, each) for each in op.rest.items)
        elif op.name == "delete":
            assert await store.delete(op.caller, op.identifier) == model.delete(op.caller, op.identifier)
        elif op.name == "chain":
            expected = model.chain(op.caller, op.identifier)
            found = await store.chain(op.caller, op.identifier)
            assert (found and [*map(read, found)]) == (expected and [*map(read, expected)])
        else:
            wanted = model.holding(op.caller, op.rest)
            there = await store.holding(op.caller, op.rest)
            assert {each: read(kept) for each, kept in there.items()} == {each: read(wanted[each]) for each in wanted}
    last = stores[-1]
    for caller, identifier in seen:
        assert read(await last.find(caller, identifier)) == read(model.find(caller, identifier))
    for caller, item in items:
        assert [*await last.holding(caller, [item])] == [*model.holding(caller, [item])]
    assert sum(each.dropped for each in stores) == model.dropped
    assert sum(each.not_kept["size"] for each in stores) == model.too_large
    for caller, kept in [*model.kept]:
        assert await last.delete(caller, kept.identifier)
