"""TensorZero's embedded gateway, without its database, in the same handler as gai-fast's `Gateway`. Full run only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from benchmarks.contenders import QUERY, Contender, Place, own_server

FILE = "tensorzero.toml"
CONFIG = """\
[gateway]
observability.enabled = false

[models.bench]
routing = ["bench"]

[models.bench.providers.bench]
type = "openai"
model_name = "bench"
api_base = "{upstream}/v1/"
api_key_location = "none"
"""


def _command(place: Place) -> Sequence[str]:
    (place.folder / FILE).write_text(CONFIG.format(upstream=place.upstream))
    return own_server(__name__)(place)


CONTENDERS = (
    Contender(
        name="TensorZero, embedded",
        does="normalizes",
        note="AsyncTensorZeroGateway.build_embedded() in an aiohttp handler, one write per text; observability off",
        command=_command,
        requirements=("tensorzero", "aiohttp", "orjson", "uvloop"),
        distributions=("tensorzero", "aiohttp", "orjson", "uvloop"),
        start_seconds=60.0,
    ),
)


def main() -> None:
    """Relays."""
    from tensorzero import AsyncTensorZeroGateway

    from benchmarks.contenders._embedded import serve

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncTensorZeroGateway]:
        async with await AsyncTensorZeroGateway.build_embedded(config_file=FILE) as gateway:
            yield gateway

    async def ask(gateway: AsyncTensorZeroGateway) -> AsyncIterator[str]:
        messages = {"messages": [{"role": "user", "content": QUERY}]}
        async for chunk in await gateway.inference(model_name="bench", input=messages, stream=True):
            for block in chunk.content:
                if block.text:
                    yield block.text

    serve(opened(), ask)


if __name__ == "__main__":
    main()
