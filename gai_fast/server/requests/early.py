"""The checks before a large body is parsed: parsing it holds the loop.

Owns which requests are refused unparsed. `quotas.py` counts requests.

1. A request is refused only if it would be refused whatever its body is: its caller has no request, token, spend or
   stream left.
2. A request that a stream of an idempotency key may answer counts for no limit, and so is read. The store is asked for
   the key before the limits, which count what they refuse.
3. The structure of a body above `limits.checked_bytes` is checked in parts, and the loop has a turn after each of them.
   Only a body within its limits is parsed: a parser cannot be interrupted. A body in a client's dialect is parsed in
   parts, too; a native one has a type for each of its members, and is parsed in one turn.
4. If other workers share the limits, the ledger is asked twice: before the body is read, and to count the request once
   it is known to be valid.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Raw

from gai_fast.core.json.structure import Structure
from gai_fast.model.request import CheckedBody
from gai_fast.net.engine.engine import Engine
from gai_fast.net.logs.view import NATIVE
from gai_fast.runtime.beside import Beside
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.idempotency import KEY_HEADERS, key_of, scoped
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.passage import Passage, Wait

_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_ITEMS: Final = msgspec.json.Decoder(list[Raw])
_VALUE: Final = msgspec.json.Decoder()
_HEAD: Final = 256
"""Bytes in which the first character that is no white space is looked for."""
_KEY_MEMBER: Final = b'"idempotency_key"'
"""A member of native requests; elsewhere it may be a tool's parameter."""


class EarlyChecks:
    """Checks the limits of requests with large bodies.

    Args:
        engine: The engine with the limits.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def admit(self, incoming: Incoming, *, takes_key: bool) -> Wait | None:
        """Lets a request be read if no limit refuses it; as `Gate.admit`.

        Args:
            incoming: The request, with its body.
            takes_key: Whether the route answers by idempotency keys; else the store is not asked.

        Raises:
            Error: A limit refuses the request.
        """
        body, headers = incoming.http.body, incoming.http.headers
        key = key_of(headers) if takes_key and any(name in headers for name in KEY_HEADERS) else None
        is_native = incoming.format.name == NATIVE or (incoming.form is not None and incoming.newest is None)
        may_have_key = takes_key and is_native and _KEY_MEMBER in body
        is_admitted = key is None and (may_have_key or self._check(incoming))
        if is_admitted and len(body) <= LIMITS.checked_bytes:
            return None
        return partial(self._wait, incoming, key, is_admitted=is_admitted)

    async def _wait(self, incoming: Incoming, key: str | None, *, is_admitted: bool) -> None:
        """Does the work of `admit` that takes more than one turn."""
        if not is_admitted:
            await self.look(incoming, key)
        body = incoming.http.body
        if len(body) > LIMITS.checked_bytes:
            incoming.http.body = await checked(body, is_native=incoming.format.name == NATIVE)

    def has_room(self, incoming: Incoming) -> bool:
        """Refuses a request that counts and would be refused, before work is done for it; as `_check`."""
        return self._check(incoming)

    async def look(self, incoming: Incoming, key: str | None) -> None:
        """Refuses a request that would be refused whatever its body is: rules 1 and 2.

        Args:
            incoming: The request.
            key: Its idempotency key. None if it has none.

        Raises:
            Error: A limit refuses the request.
        """
        engine, limited = self._engine, incoming.http.key
        is_new = key is None or await engine.store.find_claim(scoped(incoming, key), incoming.http.caller) is None
        if is_new and not self._check(incoming) and limited is not None:
            await engine.ledger.look(limited)

    def _check(self, incoming: Incoming) -> bool:
        """Refuses a request that would be refused whatever its body is.

        Returns:
            False if only the ledger that workers share can tell.

        Raises:
            Error: A limit refuses it.
        """
        engine, caller = self._engine, incoming.http.caller
        if engine.limits is not None and not engine.must_ask(caller):
            engine.limits.check("", caller, engine.running, engine.streams_of(caller))
        return incoming.http.key is None or engine.ledger.check(incoming.http.key)


async def checked(body: bytes, *, is_native: bool) -> CheckedBody:
    """Checks the structure of a body and, of a dialect's, parses it: rule 3.

    Args:
        body: The body.
        is_native: Whether the request is native.

    Raises:
        InvalidRequest: It is nested too deep, or has too many values.
    """
    structure = Structure()
    for start in range(0, len(body), LIMITS.checked_bytes):
        structure.feed(body[start : start + LIMITS.checked_bytes])
        await asyncio.sleep(0)
    found = CheckedBody(body)
    found.containers = structure.containers
    if not is_native:
        # A body that is not JSON is parsed again by its handler, which names the error.
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            value = await _Turns().parse(body)
            found.value = value if isinstance(value, dict) else None
    return found


async def read_rest(passage: Passage, beside: Beside) -> None:
    """Reads the rest of a large request beside the loop.

    Args:
        passage: The request, which has a `rest`.
        beside: Does the work.

    Raises:
        Error: As `rest`.
    """
    rest = passage.rest
    assert rest is not None
    passage.rest = None  # it refers to the request, which would keep its body until the next collection
    await beside.do(rest, passage.incoming.http.caller)
    passage.name_ids()


class _Turns:
    """Parses a body in parts of `limits.turn_bytes`, with a turn of the loop after each."""

    def __init__(self) -> None:
        self._left = LIMITS.turn_bytes

    async def parse(self, text: bytes) -> Any:
        """Returns the value of a JSON text.

        Raises:
            msgspec.DecodeError: It is not JSON.
        """
        head = text[:_HEAD].lstrip() if len(text) > LIMITS.turn_bytes else b""
        if head.startswith(b"{"):
            return {name: await self.parse(bytes(each)) for name, each in _MEMBERS.decode(text).items()}
        if head.startswith((b"[{", b"[[")):
            return [await self.parse(bytes(each)) for each in _ITEMS.decode(text)]
        self._left -= len(text)
        if self._left < 0:
            self._left = LIMITS.turn_bytes
            await asyncio.sleep(0)
        return _VALUE.decode(text)
