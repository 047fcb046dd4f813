"""`gai-fast grpc` as a process: what it refuses to start with, TLS, memory, and its end."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from gai_fast.kernels import encode_json
from gai_fast.model.settings import KeySettings, key_digest
from tests.integration.certificates import Authority
from tests.integration.gateway import QUERY, Net
from tests.integration.rpc import refused
from tests.integration.test_cli import PATIENCE, environment
from tests.integration.test_grpc import all_that_is_taken, endless
from tests.ports import free_port
from tests.waiting import SECONDS

PROGRAM = """
from gai_fast.grpc.limits import LIMITS
from gai_fast.cli import main

object.__setattr__(LIMITS, "grpc_grace", {grace})
main(prog_name="gai-fast")
"""
GENERATE = "/gai.v1.Gateway/Generate"
MODELS = "/gai.v1.Gateway/ListModels"
ASKED = b"\x0a" + bytes((len(encode_json(QUERY)),)) + encode_json(QUERY)
"""A `GenerateRequest`."""


MOST = 4 * 2**20
"""Bytes that a client that never reads may cost: one read of the gateway's connection, parsed, and grpcio's buffers."""


@asynccontextmanager
async def running(*flags: str, grace: float = PATIENCE, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yields the command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM.format(grace=grace), "grpc", *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**environment(), **variables},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def address(process: asyncio.subprocess.Process) -> str:
    """The address at which it listens."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        line = (await process.stdout.readline()).decode()
    found = re.fullmatch(r"gRPC on (\S+), in front of http://\S+\n", line)
    assert found is not None, line
    return found[1]


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Its exit code, and what it said."""
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "--url"),
        (("--url", "ftp://x"), 2, "--url"),
        (("--url", "http://127.0.0.1:1", "--port", "70000"), 2, "--port"),
        (("--url", "http://127.0.0.1:1", "--tls-cert", "cert.pem"), 2, "belong together"),
        (("--url", "http://127.0.0.1:1", "--host", "0.0.0.0", "--key", "sk-gai-secret"), 2, "from this machine alone"),
        (("--url", "http://127.0.0.1:1", "--key", "sk gai\u00e4secret"), 2, "visible ASCII"),
        (("--url", "http://127.0.0.1:1", "--port", "0", "--tls-cert", "none.pem", "--tls-key", "none"), 3, "none.pem"),
        (("--url", "http://127.0.0.1:1", "--port", "0", "--host", "0.0.0.0"), 3, "cannot tell whether"),
        (("--url", "http://127.0.0.1:1", "--host", "x.localhost.invalid"), 3, "cannot tell whether"),
    ],
)
async def test_what_it_does_not_start_with(flags: tuple[str, ...], code: int, words: str) -> None:
    async with running(*flags) as process:
        result, said = await ended(process)
    assert result == code, said
    assert words in said
    assert "secret" not in said
    assert "Traceback" not in said


async def test_a_port_that_is_taken_and_an_open_gateway(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with running("--url", gateway.url, "--port", port) as process:
            code, said = await ended(process)
        assert (code, "in use by another program" in said) == (3, True), said
    for host in ("0.0.0.0", "::", "192.0.2.1", "host.invalid"):
        async with running("--url", gateway.url, "--port", "0", "--host", host) as process:
            code, said = await ended(process)
        assert (code, "[[key]]" in said) == (2, True), said


async def test_a_gateway_that_does_not_answer_is_named_at_the_start_and_served_later(net: Net) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with running("--url", url, "--port", "0") as process:
        await address(process)
        process.send_signal(signal.SIGTERM)
        code, said = await ended(process)
    assert code == 0
    (warning,) = said.splitlines()
    assert f"{url} does not answer as a gateway yet; calls fail until it does: " in warning


async def test_the_extra_is_named_where_it_is_missing() -> None:
    program = "import sys; sys.modules['grpc'] = None; from gai_fast.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "grpc", "--url", "http://127.0.0.1:1",
        stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    code, said = await ended(process)
    assert (code, "pip install '.[grpc]'" in said) == (3, True), said


async def test_two_servers_do_not_share_a_port(net: Net) -> None:
    gateway = await net.gateway(await net.mock())
    async with running("--url", gateway.url, "--port", "0") as first:
        port = (await address(first)).rpartition(":")[2]
        async with running("--url", gateway.url, "--port", port) as second:
            assert (await ended(second))[0] == 3


async def test_a_gateway_with_keys_is_served_to_other_machines(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(KeySettings("alice", (key_digest("sk-gai-right"),)),))
    async with running("--url", gateway.url, "--port", "0", "--host", "0.0.0.0") as process:
        port = (await address(process)).rpartition(":")[2]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(MODELS)
            assert (await refused(call(b"")))[1].code is grpc.StatusCode.UNAUTHENTICATED
            assert b"claude" in await call(b"", metadata=(("authorization", "Bearer sk-gai-right"),))


async def test_the_variables_of_the_flags(net: Net) -> None:
    gateway = await net.gateway(await net.mock(), keys=(KeySettings("alice", (key_digest("sk-gai-right"),)),))
    port = str(free_port())
    variables = {"GAI_FAST_GRPC_URL": gateway.url, "GAI_FAST_GRPC_PORT": port, "GAI_FAST_GRPC_KEY": "sk-gai-right"}
    async with running(**variables) as process:
        assert await address(process) == f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert b"claude" in await channel.unary_unary(MODELS)(b"")


async def test_tls(net: Net, authority: Authority) -> None:
    gateway = await net.gateway(await net.mock())
    files = authority.pair("good")
    flags = ("--tls-cert", files["tls_cert"], "--tls-key", files["tls_key"])
    async with running("--url", gateway.url, "--port", "0", *flags) as process:
        port = (await address(process)).rpartition(":")[2]
        credentials = grpc.ssl_channel_credentials((authority.folder / "ca.pem").read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            assert b"claude" in await channel.unary_unary(MODELS)(b"", timeout=SECONDS)
        async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
            _, refusal = await refused(channel.unary_unary(MODELS)(b"", timeout=SECONDS))
            assert refusal.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_calls_end(net: Net, number: signal.Signals) -> None:
    upstream = await net.mock(deltas=100, rate=50)
    gateway = await net.gateway(upstream)
    async with running("--url", gateway.url, "--port", "0") as process:
        async with grpc.aio.insecure_channel(await address(process)) as channel:
            call = channel.unary_stream(GENERATE)(ASKED)
            events = aiter(call)
            await anext(events)
            process.send_signal(number)
            await asyncio.sleep(0.1)
            upstream.rate = 0
            *_, last = [event async for event in events]
            assert b'"finished":true' in last
            assert await call.code() is grpc.StatusCode.OK
        assert await ended(process) == (0, "")


async def test_a_call_that_does_not_end_is_reported(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=6000, rate=50))
    async with running("--url", gateway.url, "--port", "0", grace=0.3) as process:
        async with grpc.aio.insecure_channel(await address(process)) as channel:
            call = channel.unary_stream(GENERATE)(ASKED)
            process_ends: Any = None
            seen: list[bytes] = []
            with pytest.raises(grpc.aio.AioRpcError) as problem:
                async for event in call:
                    seen.append(event)
                    if process_ends is None:
                        process_ends = process.send_signal(signal.SIGTERM) or True
            assert problem.value.code() is grpc.StatusCode.UNAVAILABLE
            assert b'"draining"' in seen[-2]
            assert b'"finished":false' in seen[-1]
        assert await ended(process) == (0, "")


async def test_a_second_signal_ends_it_at_once(net: Net) -> None:
    gateway = await net.gateway(await net.mock(deltas=6000, rate=50))
    async with (
        running("--url", gateway.url, "--port", "0") as process,
        grpc.aio.insecure_channel(await address(process)) as channel,
    ):
        call = channel.unary_stream(GENERATE)(ASKED)
        await anext(aiter(call))
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_clients_that_never_read_cost_little_memory(net: Net) -> None:
    upstream = await net.upstream(endless)
    gateway = await net.gateway(upstream)
    count = 20

    def resident() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    async with (
        running("--url", gateway.url, "--port", "0") as process,
        grpc.aio.insecure_channel(await address(process)) as channel,
    ):
        first = channel.unary_stream(GENERATE)(ASKED)
        await anext(aiter(first))
        first.cancel()
        before = resident()
        calls = [channel.unary_stream(GENERATE)(ASKED) for _ in range(count)]
        for call in calls:
            await anext(aiter(call))
        sent = await all_that_is_taken(upstream)
        assert resident() - before < count * MOST
        assert sum(peer.sent for peer in upstream.peers) == sent, "nothing more is taken"
        for call in calls:
            call.cancel()
        await upstream.until_finished(count + 1)
