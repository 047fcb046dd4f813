"""`net/upstream/dialing.py`: how long an answer of the DNS is used; how addresses are tried, `test_pool.py` tells."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.net.upstream import dialing
from gai_fast.net.upstream.dialing import Host
from tests.limits import LIMITS


def at(*addresses: str) -> list[tuple[Any, ...]]:
    """Returns an answer of the DNS."""
    return [(socket.AF_INET, 1, 6, "", (address, 443)) for address in addresses]


class Bench:
    """A host whose look-ups are counted, and can be held up."""

    def __init__(self, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = loop
        self.look_ups = 0
        self.gate = asyncio.Event()
        self.gate.set()
        answer = loop.getaddrinfo

        async def counted(*args: Any, **options: Any) -> Any:
            self.look_ups += 1
            await self.gate.wait()
            return await answer(*args, **options)

        monkeypatch.setattr(loop, "getaddrinfo", counted)
        self.host = Host("api.example.com", 443, "upstream", loop, loop.time)

    async def dial(self) -> str:
        """Returns the address that a new socket is connected to."""
        (await self.host.dial()).close()
        return str(self.loop.connects[-1])


@pytest.fixture
def bench(loop: Any, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(loop, monkeypatch)


async def test_an_answer_is_used_again(bench: Bench) -> None:
    for _ in range(3):
        assert await bench.dial() == "192.0.2.1"
    bench.loop.now += LIMITS.dns_fresh / 2 - 1
    await bench.dial()
    assert bench.look_ups == 1


async def test_those_who_come_at_once_share_one_look_up_and_who_leaves_does_not_end_it(bench: Bench) -> None:
    bench.gate.clear()
    dials = [asyncio.ensure_future(bench.dial()) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    dials[0].cancel()
    await asyncio.sleep(0)
    bench.gate.set()
    assert await asyncio.gather(*dials[1:]) == ["192.0.2.1"] * 4
    assert bench.look_ups == 1


async def test_who_comes_as_a_look_up_ends_does_not_detach_the_next_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was neither shared nor ended with its pool."""
    answer, running = bench.loop.getaddrinfo, asyncio.get_running_loop()
    asking: list[Any] = []

    def ask() -> None:
        bench.host.forget()
        asking.append(bench.host._addresses())
        asking[-1].send(None)

    def come() -> None:
        running.call_soon(ask)  # the next look-up, before what this one has scheduled
        bench.gate.clear()
        ask()

    async def answered(*args: Any, **options: Any) -> Any:
        found = await answer(*args, **options)
        if bench.look_ups == 1:
            running.call_soon(come)
        return found

    monkeypatch.setattr(bench.loop, "getaddrinfo", answered)
    await bench.dial()
    for _ in range(3):
        await asyncio.sleep(0)
    ask()
    await asyncio.sleep(0)
    assert bench.look_ups == 2
    for one in asking:
        one.close()
    await bench.host.close()


async def test_an_older_answer_is_looked_up_again_behind_the_back_of_who_uses_it(bench: Bench, settle: Any) -> None:
    await bench.dial()
    bench.loop.now += LIMITS.dns_fresh / 2
    bench.loop.names = at("192.0.2.2")
    bench.gate.clear()
    assert await bench.dial() == "192.0.2.1"
    bench.gate.set()
    await settle()
    assert await bench.dial() == "192.0.2.2"
    assert bench.look_ups == 2


async def test_an_answer_that_is_too_old_is_not_used(bench: Bench) -> None:
    await bench.dial()
    bench.loop.now += LIMITS.dns_fresh
    bench.loop.names = at("192.0.2.2")
    assert await bench.dial() == "192.0.2.2"


async def test_while_the_dns_fails_the_last_answer_is_used_for_some_time(bench: Bench) -> None:
    await bench.dial()
    bench.loop.names = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    bench.loop.now += LIMITS.dns_stale - 1
    assert await bench.dial() == "192.0.2.1"
    bench.loop.now += 1
    with pytest.raises(Error) as caught:
        await bench.dial()
    assert (caught.value.code, caught.value.reason) == ("network", "dns")


async def test_the_last_answer_is_used_while_the_dns_fails_though_its_host_has_refused_before(bench: Bench) -> None:
    """After one failed connection nothing could be reached until the DNS answered again."""
    await bench.dial()
    bench.loop.refuse["192.0.2.1"] = ConnectionRefusedError()
    with pytest.raises(Error):
        await bench.dial()
    del bench.loop.refuse["192.0.2.1"]
    names, bench.loop.names = bench.loop.names, socket.gaierror(socket.EAI_AGAIN, "try again")
    assert await bench.dial() == "192.0.2.1"
    bench.loop.names = names
    assert await bench.dial() == "192.0.2.1"


async def test_a_host_that_refuses_may_have_moved(bench: Bench) -> None:
    await bench.dial()
    bench.loop.refuse["192.0.2.1"] = ConnectionRefusedError()
    bench.loop.names = at("192.0.2.2")
    with pytest.raises(Error):
        await bench.dial()
    assert await bench.dial() == "192.0.2.2"


async def test_a_name_that_means_a_metadata_service_is_looked_up_again(bench: Bench) -> None:
    bench.loop.names = at("192.0.2.1", "169.254.169.254")
    with pytest.raises(Error) as caught:
        await bench.dial()
    assert caught.value.reason == "forbidden_address"
    assert bench.loop.connects == []
    bench.loop.names = at("192.0.2.1")
    assert await bench.dial() == "192.0.2.1"


async def test_all_who_wait_for_a_name_that_means_a_metadata_service_learn_so(bench: Bench) -> None:
    """The second got the error of a host that does not answer, which is worth another attempt."""
    bench.loop.names = at("169.254.169.254")
    first, second = await asyncio.gather(bench.dial(), bench.dial(), return_exceptions=True)
    assert isinstance(first, Error)
    assert isinstance(second, Error)
    assert (first.reason, second.reason) == ("forbidden_address", "forbidden_address")


async def test_of_a_name_with_very_many_addresses_some_are_tried(bench: Bench) -> None:
    many = [f"192.0.2.{n}" for n in range(LIMITS.dns_addresses + 8)]
    bench.loop.names = at(*many)
    bench.loop.refuse = dict.fromkeys(many, ConnectionRefusedError())
    with pytest.raises(Error):
        await bench.dial()
    assert bench.loop.connects == many[: LIMITS.dns_addresses]


async def test_each_failure_is_an_error_of_its_own(bench: Bench) -> None:
    bench.loop.names = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    first, second = await asyncio.gather(bench.dial(), bench.dial(), return_exceptions=True)
    assert isinstance(first, Error)
    assert isinstance(second, Error)
    assert first is not second, "each tells how far its own exchange was"
    assert bench.look_ups == 1


async def test_a_bug_is_no_failure_of_the_dns(bench: Bench) -> None:
    bench.loop.names = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await bench.dial()


async def test_a_look_up_ends_with_its_pool(bench: Bench) -> None:
    bench.gate.clear()
    dial = asyncio.ensure_future(bench.dial())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await bench.host.close()
    with pytest.raises(Error) as caught:
        await dial
    assert caught.value.reason == "closed"


# ---- at once ---------------------------------------------------------------------------------------------------------


def host(name: str, port: int) -> Host:
    loop = asyncio.get_running_loop()
    return Host(name, port, "upstream", loop, loop.time)


async def test_this_machine_is_connected_to_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sock = host("127.0.0.1", listening.getsockname()[1]).connect_at_once()
        assert sock is not None
        with contextlib.closing(sock), listening.accept()[0] as accepted:
            assert accepted.getpeername() == sock.getsockname()
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("name", ["localhost", "192.0.2.1", "127.0.0.1"])
async def test_nothing_else_is_and_no_socket_is_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may have several addresses, another machine takes its time, and `dial` tells who refuses."""
    made: list[socket.socket] = []
    new = dialing._new_socket
    monkeypatch.setattr(dialing, "_new_socket", lambda family: made.append(new(family)) or made[-1])
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert host(name, unused.getsockname()[1]).connect_at_once() is None
    assert [sock.fileno() for sock in made] == ([-1] if name == "127.0.0.1" else [])


async def test_a_process_without_descriptors_connects_to_nothing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(dialing, "StreamSocket", none_left)
    assert host("127.0.0.1", 9).connect_at_once() is None


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_system_asks_whether_a_silent_machine_is_there(family: socket.AddressFamily) -> None:
    idle = socket.TCP_KEEPIDLE if hasattr(socket, "TCP_KEEPIDLE") else socket.TCP_KEEPALIVE
    with contextlib.closing(dialing._new_socket(family)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 10, 3]
