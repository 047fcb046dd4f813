"""`gai_fast/core/adapter.py`: what the relay may call of any adapter, and of any API that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from gai_fast.core.adapter import Adapter, ResponseAPI
from gai_fast.model.errors import Error
from gai_fast.model.upstream_errors import UpstreamFailure
from gai_fast.providers import get_provider, provider_names


class Odd(ResponseAPI):
    """An API whose every body is a failure."""

    provider = "odd"

    def read_failure(self, body: Any) -> UpstreamFailure | None:
        return UpstreamFailure(str(body))

    def decode_error(self, status: int, headers: Any, body: bytes, now_ms: int | None = None) -> Error:
        return Error("internal", body.decode())


class Silent(Adapter):
    """Leaves everything undone that the interface lets it leave."""

    def receive(self, name: str, data: str) -> list[Any]:
        return super().receive(name, data)

    def receive_whole(self, answer: Any, text: str = "") -> list[Any]:
        return super().receive_whole(answer, text)

    def finish(self) -> list[Any]:
        return super().finish()

    def abort(self) -> list[Any]:
        return super().abort()

    def start(self, identifier: str | None, model: str | None) -> list[Any]:
        return super().start(identifier, model)

    def end(self, finish_reason: str, raw: str | None) -> Any:
        return super().end(finish_reason, raw)

    def word(self) -> str:
        return super().word()

    def failure(self, chunk: Any, name: str = "") -> UpstreamFailure | None:
        return super().failure(chunk, name)

    def error(self, failure: UpstreamFailure) -> Error:
        return super().error(failure)

    def truncated(self) -> Error:
        return super().truncated()


CALLS: list[Callable[[Adapter], object]] = [
    lambda adapter: adapter.receive("", "{}"),
    lambda adapter: adapter.receive_whole({}),
    lambda adapter: adapter.finish(),
    lambda adapter: adapter.abort(),
    lambda adapter: adapter.start(None, None),
    lambda adapter: adapter.end("stop", None),
    lambda adapter: adapter.word(),
    lambda adapter: adapter.failure({}),
    lambda adapter: adapter.error(UpstreamFailure("x")),
    lambda adapter: adapter.truncated(),
]


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_a_method_that_an_adapter_leaves_undone_is_an_exception(call: Callable[[Adapter], object]) -> None:
    with pytest.raises(NotImplementedError):
        call(Silent(Odd()))


def test_an_api_that_reads_no_failure_is_an_exception() -> None:
    class Undone(Odd):
        def read_failure(self, body: Any) -> UpstreamFailure | None:
            return ResponseAPI.read_failure(self, body)

        def decode_error(self, status: int, headers: Any, body: bytes, now_ms: int | None = None) -> Error:
            return ResponseAPI.decode_error(self, status, headers, body, now_ms)

    with pytest.raises(NotImplementedError):
        Undone().read_failure({})
    with pytest.raises(NotImplementedError):
        Undone().decode_error(500, {}, b"")


def test_an_adapter_begins_with_nothing_known_of_its_answer() -> None:
    adapter = Silent(Odd())
    assert (adapter.started, adapter.ended, adapter.identifier) == (False, False, "")
    assert (adapter.usage, adapter.own_cost) == (None, None)


def test_unless_an_adapter_names_members_none_of_its_chunks_is_copied() -> None:
    adapter = Silent(Odd())
    assert not adapter.text_members | adapter.ignored_members | adapter.label_members | adapter.kept_members
    assert (adapter.copyable, adapter.is_plain, adapter.collects_text) == (True, False, False)
    adapter.copied({"type": "text.delta", "text": ""}, 3, "")
    adapter.kept("usage", "{}")
    assert adapter.expected() is None


@pytest.mark.parametrize("provider", provider_names())
def test_every_provider_implements_both_interfaces(provider: str) -> None:
    api = cast(Any, get_provider(provider))
    # By their bases: the abstract classes that mypyc compiles share one cache of `isinstance`, `ABC`'s own, so that an
    # earlier answer about another class would count here.
    assert ResponseAPI in type(api).__mro__
    assert Adapter in type(api.adapter()).__mro__
