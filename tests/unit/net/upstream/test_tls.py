from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gai_fast.kernels import SocketSet
from gai_fast.model.errors import Error
from gai_fast.net.upstream.http_request import Origin
from gai_fast.net.upstream.tls import TLS, TLSFileError, TLSFiles, default_ssl_context, said
from tests.integration.certificates import Authority
from tests.waiting import until


class Receiver:
    def __init__(self) -> None:
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


def make(authority: Authority) -> TLS:
    loop = asyncio.get_running_loop()
    return TLS(Origin.parse("https://localhost:443"), loop, loop.time, SocketSet(loop), authority.client())


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


def pem(authority: Authority, name: str) -> str:
    return str(authority.folder / name)


def test_files_make_one_context_until_they_change(authority: Authority, tmp_path: Path) -> None:
    copy = tmp_path / "ca.pem"
    copy.write_bytes(Path(pem(authority, "ca.pem")).read_bytes())
    files = TLSFiles(str(copy), pem(authority, "good.pem"), pem(authority, "good.key"))
    context, version = files.context(), files.version
    assert files.context() is context
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    copy.write_bytes(copy.read_bytes() + b"\n")
    assert files.version != version
    assert files.context() is not context
    assert TLSFiles().context() is default_ssl_context()


def test_a_file_that_cannot_be_used_is_named(authority: Authority, tmp_path: Path) -> None:
    junk, both, secret, weak = (str(tmp_path / name) for name in ("junk", "both", "secret", "weak"))
    Path(junk).write_text("no certificate\n")
    good, key, other = (pem(authority, name) for name in ("good.pem", "good.key", "own.key"))
    Path(both).write_bytes(Path(good).read_bytes() + Path(key).read_bytes())
    subprocess.run(f"openssl ec -in {key} -aes128 -passout pass:s3cret -out {secret}".split(), check=True, timeout=100)
    subprocess.run(
        f"openssl req -x509 -newkey rsa:1024 -nodes -subj /CN=weak -keyout {weak} -out {weak}.pem".split(),
        check=True,
        timeout=100,
    )
    for files, name, text in (
        (TLSFiles("/none"), "ca_file", "the file /none cannot be read: No such file or directory"),
        (TLSFiles(junk), "ca_file", f"the file {junk} holds no certificate in PEM"),
        (TLSFiles(None, "/none"), "client_cert", "the file /none cannot be read: No such file or directory"),
        (TLSFiles(None, junk), "client_cert", f"the file {junk} holds no certificate in PEM"),
        (TLSFiles(None, good), "client_cert", f"the file {good} holds no private key in PEM that is not encrypted"),
        (TLSFiles(None, good, "/none"), "client_key", "the file /none cannot be read: No such file or directory"),
        (
            TLSFiles(None, good, junk),
            "client_key",
            f"the file {junk} holds no private key in PEM that is not encrypted",
        ),
        (
            TLSFiles(None, good, secret),
            "client_key",
            f"the file {secret} holds no private key in PEM that is not encrypted",
        ),
        (
            TLSFiles(None, good, other),
            "client_key",
            f"the file {other} holds the key of another certificate than client_cert",
        ),
        (TLSFiles(None, f"{weak}.pem", weak), "client_cert", f"the file {weak}.pem holds too weak a certificate"),
    ):
        with pytest.raises(TLSFileError) as caught:
            files.context()
        assert (caught.value.key, str(caught.value)) == (name, text)
    TLSFiles(None, both).context()
