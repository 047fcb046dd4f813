"""Relays whose sink is a format's encoder, for the tests of passthrough and of copied deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gai_fast.core.relay import Relay
from gai_fast.model.errors import Error
from gai_fast.providers import get_provider


def cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def relay_to(
    sink: Any,
    provider: str,
    *,
    copies: bool = True,
    passes: bool = True,
    failed: Callable[[Error], bool] | None = None,
    prompt_characters: int | None = None,
) -> Relay:
    """Returns a relay that has received the head of a stream.

    Args:
        sink: The encoder.
        provider: The upstream's.
        copies: Whether the sink also receives deltas that are written already.
        passes: Whether the sink also receives the upstream's frames.
        failed: Asked about each failure of the upstream.
        prompt_characters: As for `Relay`.
    """
    adapter = get_provider(provider).adapter("m")
    deltas, frames = sink if copies else None, sink if passes else None
    relay = Relay(adapter, sink, deltas=deltas, frames=frames, failed=failed, prompt_characters=prompt_characters)
    relay.receive_head(200, {"content-type": "text/event-stream"})
    return relay


def received(relay: Relay, sink: Any, pieces: Iterable[bytes], *, cancel: bool = False) -> bytes:
    """Returns the bytes for a client, taken after each piece of the upstream's body and after its end.

    Args:
        relay: From `relay_to`.
        sink: Its sink.
        pieces: The upstream's body.
        cancel: Whether the stream is cancelled before the end of the body.
    """
    body = b""
    for piece in pieces:
        relay.receive_data(piece)
        body += sink.take()
    if cancel:
        relay.stop("cancelled")
    relay.receive_eof()
    assert relay.fault is None
    return body + bytes(sink.take())
