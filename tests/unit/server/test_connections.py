"""The open connections: their count, and how all of them end."""

from __future__ import annotations

from typing import Any, cast

from gai_fast.server.connections import OpenConnections


class Transport:
    """Notes how it is ended; its connection is lost at once."""

    def __init__(self, connections: OpenConnections) -> None:
        self.calls: list[str] = []
        self._connections = connections
        connections.add(self, cast(Any, self))

    def close(self) -> None:
        self.calls.append("close")
        self._connections.remove(self)

    def abort(self) -> None:
        self.calls.append("abort")
        self._connections.remove(self)


async def test_they_are_empty_until_one_is_open_and_after_the_last() -> None:
    connections = OpenConnections()
    assert connections.emptied.is_set()
    one, other = Transport(connections), Transport(connections)
    assert (len(connections), connections.transports) == (2, (one, other))
    connections.remove(one)
    connections.remove(one)
    assert (len(connections), connections.emptied.is_set()) == (1, False)
    connections.remove(other)
    assert (len(connections), connections.emptied.is_set()) == (0, True)


async def test_all_end_though_each_is_forgotten_meanwhile() -> None:
    for how in ("close", "abort"):
        connections = OpenConnections()
        transports = [Transport(connections) for _ in range(3)]
        getattr(connections, how)()
        assert [each.calls for each in transports] == [[how]] * 3
        assert connections.emptied.is_set()
