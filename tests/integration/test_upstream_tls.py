"""TLS to an upstream: whom it trusts, handshakes and records that break, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.integration.certificates import Authority
from tests.integration.test_upstream_sockets import CHUNKED, OK, Net, Peer, answer_all, on_both_loops, open_
from tests.limits import LIMITS
from tests.waiting import SECONDS, until

PROXY_BUFFER = 64 * 1024


@pytest.fixture(scope="module")
def authority(authority: Authority) -> Authority:
    """Returns the certificates, and one of a weak key."""
    command = "openssl req -x509 -newkey rsa:1024 -nodes -subj /CN=localhost -keyout weak.key -out weak.pem -addext"
    subprocess.run(
        [*command.split(), "subjectAltName=IP:127.0.0.1"],
        cwd=authority.folder,
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    return authority


def files(authority: Authority, *names: str) -> dict[str, str]:
    """Returns the settings of a peer that name these files."""
    return dict(
        zip(("ca_file", "client_cert", "client_key"), (str(authority.folder / name) for name in names), strict=False)
    )


# ---- whom the gateway trusts, and who trusts the gateway -------------------------------------------------------------


@on_both_loops
async def test_the_authorities_of_a_file_replace_the_systems(net: Net) -> None:
    async with net.serve(answer_all, "good") as served:
        pool = net.pool(served, "https", **files(net.authority, "ca.pem"))
        assert await open_(pool)[1].success() == b"ok"
        pool = net.pool(served, "https", **files(net.authority, "own.pem"))
        assert await open_(pool)[1].failure() == ("network", "tls", "connect")


@on_both_loops
async def test_mutual_tls_shows_the_certificate_and_without_it_nothing_is_answered(net: Net) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        asking = net.authority.server("good")
        asking.maximum_version = version
        asking.verify_mode = ssl.CERT_REQUIRED
        asking.load_verify_locations(net.authority.folder / "ca.pem")
        async with net.serve(answer_all, asking) as served:
            shown = files(net.authority, "ca.pem", "elsewhere.pem", "elsewhere.key")
            pool = net.pool(served, "https", **shown)
            for _ in range(3):
                assert await open_(pool)[1].success() == b"ok"
            for pair in (("ca.pem",), ("ca.pem", "own.pem", "own.key")):
                _, receiver = open_(net.pool(served, "https", **files(net.authority, *pair)))
                code, reason, _ = await receiver.failure()
                # In TLS 1.3 the server looks at the certificate after the handshake.
                assert code == "network"
                assert reason in ("tls", "reset", "truncated")
            assert len(served.requests) == 3


@on_both_loops
async def test_a_resumed_session_is_no_way_past_another_name(net: Net) -> None:
    """A session belongs to one upstream: another host name is checked anew."""
    async with net.serve(answer_all, "good") as served:
        for host in ("localhost", "127.0.0.1"):
            assert await open_(net.pool(served, "https", host))[1].success() == b"ok"
    async with net.serve(answer_all, "elsewhere") as served:
        pool = net.pool(served, "https")
        for _ in range(2):
            assert await open_(pool)[1].failure() == ("network", "tls", "connect")


@on_both_loops
async def test_connections_of_a_burst_resume_one_session(net: Net) -> None:
    async with net.serve(answer_all, "good") as served:
        pool = net.pool(served, "https", max_connections=60)
        assert await open_(pool)[1].success() == b"ok"
        for _, receiver in [open_(pool) for _ in range(50)]:
            assert await receiver.success() == b"ok"
        resumed = [peer.writer.get_extra_info("ssl_object").session_reused for peer in served.peers]
        assert resumed == [False] + [True] * (len(resumed) - 1)
        assert len(resumed) > 10


# ---- records and ends ------------------------------------------------------------------------------------------------


@on_both_loops
async def test_records_cut_anywhere_by_the_network_give_the_same_answer(net: Net) -> None:
    text = b""

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text))

    async with net.serve(handler, "good") as served:
        for size in (1, 7, 1000):
            text = bytes(range(256)) * 8 * size
            async with Cutter(served.port, size) as port:
                pool = net.pool(f"https://127.0.0.1:{port}/v1", "https")
                assert await open_(pool)[1].success() == text
                await pool.close()


class Cutter:
    """A network that delivers what the upstream sends in pieces of a size, from the handshake on."""

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._size = size

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *_: Any) -> None:
        self._server.close()
        await self._server.wait_closed()
        await until(lambda: not self._running)

    _running = 0

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._running += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(self._pump(reader, up_writer, PROXY_BUFFER))
        await self._pump(up_reader, writer, self._size)
        await back
        self._running -= 1

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
        try:
            while data := await reader.read(PROXY_BUFFER):
                for begin in range(0, len(data), size):
                    writer.write(data[begin : begin + size])
                    await writer.drain()
                    await asyncio.sleep(0)
        except OSError:
            pass
        writer.close()


@on_both_loops
async def test_a_bad_record_ends_the_stream_after_what_had_come(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"5\r\nhello\r\n")
        await asyncio.sleep(0.05)
        sock = peer.writer.get_extra_info("socket")
        descriptor = socket.fromfd(sock.fileno(), sock.family, sock.type)
        descriptor.send(b"\x17\x03\x03\x00\x20" + b"\0" * 32)
        descriptor.close()
        await peer.until_gone()

    async with net.serve(handler, "good") as served:
        _, receiver = open_(net.pool(served, "https"))
        assert await receiver.failure() == ("network", "tls", None)
        assert receiver.body == b"hello"


@on_both_loops
async def test_a_thousand_records_of_a_byte_are_one_answer(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for n in range(1000):
            peer.writer.write(b"%d" % (n % 10))
        await peer.until_gone()

    async with net.serve(handler, "good") as served:
        assert await open_(net.pool(served, "https"))[1].success() == b"0123456789" * 100


@on_both_loops
async def test_an_upstream_that_stops_reading_gets_a_large_request_once_it_reads(net: Net) -> None:
    body = b"x" * (2 * LIMITS.event)
    may_read = asyncio.Event()

    async def handler(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await may_read.wait()
        peer.writer.transport.resume_reading()
        assert (await peer.request()).endswith(body)
        await peer.send(OK)
        await peer.until_gone()

    async with net.serve(handler, "good") as served:
        pool = net.pool(served, "https")
        _, receiver = open_(pool, body)
        await until(lambda: served.peers)
        await asyncio.sleep(0.1)
        assert receiver.ends == []
        may_read.set()
        assert await receiver.success() == b"ok"


# ---- handshakes ------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_handshakes_that_stall_hold_up_nobody(net: Net) -> None:
    """Forty that stall end in time, and another upstream is served meanwhile; asyncio queues a hundred connections."""

    async with net.serve(Peer.until_gone) as stalling, net.serve(answer_all, "good") as served:
        stuck = net.pool(stalling, "https", connect_timeout=0.3, max_connections=40)
        receivers = [open_(stuck)[1] for _ in range(40)]
        assert await open_(net.pool(served, "https"))[1].success() == b"ok"
        for receiver in receivers:
            assert await receiver.failure() == ("timeout", "connect", "connect")
        await stalling.until_finished(stalling.connections)


@on_both_loops
async def test_an_upstream_that_closes_in_the_handshake_is_reported(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        await peer.reader.read(1)

    async with net.serve(handler) as served:
        _, receiver = open_(net.pool(served, "https"))
        assert await receiver.failure() == ("network", "tls", "connect")


@on_both_loops
async def test_a_weak_key_is_refused(net: Net) -> None:
    folder = net.authority.folder
    weak = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    weak.set_ciphers("ALL:@SECLEVEL=0")
    weak.load_cert_chain(folder / "weak.pem", folder / "weak.key")
    async with net.serve(answer_all, weak) as served:
        _, receiver = open_(net.pool(served, "https", **files(net.authority, "weak.pem")))
        assert await receiver.failure() == ("network", "tls", "connect")
        assert served.requests == []


def _renegotiating(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    command = f"openssl s_server -accept 127.0.0.1:{port} -cert good.pem -key good.key -tls1_2 -msg"
    return subprocess.Popen(
        command.split(), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ), port


@on_both_loops
async def test_renegotiation_is_refused(net: Net) -> None:
    """`openssl s_server` asks for it when it reads an `r`; the connection goes on, or ends, without a new handshake."""
    folder = net.authority.folder
    server, port = _renegotiating(folder)
    heard: list[bytes] = []
    assert server.stdout is not None
    assert server.stdin is not None
    listener = threading.Thread(target=lambda: heard.extend(iter(server.stdout.readline, b"")))
    listener.start()
    try:
        await until(lambda: any(b"ACCEPT" in line for line in heard))
        pool = net.pool(f"https://127.0.0.1:{port}/v1", **files(net.authority, "ca.pem"), idle_timeout=0.5)
        _, receiver = open_(pool)
        await until(lambda: any(b"POST /v1/chat" in line for line in heard))
        server.stdin.write(b"r\n")
        server.stdin.flush()
        code, *_ = await receiver.failure()
        assert code in ("network", "timeout")
        await pool.close()
    finally:
        server.kill()
        server.wait()
        listener.join()
        server.stdin.close()
        server.stdout.close()
    messages = [line for line in heard if b"ClientHello" in line or b"no_renegotiation" in line]
    assert sum(b"ClientHello" in line for line in messages) == 1
    assert any(b"no_renegotiation" in line for line in messages)


def test_the_variables_of_openssl_name_the_authorities(authority: Authority, tmp_path: Path) -> None:
    """`SSL_CERT_FILE` and `SSL_CERT_DIR`, in a process of its own, since OpenSSL reads them once."""
    code = "from gai_fast.net.upstream.tls import default_ssl_context as made; print(len(made().get_ca_certs()))"
    for value, count in ((authority.folder / "ca.pem", "1\n"), (tmp_path / "none", "0\n")):
        environ = {"SSL_CERT_FILE": str(value), "SSL_CERT_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
        root = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environ, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.stdout == count, done.stderr
