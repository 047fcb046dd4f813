"""`gai_fast/grpc/receiving.py`: how many messages are received at a time. `integration/test_grpc_receiving.py` has all
else."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from gai_fast.grpc.receiving import Full, Receiving
from gai_fast.model.errors import Error


class Context:
    """A call whose message comes, or does not."""

    def __init__(self, *messages: Any) -> None:
        self.messages = list(messages)

    async def read(self) -> Any:
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)


async def message(receiving: Receiving, *messages: Any) -> bytes:
    context: Any = Context(*messages)
    return await receiving.message(context)


async def test_each_end_of_a_message_makes_place() -> None:
    receiving = Receiving(1, wait=0.01, receive=0.01)
    for _ in range(3):
        assert await message(receiving, b"a", b"b") == b"a"
        with pytest.raises(Error, match=r"^the message did not arrive in time$") as problem:
            await message(receiving)
        assert (problem.value.code, problem.value.reason) == ("timeout", "body_timeout")
        with pytest.raises(Error, match=r"^the call has no message$") as problem:
            await message(receiving, grpc.aio.EOF)
        assert problem.value.code == "invalid_request"
        cancelled = asyncio.create_task(message(receiving))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait({cancelled})


async def test_another_one_waits_and_is_then_refused() -> None:
    receiving = Receiving(1, wait=0.01, receive=60)
    first = asyncio.create_task(message(receiving))
    await asyncio.sleep(0)
    with pytest.raises(Full):
        await message(receiving, b"a")
    second = asyncio.create_task(message(receiving, b"a"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"a"
