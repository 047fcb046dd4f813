"""Requests that go on from earlier responses, or name items of them: they are asked as if they were whole.

Owns what is looked up, in which order, and the refusals. `formats/responses/chain.py` joins the items,
`stores/responses.py` keeps the responses, and `gates.py` has the gate.

1. A connection's own conversation is looked for first, responses and items, then what is kept of the caller's.
2. What is not kept here goes up as it is if an upstream of the dialect may answer; the gate `named ids` checks then
   that the caller got it there. Otherwise it is unknown, whatever the reason is, and one text says so.
3. A chain is whole or refused. A response that is kept, but of which an earlier turn is missing, never goes up.
4. A short conversation is joined at once, a longer one beside the loop. What is kept counts for its limits as if the
   client had sent it: the early limits (`early.py`) before it is parsed, `upload_bytes` while it waits and is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Raw

from gai_fast.core.json.structure import Structure
from gai_fast.core.requests.stored_ids import ITEM, StoredId
from gai_fast.formats._base import ItemMark
from gai_fast.formats._members import read_text
from gai_fast.formats.responses.chain import (
    Reference,
    items_by_id,
    joined,
    mark_of,
    output_text,
    own_items,
    references,
)
from gai_fast.kernels import count_opening, encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import MIB, SHARED
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.beside import Beside
from gai_fast.runtime.breathing import breathe
from gai_fast.server.admission.stored_ids import not_found
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.specs import containers_in
from gai_fast.stores.responses import KeptResponse

if TYPE_CHECKING:
    from gai_fast.server.requests.incoming import Incoming
    from gai_fast.server.requests.passage import Passage

IsRunning = Callable[[str, str], Awaitable[bool]]
Look = Callable[["Incoming", str | None], Awaitable[None]]
ReadRest = Callable[["Passage", Beside], Awaitable[None]]
_PARENT: Final = "previous_response_id"
_KEPT_ID: Final = re.compile(rf"[A-Za-z0-9._~-]{{1,{SHARED.identifier}}}")
_OWN_ID: Final = re.compile(r"resp_([A-Za-z0-9_-]{22,100})")


class Turn(NamedTuple):
    """A request that goes on from an earlier response, or names items of one.

    Attributes:
        parent: The id of the response before it, if that is one of ours; else empty.
        own: The request's own items; references to kept items are replaced.
        is_upstreams: The response before it, or an item that it names, is an upstream's: the turn is not kept here.
        before: The turns before, from the first on.
    """

    parent: str
    own: list[Any]
    is_upstreams: bool
    before: Sequence[KeptResponse] = ()


class Found(NamedTuple):
    """The kept responses and items that a request names.

    Attributes:
        turns: The turns before, from the first on.
        parent: As for `Turn`.
        own: The request's own items, as its client wrote them.
        named: The references among these.
        holding: The responses with the items that are kept, by the items' ids.
        is_upstreams: As for `Turn`.
        may_go_up: An upstream may know the items that are not kept.
        size: The bytes of the kept responses that it names.
    """

    turns: Sequence[KeptResponse]
    parent: str
    own: list[Any]
    named: Sequence[Reference]
    holding: Mapping[str, KeptResponse]
    is_upstreams: bool
    may_go_up: bool
    size: int


class WholeRequest(NamedTuple):
    """A request with its whole conversation.

    Attributes:
        body: The body.
        marks: The items of earlier answers that other providers do not understand.
        containers: The number of its objects and arrays, or more.
        turn: What it goes on from.
        unknown: The request as far as its client wrote it: what it names there may be an upstream's.
    """

    body: dict[str, Any]
    marks: Sequence[ItemMark]
    containers: int
    turn: Turn
    unknown: dict[str, Any]


class Chains:
    """Looks up what requests name.

    Args:
        engine: The engine with the store.
        is_running: Returns whether a stream, by its id, of a caller runs.
        look: Refuses a request that would be refused whatever its body is.
        read_rest: Reads the rest of a large request beside the loop.
    """

    def __init__(self, engine: Engine, is_running: IsRunning, look: Look, read_rest: ReadRest) -> None:
        self._engine = engine
        self._is_running = is_running
        self._look = look
        self._read_rest = read_rest

    async def join(self, passage: Passage) -> None:
        """Reads a request as if its client had sent the whole conversation.

        Args:
            passage: The request, which has a `linked`.

        Raises:
            Error: The request names what is unknown, the store is out of reach, or a limit refuses the request.
        """
        body, passage.linked = passage.linked, None
        assert body is not None
        incoming = passage.incoming
        found = await self._find(passage, body)
        added = found.size
        if added > LIMITS.early_check:
            await self._look(incoming, passage.key)
        beside = self._engine.targets.beside
        if len(incoming.http.body) + added <= LIMITS.checked_bytes:
            passage.join(body, found)
        else:
            await self._join_beside(partial(passage.join, body, found), incoming, added, beside)
        if passage.rest is not None:
            await self._read_rest(passage, beside)

    async def _join_beside(self, join: Callable[[], None], incoming: Incoming, added: int, beside: Beside) -> None:
        """Joins a long conversation. Its kept bytes count for `upload_bytes` until it is joined: rule 4."""
        limits, caller = self._engine.limits, "" if incoming.http.key is None else incoming.http.caller
        if limits is not None:
            limits.begin_upload(added, caller)
        try:
            await beside.do(join, incoming.http.caller)
        finally:
            if limits is not None:
                limits.end_upload(added, caller)

    async def _find(self, passage: Passage, body: dict[str, Any]) -> Found:
        """Returns what a request names. Raises as `join`."""
        own, parent = own_items(body), _parent(body)
        find = partial(references, own)
        is_long = len(own) > LIMITS.turn_items
        named = await self._engine.targets.beside.do(find, passage.incoming.http.caller) if is_long else find()
        needed = [each for each in named if each.is_needed]
        if len(needed) > LIMITS.kept_references:
            text = f"the request refers to more than {LIMITS.kept_references} items: send the items themselves"
            raise Error("invalid_request", text, reason="items")
        turns: Sequence[KeptResponse] = ()
        is_known = parent is not None
        if parent is not None:
            newest = passage.incoming.newest
            chain = None if newest is None else newest.find(parent)
            if chain is None:
                chain = await self._chain(passage, parent)
            turns, is_known = chain or (), chain is not None
        named = named if len(named) <= LIMITS.kept_references else needed
        ids = list(dict.fromkeys([each.identifier for each in named if _KEPT_ID.fullmatch(each.identifier)]))
        holding = await self._holding(passage, ids) if ids else {}
        ours = parent or "" if is_known else ""
        is_upstreams = parent is not None and not is_known
        may_go_up = bool(needed) and passage.may_go_up()
        size = sum([len(kept.input) + len(kept.response) for kept in (*turns, *holding.values())])
        return Found(turns, ours, own, named, holding, is_upstreams, may_go_up, size)

    async def _holding(self, passage: Passage, ids: Sequence[str]) -> Mapping[str, KeptResponse]:
        """Returns the responses with items, by the items' ids: rule 1."""
        newest, responses = passage.incoming.newest, self._engine.store.responses
        found = {} if newest is None else newest.holding(ids)
        others = [each for each in ids if each not in found]
        return {**found, **await responses.holding(passage.incoming.http.caller, others)} if others else found

    async def _chain(self, passage: Passage, parent: str) -> Sequence[KeptResponse] | None:
        """Returns the turns up to a response. None if it may be an upstream's: rules 2 and 3.

        Raises:
            Error: It is unknown, or still runs.
        """
        if _KEPT_ID.fullmatch(parent):
            responses, caller = self._engine.store.responses, passage.incoming.http.caller
            chain = await responses.chain(caller, parent)
            if chain is not None:
                return chain
            own = _OWN_ID.fullmatch(parent)
            if own is not None and await self._is_running(own[1], caller):
                text = f"response {parent!r} still runs: go on from it once it has ended"
                raise Error("invalid_request", text, reason="running", status=409, param=_PARENT)
            if await responses.find(caller, parent) is not None:
                raise not_found(StoredId(_PARENT, parent))
        if parent and passage.may_go_up():
            return None
        raise not_found(StoredId(_PARENT, parent))


def whole(body: dict[str, Any], raw: bytes, found: Found) -> WholeRequest:
    """Returns a request with its whole conversation; takes long, and shares nothing that changes with the loop.

    Args:
        body: The client's JSON object.
        raw: Its text.
        found: What it names.

    Raises:
        Error: An item is unknown; a call lacks its output, or an output its call; or the conversation is too large.
    """
    containers = count_opening(bytes(raw))  # a checked body is of a type of its own
    outputs: list[Raw | None] = []
    for kept in found.turns:
        breathe()
        output = output_text(kept)
        containers += count_opening(kept.input) + count_opening(kept.response if output is None else bytes(output))
        outputs.append(output)
    structure = None
    if containers > LIMITS.translated_containers:  # the conversation may have more values than may be parsed
        structure = Structure()
        read_text(structure, raw)
    own, marks, replaced = _with_items(found)
    if found.turns:
        conversation = joined(found.turns, own, marks, structure, outputs)
        items, marks = conversation.items, conversation.marks
    else:
        items = own
    is_ours = bool(found.turns)
    sent = body
    if is_ours or replaced:
        sent = {name: value for name, value in body.items() if name != _PARENT or not is_ours}
        sent["input"] = items
    unknown = body
    if is_ours or replaced:
        left = [item for at, item in enumerate(found.own) if at not in replaced]
        unknown = {name: value for name, value in sent.items() if name != "input"} | {"input": left}
    if replaced:
        containers += containers_in([own[at] for at in replaced])
    most = min(max(LIMITS.turn_containers, LIMITS.item_containers * len(items)), LIMITS.translated_containers)
    if containers > most:  # brackets in texts were counted too: count exactly
        containers = containers_in(sent.values())
    if found.size > LIMITS.long_conversation:
        containers = max(containers, LIMITS.turn_passed + 1)  # it is read and written beside the loop
    is_upstreams = found.is_upstreams or any(each.is_needed and each.place not in replaced for each in found.named)
    return WholeRequest(sent, marks, containers, Turn(found.parent, own, is_upstreams, found.turns), unknown)


def _with_items(found: Found) -> tuple[list[Any], list[ItemMark], set[int]]:
    """Returns a request's own items with kept ones in place of references, the marks of these, and their places.

    Raises:
        Error: An item is unknown, or they have too many bytes: one item may be named often.
    """
    own = found.own
    size, sizes = 0, dict[str, int]()
    marks: list[ItemMark] = []
    replaced: set[int] = set()
    known: dict[str, dict[str, dict[str, Any]]] = {}
    for each in found.named:
        item, kept = None, found.holding.get(each.identifier)
        if kept is not None:
            items = known.get(kept.identifier)
            if items is None:
                breathe()
                items = known[kept.identifier] = items_by_id(kept)
            item = items.get(each.identifier)
        if kept is None or item is None:
            if each.is_needed and not found.may_go_up:
                raise not_found(StoredId(ITEM, each.identifier))
            continue
        if not replaced:
            own = [*own]
        own[each.place] = item
        replaced.add(each.place)
        if each.identifier not in sizes:
            breathe()
            sizes[each.identifier] = len(encode_json(item))
        size += sizes[each.identifier]
        if size > LIMITS.kept_items:
            text = f"the items that the request refers to have more than {LIMITS.kept_items // MIB} MiB"
            raise Error("context_length_exceeded", text, reason="conversation")
        mark = mark_of(item, each.place, kept.provider)
        if mark is not None:
            marks.append(mark)
    return own, marks, replaced


def _parent(body: Mapping[str, Any]) -> str | None:
    """Returns the id of the response that a request goes on from. None if it names none.

    Raises:
        InvalidRequest: It is no text, or stands beside a conversation.
    """
    parent = body.get(_PARENT)
    if parent is None:
        return None
    if not isinstance(parent, str):
        text = f"The request is not valid: `{_PARENT}` must be a text - at `$.{_PARENT}`"
        raise Error("invalid_request", text, reason="validation", param=_PARENT)
    if body.get("conversation") is not None:
        text = f"`{_PARENT}` and `conversation` exclude each other: send one of them"
        raise Error("invalid_request", text, reason="conversation", param=_PARENT)
    return parent
