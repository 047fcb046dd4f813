"""The open connections: their count, and how all of them end."""

from __future__ import annotations

from typing import Any, cast

from gai_fast.server.edge.connections import OpenConnections, abort_slowest
from tests.limits import LIMITS


class Transport:
    """Notes how it is ended; its connection is lost at once."""

    def __init__(self, connections: OpenConnections, unsent: int = 0) -> None:
        self.calls: list[str] = []
        self._unsent = unsent
        self._connections = connections
        connections.add(self, cast(Any, self))

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def get_extra_info(self, name: str) -> None:
        return None

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


async def test_the_slowest_end_first_and_no_more_than_is_needed() -> None:
    some = LIMITS.slow_client
    both = [OpenConnections(), OpenConnections()]
    held = (0, 3 * some, some - 1, some, 2 * some)
    for size, ended in ((1, {3}), (3 * some, {3}), (3 * some + 1, {3, 2}), (99 * some, {3, 2, 1})):
        transports = {Transport(both[at % 2], unsent): unsent for at, unsent in enumerate(held)}
        assert abort_slowest(both, size) == len(ended)
        assert {unsent // some for each, unsent in transports.items() if each.calls} == ended
        for each in both:
            each.abort()


async def test_clients_that_read_are_left_alone() -> None:
    connections = OpenConnections()
    transports = [Transport(connections, LIMITS.slow_client - 1) for _ in range(3)]
    assert abort_slowest([connections], 1 << 40) == 0
    assert not any(each.calls for each in transports)
