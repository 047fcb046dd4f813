"""gai-fast's `Gateway` in process, in the same handler as TensorZero's embedded gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from benchmarks.contenders import QUERY, Contender, Place, own_server
from benchmarks.contenders.gai_fast import configured

FILE = "gai-fast.toml"


def _command(place: Place) -> Sequence[str]:
    configured(place, FILE)
    return own_server(__name__)(place)


CONTENDERS = (
    Contender(
        name="gai-fast, Gateway in process",
        does="normalizes",
        note="Gateway.ask() in an aiohttp handler, one write per text",
        command=_command,
        version=lambda place: (str(place.python), "-m", "gai_fast", "version"),
        environment={"GAI_FAST_REQUIRE_EXTENSIONS": "1"},
    ),
)


def main() -> None:
    """Relays."""
    from benchmarks.contenders._embedded import serve
    from gai_fast import Gateway

    async def ask(gateway: Gateway) -> AsyncIterator[str]:
        async for text in gateway.ask(QUERY, model="bench"):
            yield text

    serve(Gateway.from_config(FILE), ask)


if __name__ == "__main__":
    main()
