"""`gai_fast/library/own_models.py`: what a function may return, and what its failures are to a client."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import gai_fast
from gai_fast.library.own_models import call_function
from gai_fast.model.settings import FunctionSettings

Call = Callable[[Any], Any]
Calls = Callable[[Call], Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Calls a function, and returns its events."""

    async def called(function: Call) -> list[dict[str, Any]]:
        module = ModuleType("own_model_of_this_test")
        module.answer = function  # type: ignore[attr-defined]  # it is a module
        monkeypatch.setitem(sys.modules, module.__name__, module)
        lines = call_function(FunctionSettings(f"{module.__name__}:answer", "."), b'{"model":"m"}')
        return [json.loads(line) async for line in lines]

    return called


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "text.delta")


async def texts(request: Any) -> AsyncIterator[str]:
    yield f"I am {request['model']}"


async def awaited(request: Any) -> AsyncIterator[str]:
    return texts(request)


def plain(request: Any) -> Iterator[str]:
    assert threading.current_thread() is not threading.main_thread()
    yield f"I am {request['model']}"


def chunks(request: Any) -> Iterator[Any]:
    yield {"choices": [{"index": 0, "delta": {"content": f"I am {request['model']}"}}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


async def mixed(request: Any) -> AsyncIterator[Any]:
    yield {"type": "reasoning.delta", "text": "Hm"}
    yield f"I am {request['model']}"
    yield {"type": "finish", "finish_reason": "stop", "usage": {"input_tokens": 1, "output_tokens": 2}}


@pytest.mark.parametrize(
    "function",
    [texts, awaited, plain, chunks, mixed, lambda request: gai_fast.from_sdk(plain(request)), lambda _: ["I am m"]],
    ids=["async generator", "awaitable", "generator", "chunks", "events", "from_sdk", "list"],
)
async def test_what_a_function_may_return(calls: Calls, function: Call) -> None:
    events = await calls(function)
    assert (events[0]["type"], events[-2]["type"], events[-1]) == (
        "start",
        "finish",
        {"type": "done", "finished": True},
    )
    assert text_of(events) == "I am m"


async def test_a_generator_sees_one_thread(calls: Calls) -> None:
    seen = set()

    def function(request: Any) -> Iterator[str]:
        try:
            for _ in range(3):
                seen.add(threading.current_thread())
                yield "a"
        finally:
            seen.add(threading.current_thread())

    await calls(function)
    assert len(seen) == 1
    assert threading.main_thread() not in seen


async def raising(request: Any) -> AsyncIterator[str]:
    yield "a"
    raise KeyError("sk-secret")


def raising_at_once(request: Any) -> Iterator[str]:
    raise KeyError("sk-secret")


def leaving(request: Any) -> Iterator[str]:
    yield "a"
    sys.exit("sk-secret")


def leaving_as_a_generator(request: Any) -> Iterator[str]:
    yield "a"
    raise GeneratorExit("sk-secret")


class Panic(BaseException):
    """An exception like PyO3's, of an extension in Rust."""


async def panicking(request: Any) -> AsyncIterator[str]:
    yield "a"
    raise Panic("sk-secret")


def panicking_in_a_thread(request: Any) -> Iterator[str]:
    yield "a"
    raise Panic("sk-secret")


def panicking_at_once(request: Any) -> Iterator[str]:
    raise Panic("sk-secret")


async def interrupting(request: Any) -> AsyncIterator[str]:
    yield "a"
    raise KeyboardInterrupt("sk-secret")


def interrupting_at_once(request: Any) -> Iterator[str]:
    raise KeyboardInterrupt("sk-secret")


async def returning_text(request: Any) -> str:
    return "sk-secret"


async def yielding_numbers(request: Any) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (raising, "KeyError: 'sk-secret'"),
        (raising_at_once, "KeyError: 'sk-secret'"),
        (leaving, "SystemExit: sk-secret"),
        (leaving_as_a_generator, "GeneratorExit: sk-secret"),
        (panicking, "Panic: sk-secret"),
        (panicking_in_a_thread, "Panic: sk-secret"),
        (panicking_at_once, "Panic: sk-secret"),
        (interrupting, "KeyboardInterrupt: sk-secret"),
        (interrupting_at_once, "KeyboardInterrupt: sk-secret"),
        (returning_text, "from_sdk takes an iterator or an async iterator of an answer's chunks; this is str"),
        (yielding_numbers, "does not know chunks of the type builtins.int"),
        (lambda: None, "takes 0 positional arguments"),
    ],
)
async def test_an_exception_is_internal_and_its_text_is_in_the_log_alone(
    calls: Calls, caplog: pytest.LogCaptureFixture, function: Call, words: str
) -> None:
    events = await calls(function)
    assert events[-1]["error"]["code"] == "internal"
    assert events[-1]["error"]["reason"] == "function"
    assert "sk-secret" not in str(events)
    assert "own_model_of_this_test:answer has failed" in caplog.text
    assert words in caplog.text


class StatusError(Exception):
    """What SDKs raise for a status."""

    status_code = 429
    body = None
    response = SimpleNamespace(headers={"retry-after": "2"})


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (StatusError(), "rate_limited"),
        (ConnectionResetError(), "network"),
        (TimeoutError(), "timeout"),
        (gai_fast.InvalidRequest(message="no images"), "invalid_request"),
    ],
)
@pytest.mark.parametrize("is_begun", [False, True])
async def test_a_failure_of_a_provider_is_its_own(
    calls: Calls, caplog: pytest.LogCaptureFixture, problem: Exception, code: str, is_begun: bool
) -> None:
    async def failing(request: Any) -> AsyncIterator[str]:
        yield "a"
        raise problem

    async def refused(request: Any) -> AsyncIterator[str]:
        raise problem

    events = await calls(failing if is_begun else refused)
    assert events[-2]["error"]["code"] == code
    assert not caplog.records


async def test_a_name_that_is_gone_is_internal(caplog: pytest.LogCaptureFixture) -> None:
    lines = [line async for line in call_function(FunctionSettings("no_such_module_77:answer", "."), b"{}")]
    assert json.loads(lines[-1])["error"]["code"] == "internal"
    assert "neither" in caplog.text


async def test_closing_closes_theirs(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    async def function(request: Any) -> AsyncIterator[str]:
        try:
            while True:
                yield "a"
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    module = ModuleType("own_model_of_this_test")
    module.answer = function  # type: ignore[attr-defined]  # it is a module
    monkeypatch.setitem(sys.modules, module.__name__, module)
    lines = call_function(FunctionSettings("own_model_of_this_test:answer", "."), b"{}")
    await anext(lines)
    await lines.aclose()
    assert closed == [True]


@pytest.mark.parametrize("problem", [KeyError, KeyboardInterrupt])
async def test_one_that_fails_when_it_is_closed_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, problem: type[BaseException]
) -> None:
    async def function(request: Any) -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            raise problem("late")

    module = ModuleType("own_model_of_this_test")
    module.answer = function  # type: ignore[attr-defined]  # it is a module
    monkeypatch.setitem(sys.modules, module.__name__, module)
    lines = call_function(FunctionSettings("own_model_of_this_test:answer", "."), b"{}")
    await anext(lines)
    await lines.aclose()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "when its answer was closed" in caplog.text
