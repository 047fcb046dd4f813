from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from gai_fast.errors import Error
from gai_fast.net.http_request import Origin
from gai_fast.net.tls import TLS, default_ssl_context, said
from tests.integration.certificates import Authority
from tests.waiting import until


class Receiver:
    def __init__(self) -> None:
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


def make(authority: Authority) -> TLS:
    loop = asyncio.get_running_loop()
    return TLS(Origin.parse("https://localhost:443"), loop, loop.time, authority.client())


async def socket_to(server: asyncio.Server) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, server.sockets[0].getsockname())
    return sock


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_a_connection_over_a_connected_socket(authority: Authority) -> None:
    async with await asyncio.start_server(stall, "127.0.0.1", 0, ssl=authority.server("good")) as server:
        receiver = Receiver()
        await make(authority).connect(await socket_to(server), receiver)
        assert receiver.transport.get_extra_info("ssl_object").selected_alpn_protocol() is None
        receiver.transport.abort()
        await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_failure_names_the_upstream_and_what_is_wrong(authority: Authority) -> None:
    for certificate, text in (
        (
            "elsewhere",
            "no TLS with localhost:443 (Hostname mismatch, certificate is not valid for 'localhost'.): check ",
        ),
        ("expired", "no TLS with localhost:443 (certificate has expired): check "),
        ("own", "no TLS with localhost:443 (self-signed certificate): check "),
    ):
        async with await asyncio.start_server(stall, "127.0.0.1", 0, ssl=authority.server(certificate)) as server:
            sock = await socket_to(server)
            with pytest.raises(Error, match="check base_url, its certificate and the trusted authorities") as caught:
                await make(authority).connect(sock, Receiver())
            assert caught.value.message.startswith(text)
            assert (caught.value.code, caught.value.reason) == ("network", "tls")
            assert sock.fileno() < 0
    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        with pytest.raises(
            Error, match=r"\((it closed the connection during the handshake|Connection reset by peer)\)"
        ):
            await make(authority).connect(await socket_to(server), Receiver())


async def test_a_cancelled_handshake_closes_its_socket(authority: Authority) -> None:
    async with await asyncio.start_server(stall, "127.0.0.1", 0) as server:
        for turns in range(6):
            sock = await socket_to(server)
            task = asyncio.create_task(make(authority).connect(sock, Receiver()))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if turns == 0:
                sock.close()  # the coroutine has not begun
            await until(lambda sock=sock: sock.fileno() < 0)
        await until(lambda: len(asyncio.all_tasks()) == 1)


def test_what_is_said_of_a_handshake() -> None:
    for reason, text in (
        ("WRONG_VERSION_NUMBER", "it does not speak TLS on this port"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "tlsv1 alert protocol version"),
        (None, "handshake failed"),
    ):
        problem: Any = ssl.SSLError()
        problem.reason = reason
        assert said(problem) == text
    assert said(ConnectionResetError(104, "Connection reset by peer")) == "Connection reset by peer"
    assert said(ConnectionAbortedError()) == "ConnectionAbortedError"


def test_the_default_verifies_and_refuses_old_versions_and_renegotiation() -> None:
    context = default_ssl_context()
    assert context is default_ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
