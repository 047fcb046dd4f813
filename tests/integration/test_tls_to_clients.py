"""TLS to clients: everything that is served plainly, and clients that break the rules of TLS."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.mock.command import Mock
from gai_fast.model.limits import KIB
from tests.integration.certificates import Authority
from tests.integration.gateway import (
    MESSAGES,
    NATIVE,
    QUERY,
    RESUMABLE,
    Client,
    M,
    Net,
    Reader,
    on_both_loops,
    request_bytes,
)
from tests.integration.processes import configure, hold, release, run_forked, serving, settled
from tests.integration.test_backpressure import IN_FLIGHT, PIECE, PIECES, WORD, blast, stuck
from tests.integration.test_cli import PATIENCE, environment
from tests.integration.websocket import connect
from tests.limits import LIMITS
from tests.terminal import Terminal
from tests.waiting import SECONDS, until, until_answered

ASKED = b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")


async def raw(host: str) -> Client:
    """Returns a connection without TLS to a port that speaks it."""
    address, _, port = host.partition(":")
    reader = Reader(limit=1 << 20)
    transport, protocol = await asyncio.get_running_loop().create_connection(
        lambda: asyncio.StreamReaderProtocol(reader), address, int(port)
    )
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    return Client(host, reader, writer)


@on_both_loops
async def test_streams_whole_answers_pages_and_sockets_come_over_tls(net: Net, authority: Authority) -> None:
    net.authority = authority
    gateway = await net.gateway(await net.mock(deltas=20, rate=0))
    assert gateway.url.startswith("https://127.0.0.1:")
    client = await gateway.connect()
    for _ in range(2):
        response = await client.ask("POST", NATIVE, M)
        assert (response.ended, response.types[-2:]) == (True, ["finish", "done"])
    assert (await client.ask("POST", NATIVE, {**M, "stream": False})).json["finish_reason"] == "stop"
    # From here on aiohttp has the connection.
    assert (await client.ask("GET", "/")).status == 200
    whole = await client.ask("POST", "/v1/chat/completions", {"model": "m", "messages": MESSAGES})
    assert whole.json["choices"][0]["finish_reason"] == "stop"
    durable = await client.ask("POST", NATIVE, RESUMABLE)
    assert durable.types[-1] == "done"
    followed = await client.ask("GET", f"{NATIVE}s/{durable.headers['x-gai-stream-id']}")
    assert followed.body == durable.body
    client.close()
    opened = await connect(gateway)
    opened.ask("a", **M)
    await opened.until_done("a")
    opened.client.close()


@on_both_loops
async def test_a_client_that_stops_reading_stops_the_upstream_and_loses_nothing(net: Net, authority: Authority) -> None:
    net.authority = authority
    upstream = await net.upstream(blast)
    gateway = await net.gateway(upstream)
    client = await gateway.connect(4 * KIB)
    client.pause()
    client.send(request_bytes(gateway.host, "POST", NATIVE, M))
    assert await stuck(upstream) < IN_FLIGHT < PIECES * len(PIECE)
    assert gateway.unsent < 512 * KIB + 8 * KIB
    client.resume()
    response = await client.response()
    async with asyncio.timeout(SECONDS):
        await response.rest()
    assert response.ended
    got = hashlib.sha256(response.text.encode()).hexdigest()
    assert got == hashlib.sha256(WORD.encode() * PIECES).hexdigest()


@on_both_loops
async def test_a_client_that_leaves_ends_its_stream(net: Net, authority: Authority) -> None:
    net.authority = authority
    gateway = await net.gateway(await net.mock(rate=50, deltas=1000))
    for leave in (Client.close, Client.reset):
        client, response = await gateway.stream(M)
        await response.until(b"text.delta")
        leave(client)
        await until(lambda: gateway.streams == 0)


@on_both_loops
async def test_a_client_above_the_limit_reads_why_it_is_refused(net: Net, authority: Authority) -> None:
    net.authority = authority
    gateway = await net.gateway(await net.mock(), connections=1)
    first = await gateway.connect()
    await first.is_open()
    assert (await gateway.ask("GET", "/healthz")).status == 503
    first.close()


@on_both_loops
async def test_plain_http_gets_an_answer_that_says_so(net: Net, authority: Authority) -> None:
    net.authority = authority
    gateway = await net.gateway(await net.mock())
    for method in ("GET", "POST"):
        client = await raw(gateway.host)
        response = await client.ask(method, NATIVE, M if method == "POST" else None)
        assert (response.status, response.error["reason"]) == (400, "tls")
        client.close()
    assert (await gateway.ask("GET", "/healthz")).status == 200


@on_both_loops
@pytest.mark.parametrize("fast_lane", ["auto", "off"])
@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "byte", "part"])
async def test_a_handshake_that_stalls_ends_with_the_time_for_a_head(
    net: Net, authority: Authority, sent: bytes, fast_lane: str
) -> None:
    net.authority = authority
    gateway = await net.gateway(await net.mock(), header_timeout=0.3, fast_lane=fast_lane)
    client = await raw(gateway.host)
    client.send(sent)
    assert await client.is_closed()
    await until(lambda: not gateway.is_connected)
    client.close()


@on_both_loops
async def test_a_client_that_says_no_end_is_answered_first(net: Net, authority: Authority) -> None:
    """As curl before 8 and many others do, which close TCP alone."""
    net.authority = authority
    gateway = await net.gateway(await net.mock(deltas=3, rate=0))

    def ask() -> bytes:
        address, _, port = gateway.host.partition(":")
        context = authority.client()
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        with (
            socket.create_connection((address, int(port)), SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(request_bytes(gateway.host, "POST", NATIVE, {"model": "nobody", **QUERY}))
            socket.socket.shutdown(client, socket.SHUT_WR)
            found = b""
            while data := client.recv(65536):
                found += data
            return found

    assert b'"not_found"' in await asyncio.to_thread(ask)


def s_client(host: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Runs `openssl s_client`; its errors stand in its output."""
    command = ["openssl", "s_client", "-connect", host, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


async def said_to(host: str, sent: bytes, *arguments: str) -> bytes:
    """Returns the output of `openssl s_client`."""
    with s_client(host, *arguments) as process:
        try:
            said, _ = await asyncio.to_thread(process.communicate, sent, SECONDS)
        finally:
            process.kill()
    return said


@on_both_loops
async def test_openssls_client_agrees_on_modern_tls_alone(net: Net, authority: Authority) -> None:
    net.authority = authority
    gateway = await net.gateway(await net.mock())
    for version in ("-tls1_2", "-tls1_3"):
        said = await said_to(gateway.host, ASKED, version, "-alpn", "h2,http/1.1", "-ign_eof")
        assert b"ALPN protocol: http/1.1" in said
        assert b'"status":"ok"' in said
        assert b"Secure Renegotiation IS NOT" not in said or version == "-tls1_3"
    said = await said_to(gateway.host, ASKED, "-noservername", "-ign_eof")
    assert b'"status":"ok"' in said, "a client need not name the server"
    for refused in (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), ("-tls1_2", "-cipher", "AES128-SHA")):
        assert b"Cipher is (NONE)" in await said_to(gateway.host, ASKED, *refused)
    assert (await gateway.ask("GET", "/healthz")).status == 200


@on_both_loops
async def test_nothing_is_renegotiated(net: Net, authority: Authority) -> None:
    net.authority = authority
    gateway = await net.gateway(await net.mock())
    said = await said_to(gateway.host, b"R\n", "-tls1_2")
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said
    await until(lambda: not gateway.is_connected)


@on_both_loops
async def test_key_updates_are_answered_until_there_are_too_many(net: Net, authority: Authority) -> None:
    net.authority = authority
    gateway = await net.gateway(await net.mock())

    def ask(process: subprocess.Popen[bytes]) -> int:
        """Asks for key updates; returns how many were possible."""
        assert process.stdin is not None
        assert process.stdout is not None
        for count in range(LIMITS.tls_answers):
            try:
                os.write(process.stdin.fileno(), ASKED.replace(b"1.0", b"1.1") if count == 1 else b"K\n")
            except BrokenPipeError:
                return count
            for line in process.stdout:
                if (b"HTTP/1.1 200" if count == 1 else b"KEYUPDATE") in line:
                    break
        return LIMITS.tls_answers

    with s_client(gateway.host, "-tls1_3") as process:
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            count = await asyncio.to_thread(ask, process)
        finally:
            timer.cancel()
            process.kill()
    assert LIMITS.tls_answers // 50 < count < LIMITS.tls_answers
    await until(lambda: not gateway.is_connected)


# ---- processes -------------------------------------------------------------------------------------------------------


def put(authority: Authority, folder: Path, cert: str, key: str | None = None) -> None:
    """Makes a certificate the one of the configuration."""
    shutil.copy(authority.folder / f"{cert}.pem", folder / "cert.pem")
    shutil.copy(authority.folder / f"{key or cert}.key", folder / "key.pem")


def configure_tls(folder: Path, mock: Mock) -> None:
    configure(folder, mock)
    file = folder / "gai-fast.toml"
    pair = 'tls_cert = "cert.pem"\ntls_key = "key.pem"\n'
    file.write_text(file.read_text().replace("[server]\n", f"[server]\n{pair}", 1))


def seen(authority: Authority, host: str) -> str:
    """Returns the name in the certificate that a new client sees."""
    address, _, port = host.partition(":")
    context = authority.client()
    context.check_hostname = False
    with (
        socket.create_connection((address, int(port)), SECONDS) as plain,
        context.wrap_socket(plain) as client,
    ):
        found: Any = client.getpeercert()
        return str(found["subject"][0][0][1])


@LINUX
@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_brings_a_new_certificate_and_drops_no_stream(
    net: Net, authority: Authority, tmp_path: Path, workers: int
) -> None:
    net.authority = authority
    async with Mock(deltas=5, rate=0) as mock:
        hold(mock)
        put(authority, tmp_path, "good")
        configure_tls(tmp_path, mock)
        async with serving(net, tmp_path, "--workers", str(workers)) as server:
            assert seen(authority, server.host) == "good"
            running = [await server.stream({**QUERY, "model": "m"}) for _ in range(2)]
            for _, response in running:
                await response.until(b"text.delta")

            # A pair that does not belong together changes nothing.
            put(authority, tmp_path, "elsewhere", "good")
            server.signal(signal.SIGHUP)
            line = await server.said("the configuration is not reloaded")
            assert "does not belong to the certificate" in line
            assert [seen(authority, server.host) for _ in range(3)] == ["good"] * 3

            put(authority, tmp_path, "elsewhere")
            server.signal(signal.SIGHUP)
            await server.said("the configuration has been reloaded")

            async def is_new() -> bool:
                return [seen(authority, server.host) for _ in range(2 * workers)] == ["elsewhere"] * 2 * workers

            await until_answered(is_new)
            if workers > 1:  # a worker that takes the place of another has it, too
                before = server.workers
                release(mock)
                for _, response in running:
                    await response.rest()
                os.kill(min(before), signal.SIGKILL)
                await server.said("another takes its place")
                await settled(server, workers)
                assert await is_new()
            else:
                release(mock)
                for _, response in running:
                    await response.rest()
            for client, response in running:
                assert (response.ended, response.types[-1]) == (True, "done")
                client.close()


async def test_the_banners_lines_work_as_pasted(authority: Authority, tmp_path: Path) -> None:
    async with Terminal() as terminal:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gai_fast", "serve", "--port", "0",
            "--tls-cert", str(authority.folder / "good.pem"), "--tls-key", str(authority.folder / "good.key"),
            stdout=terminal.descriptor, cwd=tmp_path, env=environment(),
        )  # fmt: skip
        banner = (await asyncio.wait_for(terminal.reader.readuntil(b"flush=True)\n"), PATIENCE)).decode()
    try:
        (line,) = [line for line in banner.splitlines() if line.startswith("curl ")]
        assert "playground: https://127.0.0.1:" in banner
        assert 'base_url="https://127.0.0.1:' in banner
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", line],
            env=environment(CURL_CA_BUNDLE=str(authority.folder / "ca.pem")),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.stdout.endswith(b'data: {"type":"done","finished":true}\n\n'), done.stderr
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_files_that_cannot_be_used_are_one_clear_line(authority: Authority, tmp_path: Path, workers: str) -> None:
    good = str(authority.folder / "good.pem")

    async def refusal(cert: str, key: str) -> str:
        files = ("--tls-cert", cert, "--tls-key", key)
        code, output, errors = await run_forked("serve", "--port", "0", "--workers", workers, *files, cwd=tmp_path)
        assert (code, output, errors.count("\n")) == (3, "", 1), errors
        return errors

    missing = await refusal(good, "missing.pem")
    assert missing.startswith(f"error: --tls-key: the key {tmp_path}/missing.pem (`tls_key`) cannot")
    assert "does not belong to the certificate" in await refusal(good, str(authority.folder / "elsewhere.key"))
