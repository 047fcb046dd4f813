"""Calls a function of the user's that answers requests: an upstream of a provider that `calls_function`.

Owns the valid results of the function, and the errors that its failures become for a client.
`net/attempts/function_calls.py` decides when it is called, read and closed.

1. The function gets the native request, a mapping. What it returns is read as `from_sdk` reads it; an awaitable is
   awaited first. A plain iterator is iterated in a thread.
2. An exception that `from_sdk` knows is the provider's error. Any other is `internal`, with its text in the log alone,
   also those that would end the process: `SystemExit`, `KeyboardInterrupt`, the panics of extensions in Rust.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from inspect import isawaitable
from pathlib import Path
from typing import Any, Final

from gai_fast.kernels import encode_json, parse_exact
from gai_fast.library.sdk_streams import SDKEvents, events_of_failure, from_sdk
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.settings import FunctionSettings
from gai_fast.runtime.functions import import_function
from gai_fast.runtime.threads import ThreadIterator

_log: Final = logging.getLogger("gai_fast.functions")


async def call_function(function: FunctionSettings, body: bytes) -> AsyncGenerator[bytes, None]:
    """Calls a function and yields the lines of its answer, each an event.

    Args:
        function: The function.
        body: The request.
    """
    source: SDKEvents | ThreadIterator | None = None
    try:
        returned = import_function(function.reference, Path(function.folder))(parse_exact(body.decode()))
        answer = from_sdk(await returned if isawaitable(returned) else returned)
        source = answer if answer.is_async else ThreadIterator(iter(answer))
        async for event in source:
            yield _line(event)
    except _OF_THE_LOOP:
        raise
    except BaseException as problem:  # noqa: BLE001  # rule 2
        for event in _failure(function, problem):
            yield _line(event)
    finally:
        if source is not None:
            await _close(function, source)


_OF_THE_LOOP: Final = (asyncio.CancelledError, GeneratorExit)
"""Exceptions that end a call from outside. SIGINT is none: the server handles the signal, and asyncio's runner cancels
its task."""


def _failure(function: FunctionSettings, problem: BaseException) -> list[Event]:
    try:
        return events_of_failure(problem)
    except BaseException:  # noqa: BLE001  # rule 2: `problem` again
        _log.error("the function %s has failed", function.reference, exc_info=problem)
    error = Error("internal", "the function that answers for this model has failed", reason="function")
    return [{"type": "error", "error": error.payload()}]


async def _close(function: FunctionSettings, source: SDKEvents | ThreadIterator) -> None:
    try:
        await source.aclose()
        if isinstance(source, ThreadIterator):  # its call keeps its place until the thread is free
            await source.ended()
    except _OF_THE_LOOP:
        raise
    except BaseException as problem:  # noqa: BLE001  # the answer has ended: no client can get it
        _log.error("the function %s has failed when its answer was closed", function.reference, exc_info=problem)


def _line(event: Any) -> bytes:
    return encode_json(event) + b"\n"
