"""The implementations of the kernels that this run tests, for tests that state a rule for each of them.

`GAI_FAST_NO_EXTENSIONS=1` tests the pure one, `GAI_FAST_REQUIRE_EXTENSIONS=1` and `GAI_FAST_REQUIRE_ALL=1` the native
one; without them both are tested where both are there.
"""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from gai_fast.kernels import IMPLEMENTATION

for name, examples in (("quick", 200), ("repeated", 50), ("exhaustive", 10_000)):
    # Nothing fails because a machine is slow or busy.
    settings.register_profile(name, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def is_set(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


IS_REPEATED = is_set("GAI_FAST_REPEATED") and not is_set("GAI_FAST_EXHAUSTIVE")
"""Whether another run takes all cuts and examples of these tests on another build: then some of them do."""


def implementations() -> tuple[str, ...]:
    """Returns the implementations that this run tests."""
    if is_set("GAI_FAST_NO_EXTENSIONS"):
        return ("pure",)
    if is_set("GAI_FAST_REQUIRE_EXTENSIONS") or is_set("GAI_FAST_REQUIRE_ALL"):
        return ("native",)
    return ("native", "pure") if IMPLEMENTATION == "native" else ("pure",)


IMPLEMENTATIONS = implementations()


def use_profile() -> None:
    """`GAI_FAST_EXHAUSTIVE=1` looks at fifty times as many examples, `GAI_FAST_REPEATED=1` at a quarter."""
    usual = "repeated" if IS_REPEATED else "quick"
    settings.load_profile("exhaustive" if is_set("GAI_FAST_EXHAUSTIVE") else usual)


def load(implementation: str) -> ModuleType:
    """Returns the kernels' module of an implementation.

    Raises:
        ModuleNotFoundError: It is not built. A test of the native one has the marker `native`, or a fixture of the name
            `native` or `both`, and is left out of a run that does not test it.
    """
    return importlib.import_module(f"gai_fast.kernels._{implementation}")


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    """Returns the kernels, once for each implementation."""
    return load(request.param)


@pytest.fixture(scope="session")
def native() -> ModuleType:
    """Returns the native kernels, for tests of them alone."""
    return load("native")


@pytest.fixture(scope="session")
def both() -> tuple[ModuleType, ModuleType]:
    """(native, pure), for tests that compare them."""
    return load("native"), load("pure")


def cuts(data: bytes, seed: int = 0) -> Iterator[list[bytes]]:
    """The bytes as they may arrive: whole, in equal small pieces, and at random edges with empty reads between."""
    yield [data]
    for size in (1, 2, 3, 5, 7):
        yield [data[at : at + size] for at in range(0, len(data), size)]
    dice = random.Random(seed)
    for _ in range(3):
        edges = sorted(dice.choices(range(len(data) + 1), k=8))
        yield [data[begin:end] for begin, end in zip([0, *edges], [*edges, len(data)], strict=True)]


def some_cuts(data: bytes, number: int) -> Iterator[list[bytes]]:
    """Yields the same with one of the five sizes, for tests that try many cases: each number takes the next size.

    An exhaustive run has all of them.
    """
    for at, chunks in enumerate(cuts(data)):
        is_size = 1 <= at <= 5
        if not is_size or at == 1 + number % 5 or is_set("GAI_FAST_EXHAUSTIVE"):
            yield chunks


def fed(parser: Any, chunks: list[bytes], **close: Any) -> list[Any]:
    """Everything a parser makes of the chunks and the end."""
    return [*(item for chunk in chunks for item in parser.feed(chunk)), *parser.close(**close)]


def outcome(call: Callable[[], Any]) -> Any:
    """Returns the result of a call, or the class and text of its exception, to compare both sides."""
    try:
        return call()
    except (ValueError, TypeError, BufferError) as error:
        return type(error), str(error), getattr(error, "before", None), getattr(error, "needed", None)
