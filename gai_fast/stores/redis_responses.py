"""Kept responses in Redis.

Owns their keys. All begin with `gai:{responses}:`, so that a cluster has them on one node: budgets of all callers are
exact because each call is one script (`responses.lua`), which the server carries out at once or not at all.

| key | holds |
|---|---|
| `one:<name>` | a hash: `value`, with a line end and a checksum over value and name in eight hex digits; `parent`; |
| | `member`; `items`: the digests of its items; `until`: when it expires, in milliseconds since the epoch |
| `all`, `of:<caller>` | sorted sets: the members of all, and of a caller, by their age |
| `due` | a sorted set: the members by the time at which they expire |
| `items` | a sorted set: `<item><age><name>` of each item, with an age of 16 digits |
| `sizes` | a hash: the bytes of each caller, and of all under an empty name |

1. A member is `<name>:<caller>:<size>:<age>`. Ages are numbers: the newest has the largest.
2. What has expired is not found. A gateway removes it, with its bytes; without a gateway its key expires
   `limits.response_grace` later. The other keys expire with the last response.
3. A server that evicts keys may drop responses early. Their bytes count until they would have expired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from gai_fast.stores.backend import RESPONSES, ResponseBudget, ResponseRecord, StoreError, checksum
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.redis_client import RedisClient, Script

PREFIX: Final = "gai:{responses}:"
_SCRIPT: Final = Script(files("gai_fast.stores").joinpath("responses.lua").read_text())
_KEY: Final = f"{PREFIX}all"
_CHECK: Final = 9
"""Bytes of the checksum that follows a value."""


class RedisResponses:
    """The kept responses in a Redis server, or a cluster.

    Args:
        client: The connections.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def keep(self, record: ResponseRecord[bytes], ttl: float, budget: ResponseBudget) -> int:
        """Keeps a response; as `Backend.keep_response`. If much must make room, several scripts remove it."""
        dropped, is_over = await self._run(
            "keep",
            record.name,
            record.caller,
            record.parent,
            record.value + _check(record.value, record.name),
            record.size,
            max(1, int(ttl * 1000)),
            budget.of_caller,
            budget.of_all,
            "".join(record.items),
            int(LIMITS.response_grace * 1000),
        )
        while is_over:
            some, is_over = await self._run("room", record.caller, budget.of_caller, budget.of_all)
            dropped += some
        return int(dropped)

    async def read(self, names: Sequence[str], turns: int, most: int) -> list[tuple[str, bytes]]:
        """Returns kept responses; as `Backend.read_responses`."""
        found: list[bytes] = await self._run("read", turns, most, *names)
        places = [each.decode() for each in found[::2]]
        return [(name, _opened(value, name)) for name, value in zip(places, found[1::2], strict=True)]

    async def holding(self, items: Mapping[str, str]) -> dict[str, str]:
        """Returns the names of responses with some items; as `Backend.responses_with`."""
        pairs = [each for pair in items.items() for each in pair]
        found: list[bytes] = await self._run("holding", *pairs) if pairs else []
        return {item: name.decode() for item, name in zip(items, found, strict=True) if name}

    async def delete(self, name: str) -> bool:
        """Removes a response; as `Backend.delete_response`."""
        return bool(await self._run("delete", name))

    async def sweep(self) -> bool:
        """Removes some expired responses; returns whether there are more."""
        return bool(await self._run("sweep"))

    async def _run(self, call: str, *arguments: str | bytes | int) -> Any:
        return await self._client.ask_script(_SCRIPT, _KEY, call, PREFIX, LIMITS.responses_dropped, *arguments)


def _check(value: bytes, name: str) -> bytes:
    """Returns the line end and checksum that follow a value."""
    return b"\n%08x" % checksum(value, RESPONSES, name)


def _opened(found: bytes, name: str) -> bytes:
    """Returns a value without its checksum.

    Raises:
        StoreError: They do not match.
    """
    value = found[:-_CHECK]
    if found[-_CHECK:] != _check(value, name):
        raise StoreError("damaged", "a response of the store is damaged")
    return value
