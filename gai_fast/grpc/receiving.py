"""The messages of calls, as they are received.

Owns how many messages are received at a time, and for how long. Must not know their content.

The handlers are those of streams of messages: grpcio calls them when a call's metadata is there, and asks for the
message only when it is read. Until then a client can send `limits.grpc_unasked` bytes. The handlers of single messages
are called when the message is whole: anyone could have 10 MiB of it kept, without an end.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc.aio import ServicerContext

from gai_fast.model.errors import Error


class Full(Exception):
    """The greatest number of messages is already being received."""


class Receiving:
    """Messages that are received at a time.

    Args:
        most: The greatest number of messages at a time.
        wait: Seconds that a further call waits for a place.
        receive: Seconds in which a message must be whole.
    """

    def __init__(self, most: int, *, wait: float, receive: float) -> None:
        self._free = asyncio.Semaphore(most)
        self._wait = wait
        self._receive = receive

    async def message(self, context: ServicerContext) -> bytes:
        """Returns the message of a call; further ones are not read.

        Raises:
            Full: No other message has ended in time.
            InvalidRequest: There is none.
            Timeout: It was not whole in time.
        """
        data: bytes = await self.read(context)
        if data is grpc.aio.EOF:
            raise Error("invalid_request", "the call has no message", reason="message")
        return data

    async def read(self, context: ServicerContext) -> Any:
        """Returns the next message of a call; `EOF` if it has no further one.

        Raises:
            Full: No other message has ended in time.
            Timeout: It was not whole in time.
        """
        try:
            async with asyncio.timeout(self._wait):
                await self._free.acquire()
        except TimeoutError:
            raise Full from None
        try:
            async with asyncio.timeout(self._receive):
                return await context.read()
        except TimeoutError:
            raise Error("timeout", "the message did not arrive in time", reason="body_timeout") from None
        finally:
            self._free.release()


def overfull() -> Error:
    """Returns the error of a call whose message is not read."""
    return Error("overloaded", "the server receives as many messages as it can: call again", reason="receiving")
