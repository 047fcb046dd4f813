"""Both implementations of the kernels, for tests that state a rule for each of them."""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

IMPLEMENTATIONS = ("native", "pure")

settings.register_profile("quick", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("exhaustive", max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))


def is_set(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def use_profile() -> None:
    """`GAI_FAST_EXHAUSTIVE=1` looks at fifty times as many examples."""
    settings.load_profile("exhaustive" if is_set("GAI_FAST_EXHAUSTIVE") else "quick")


def load(implementation: str) -> ModuleType:
    """The implementation's module; where the native one is not built, a skip, or a failure where it is required."""
    if implementation == "native" and is_set("GAI_FAST_NO_EXTENSIONS"):
        pytest.skip("native: GAI_FAST_NO_EXTENSIONS is set")
    try:
        return importlib.import_module(f"gai_fast._{implementation}")
    except ModuleNotFoundError as missing:
        if implementation == "pure" or not (missing.name or "").startswith("gai_fast._native"):
            raise
        if is_set("GAI_FAST_REQUIRE_EXTENSIONS") or is_set("GAI_FAST_REQUIRE_ALL"):
            pytest.fail("native: the extensions are required and not built")
        pytest.skip("native: the extensions are not built")


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    """The kernels, once for each implementation."""
    return load(request.param)


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


def fed(parser: Any, chunks: list[bytes], **close: Any) -> list[Any]:
    """Everything a parser makes of the chunks and the end."""
    return [*(item for chunk in chunks for item in parser.feed(chunk)), *parser.close(**close)]


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class and text of what it raises: equal on both sides, or a difference."""
    try:
        return call()
    except (ValueError, TypeError, BufferError) as error:
        return type(error), str(error), getattr(error, "before", None), getattr(error, "needed", None)
