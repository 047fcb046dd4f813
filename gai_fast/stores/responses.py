"""Kept responses of the Responses API: under which names, for how long, and how chains of them are read.

Owns the form of a kept response outside this process. Knows no request, and of a response only where its output is.
The backends own which are dropped (`memory.py` in memory).

1. The names in a store are digests of the caller and the id, so another caller's response is as unknown as none. What
   is read must have the name under which it was looked for: a value in another's place is damaged.
2. A chain is followed by the ids in the values. The names of parents beside the values only say what to read together,
   `limits.chain_turns` in one exchange. A chain is whole, or it is none.
3. A response that could not be written in time may still be written later. It is removed once the store answers.
4. A damaged response, a store that is out of reach and a missing key are errors, never an unknown id.
5. Without keys everybody is one caller, which may fill all of the room. Where some have a credential of their own, that
   caller has one caller's part, and so have all credentials that no upstream has accepted: they are made up in no time.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from gai_fast.core.requests.stored_ids import response_of_item
from gai_fast.model.errors import Error
from gai_fast.model.limits import MIB, SHARED
from gai_fast.model.settings import ANONYMOUS, CREDENTIAL_NAME, ResponsesSettings, figure_label
from gai_fast.stores.backend import Backend, ResponseBudget, ResponseRecord, StoreError
from gai_fast.stores.health import Health, logger
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.memory import ResponseTable, digest, name_of, record_of

Result = TypeVar("Result")

KEPT_ID: Final = re.compile(rf"[A-Za-z0-9._~-]{{1,{SHARED.identifier}}}")
"""The ids by which responses and their items are found, those of upstreams too."""

RESPONSE_ITEMS: Final[int] = LIMITS.response_items
"""The most items by which one response is found."""

_CONTENT: Final = "the responses"
_PERHAPS_WRITTEN: Final = ("slow", "unreachable")
"""Failures after which the store may have done what it was asked."""
_FIELDS: Final = 5
"""The number of the first fields of a `KeptResponse` in its value: its items are places beside it."""


class KeptResponse(NamedTuple):
    """A response that is kept.

    Args:
        identifier: Its id, as the client got it.
        parent: The `previous_response_id` that was asked for. Empty if there was none.
        status: `completed`, `incomplete`, `failed` or `cancelled`.
        input: The request's own items, a JSON array as the client wrote it.
        response: The last `response` object that the client got, as JSON.
        items: The ids of items of the input and the output by which it is found (`KeptResponses.holding`), but for
            those that contain its own id. Empty in a response that was read.
        provider: The name of the provider that answered. Empty if none did.
    """

    identifier: str
    parent: str
    status: str
    input: bytes
    response: bytes
    items: Sequence[str] = ()
    provider: str = ""


class _Output(msgspec.Struct):
    """The output of a `response` object, as JSON."""

    output: msgspec.Raw = msgspec.Raw(b"")


class KeptResponses:
    """The kept responses of all callers.

    Args:
        backend: Keeps them for other processes too. None if they are in the memory of this process.
        health: Notes whether the backend works.
        clock: Monotonic seconds.

    Attributes:
        not_kept: The numbers of responses that this process could not keep, by the reason.
        dropped: The number of responses that were dropped for newer ones of this process.
        is_on: Whether responses are kept.
    """

    def __init__(self, backend: Backend | None, health: Health, clock: Callable[[], float]) -> None:
        self.not_kept: Counter[str] = Counter()
        self.dropped = 0
        self.under_way: set[asyncio.Task[bool]] = set()
        """The tasks of `keep`."""
        self._backend = backend
        self._health = health
        self._table: ResponseTable[KeptResponse] = ResponseTable(clock)  # without a backend
        self._late: OrderedDict[str, None] = OrderedDict()  # names: rule 3
        self.use(ResponsesSettings())

    def use(self, settings: ResponsesSettings, *, has_credentials: bool = False) -> None:
        """Uses other settings for responses that are kept from now on.

        Args:
            settings: `[responses]`.
            has_credentials: Callers without a key may have a credential of their own: rule 5.
        """
        in_memory = self._backend is None or not self._backend.is_copy
        of_all = settings.max_bytes or (LIMITS.responses_memory if in_memory else LIMITS.responses_kept)
        share = max(of_all // LIMITS.responses_share, LIMITS.responses_share_least)
        of_caller = settings.max_bytes_per_caller
        self.is_on = settings.store
        self._ttl = settings.ttl
        self._budget = ResponseBudget(min(of_caller or share, of_all), of_all)
        of_anonymous = share if has_credentials else of_all
        self._budget_of_anonymous = ResponseBudget(min(of_caller or of_anonymous, of_all), of_all)

    def keep(self, caller: str, kept: KeptResponse, *, is_accepted: bool = True) -> bool | asyncio.Future[bool]:
        """Keeps a response, and replaces one with its id. Never raises.

        Args:
            caller: The caller's name.
            kept: The response.
            is_accepted: An upstream has accepted the caller's credential, if it has one: rule 5.

        Returns:
            Whether every process of the store can read it from now on; a future if the store must be asked. If not,
            `not_kept` counts the reason.
        """
        payer = caller if is_accepted or figure_label(caller) != CREDENTIAL_NAME else ANONYMOUS
        budget = self._budget_of_anonymous if payer == ANONYMOUS else self._budget
        backend = self._backend
        record = record_of(caller, kept, budget.of_caller, is_here=backend is None)
        if record is None:
            return self._unkept("size")
        ttl = self._ttl
        if payer != caller:
            record = record._replace(caller=payer)
        if backend is None:
            self.dropped += self._table.keep(record, ttl, budget)
            return True
        copy = ResponseRecord(record.name, digest(payer), record.parent, _text_of(kept), record.size, record.items)
        task = asyncio.get_running_loop().create_task(self._keep(backend, payer, copy, ttl, budget))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    async def find(self, caller: str, identifier: str) -> KeptResponse | None:
        """Returns a kept response. None if it is unknown.

        Args:
            caller: The caller's name.
            identifier: The response's id, or any other text.

        Raises:
            Error: The response is damaged or sealed, or the store is out of reach.
        """
        found = await self._read(caller, [self._name(caller, identifier)], 1, 1)
        return found[0][1] if found else None

    async def chain(self, caller: str, identifier: str) -> list[KeptResponse] | None:
        """Returns the responses of a chain from its first to one. None if one of them is unknown.

        Args:
            caller: The caller's name.
            identifier: The last response's id, or any other text.

        Raises:
            Error: As `find`; or the chain has more than `limits.chain` turns or `limits.chain_items` bytes.
        """
        found: dict[str, KeptResponse] = {}  # by id
        size = _ChainSize()
        while identifier:
            part = await self._read(caller, [self._name(caller, identifier)], LIMITS.chain_turns, LIMITS.chain_items)
            if not part:
                return None
            before = len(found)
            for _, kept in part:
                if kept.identifier != identifier:  # rule 2
                    break
                if identifier in found:  # a circle has no first turn
                    return None
                found[identifier] = kept
                identifier = kept.parent
            if len(found) > LIMITS.chain:
                raise _too_long(f"it has more than {LIMITS.chain} turns")
            await size.add([*found.values()][before:])
        return [*reversed(found.values())]

    async def holding(self, caller: str, item_ids: Sequence[str]) -> dict[str, KeptResponse]:
        """Returns a kept response for each of some items: the newest that names the item, or the one that its id tells.

        An id tells where the item would be, not that it is there.

        Args:
            caller: The caller's name.
            item_ids: The ids of the items, or any other texts.

        Raises:
            Error: As `find`; or these responses have more than `limits.chain_items` bytes.
        """
        own = {each: response_of_item(each) for each in item_ids}
        places = {each: self._name(caller, each) for each in own}
        likely = {places[each]: self._name(caller, name) if name else "" for each, name in own.items()}
        backend = self._backend
        if backend is None:
            names: Mapping[str, str] = self._table.holding(likely)
        else:
            names = await self._ask(caller, lambda: backend.responses_with(likely))
        responses: dict[str, KeptResponse] = {}
        left = [*dict.fromkeys(names.values())]
        size = _ChainSize()
        while left:
            part = await self._read(caller, left, 1, LIMITS.chain_items)
            await size.add([kept for _, kept in part])
            responses.update(part)
            left = left[left.index(part[-1][0]) + 1 :] if part else []
        found = {each: names.get(place, "") for each, place in places.items()}
        return {each: responses[name] for each, name in found.items() if name in responses}  # or removed since

    async def delete(self, caller: str, identifier: str) -> bool:
        """Removes a kept response, also a damaged one; returns whether there was one.

        Args:
            caller: The caller's name.
            identifier: The response's id, or any other text.

        Raises:
            Error: The store is out of reach.
        """
        name, backend = self._name(caller, identifier), self._backend
        if backend is None:
            return self._table.delete(name)
        return await self._ask(caller, lambda: backend.delete_response(name))

    async def remove_late(self) -> None:
        """Removes responses that were written too late: rule 3.

        Raises:
            StoreError: The store still fails. They are removed later.
        """
        while self._late and self._backend is not None:
            name = next(iter(self._late))
            await self._backend.delete_response(name)
            self._late.pop(name, None)

    def _name(self, caller: str, identifier: str) -> str:
        """Returns the name of a response or an item: rule 1."""
        return name_of(caller, identifier, is_here=self._backend is None)

    async def _keep(
        self, backend: Backend, caller: str, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget
    ) -> bool:
        name = record.name
        self._late.pop(name, None)
        try:
            self._health.check(caller)
            async with asyncio.timeout(LIMITS.store_answer):
                self.dropped += await backend.keep_response(record, ttl, budget)
            return True
        except TimeoutError:
            self._health.failed(StoreError("slow", "the store does not take a response in time"))
            self._note_late(name)
        except StoreError as problem:
            self._refusal(problem)
            if problem.fault in _PERHAPS_WRITTEN:
                self._note_late(name)
        except Error:  # the store has just failed
            pass
        return self._unkept("store")

    def _unkept(self, reason: str) -> bool:
        self.not_kept[reason] += 1
        return False

    def _note_late(self, name: str) -> None:
        self._late[name] = None
        if len(self._late) > LIMITS.responses_late:
            self._late.popitem(last=False)

    async def _read(
        self, caller: str, names: Sequence[str], turns: int, most: int
    ) -> Sequence[tuple[str, KeptResponse]]:
        """Returns kept responses; as `Backend.read_responses`.

        Raises:
            Error: As `find`.
        """
        backend = self._backend
        if backend is None:
            return self._table.read(names, turns, most)
        found = await self._ask(caller, lambda: backend.read_responses(names, turns, most))
        try:
            return [(name, _opened(caller, name, value)) for name, value in found]
        except StoreError as problem:
            raise self._refusal(problem) from None

    async def _ask(self, caller: str, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Returns the backend's answer.

        Raises:
            Error: As `find`.
        """
        self._health.check(caller)
        try:
            return await ask()
        except StoreError as problem:
            raise self._refusal(problem) from None

    def _refusal(self, problem: StoreError) -> Error:
        """Notes why a response could not be read or kept; returns the error of its request: rule 4."""
        if problem.fault == "damaged":
            logger.warning("a kept response cannot be read: %s", problem)
            return Error("internal", "a response that the store keeps is damaged", reason="log_damaged")
        return self._health.refusal(problem, _CONTENT)


class _ChainSize:
    """Adds up the items of responses. Their output is measured only once the whole objects are too large."""

    def __init__(self) -> None:
        self._whole = 0
        self._items = 0
        self._unmeasured: list[KeptResponse] = []

    async def add(self, read: Sequence[KeptResponse]) -> None:
        """Adds responses. The loop may go on after each that is measured.

        Raises:
            Error: There are too many bytes.
        """
        self._whole += sum([len(kept.input) + len(kept.response) for kept in read])
        self._unmeasured += read
        if self._whole > LIMITS.chain_items:
            for kept in self._unmeasured:
                self._items += _size_of_items(kept)
                await asyncio.sleep(0)
            self._unmeasured.clear()
        if self._items > LIMITS.chain_items or self._whole > LIMITS.chain_read:
            raise _too_long(f"its items have more than {LIMITS.chain_items // MIB} MiB")


def _too_long(why: str) -> Error:
    return Error("context_length_exceeded", f"the conversation is too long: {why}", reason="conversation")


def _size_of_items(kept: KeptResponse) -> int:
    """Returns the bytes of the items of a response, of its input and its output.

    Args:
        kept: The response.
    """
    try:
        output = msgspec.json.decode(kept.response, type=_Output).output
    except msgspec.MsgspecError:
        output = msgspec.Raw(kept.response)
    return len(kept.input) + len(output)


def _text_of(kept: KeptResponse) -> bytes:
    """Encodes a response, for `_opened`."""
    return msgspec.msgpack.encode((*kept[:_FIELDS], kept.provider))


def _opened(caller: str, name: str, value: bytes) -> KeptResponse:
    """Decodes the output of `_text_of`.

    Raises:
        StoreError: The text is damaged, or that of another response: rule 1.
    """
    try:
        fields = msgspec.msgpack.decode(value, type=tuple[str, str, str, bytes, bytes, str])
        kept = KeptResponse(*fields[:_FIELDS], provider=fields[_FIELDS])
    except msgspec.MsgspecError:
        raise StoreError("damaged", "a response cannot be read") from None
    if name_of(caller, kept.identifier, is_here=False) != name:
        raise StoreError("damaged", "a response is in another's place")
    return kept
