"""TLS to an upstream: trusted authorities, and TLS connections over connected sockets.

Owns the contexts: trusted authorities, versions, the client certificate. It must not know how a socket is
connected (`pool.py`), nor the handshake's steps and the records (`tls_transport.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from gai_fast.kernels import SocketSet
from gai_fast.model.errors import Error
from gai_fast.model.settings import Peer
from gai_fast.net.limits import LIMITS
from gai_fast.net.sockets.socket_transport import SocketReceiver
from gai_fast.net.upstream.http_request import Origin
from gai_fast.net.upstream.tls_transport import Handshakes, TLSTransport
from gai_fast.runtime.files import open_file


class TLS:
    """TLS to one upstream; belongs to one loop and its thread.

    Args:
        origin: The upstream's address; the certificate must be valid for its host.
        loop: The loop of the connections.
        clock: Monotonic seconds.
        readers: Watches the sockets.
        context: Verifies the upstream.
    """

    def __init__(
        self,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        readers: SocketSet,
        context: ssl.SSLContext,
    ) -> None:
        self._peer = origin.peer
        self._loop = loop
        self._readers = readers
        self._handshakes = Handshakes(loop, context, origin.host, clock)

    async def connect(self, sock: socket, receiver: SocketReceiver) -> None:
        """Makes a TLS connection on a socket, and calls the receiver's `connection_made`.

        The connection takes ownership of the socket. The socket is closed if this method fails or is cancelled.

        Args:
            sock: A non-blocking socket connected to the upstream, directly or through a proxy's tunnel. No byte of the
                upstream's TLS may have been read from it.
            receiver: An asyncio protocol.

        Raises:
            Error: `network`, with the reason `tls`.
        """
        shaken: asyncio.Future[None] = self._loop.create_future()
        settle = functools.partial(_settle, shaken)
        transport = TLSTransport(self._handshakes, self._loop, sock, receiver, self._readers, settle)
        is_made = False
        try:
            await shaken
            is_made = True
        except OSError as exc:
            text = f"no TLS with {self._peer} ({said(exc)}): "
            text += "check base_url, its certificate and the trusted authorities"
            raise Error("network", text, reason="tls") from exc
        finally:
            if not is_made:  # also if cancelled
                transport.abort()


def _settle(shaken: asyncio.Future[None], problem: Exception | None) -> None:
    if shaken.done():
        return  # cancelled
    if problem is None:
        shaken.set_result(None)
    else:
        shaken.set_exception(problem)


def said(problem: OSError) -> str:
    """Returns the reason of a failed handshake as text."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return problem.verify_message
    if isinstance(problem, ssl.SSLEOFError):
        return "it closed the connection during the handshake"
    if isinstance(problem, ssl.SSLError):
        if problem.reason in _NOT_TLS:
            return "it does not speak TLS on this port"
        return (problem.reason or problem.strerror or "handshake failed").replace("_", " ").lower()
    return problem.strerror or type(problem).__name__


_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


class TLSFileError(ValueError):
    """A file of an upstream's TLS cannot be used.

    Attributes:
        key: The configuration key that names the file.
    """

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """The TLS files of a peer.

    Args:
        ca_file: The trusted authorities, instead of the system's.
        client_cert: The client certificate sent to the upstream.
        client_key: The private key of `client_cert`; in the same file if not given.
    """

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    @classmethod
    def of(cls, peer: Peer) -> TLSFiles:
        """Returns the files of a peer."""
        return cls(peer.ca_file, peer.client_cert, peer.client_key)

    @property
    def version(self) -> tuple[int, ...]:
        """Numbers of which one changes if one of the files changes."""
        numbers: list[int] = []
        for path in filter(None, (self.ca_file, self.client_cert, self.client_key)):
            with contextlib.suppress(OSError):  # a missing file also changes the numbers
                stat = Path(path).stat()
                numbers += stat.st_mtime_ns, stat.st_size, stat.st_ino
        return tuple(numbers)

    def context(self) -> ssl.SSLContext:
        """Returns the context made of these files. Equal files share one context.

        Raises:
            TLSFileError: One of the files cannot be used.
        """
        return _context(self, self.version) if any((self.ca_file, self.client_cert)) else default_ssl_context()


@functools.lru_cache(LIMITS.tls_contexts)
def _context(files: TLSFiles, version: tuple[int, ...]) -> ssl.SSLContext:
    for key, path in (("ca_file", files.ca_file), ("client_cert", files.client_cert), ("client_key", files.client_key)):
        try:
            if path is not None:
                open_file(path).close()  # OpenSSL would block on a FIFO and read a device forever
        except OSError as problem:
            raise TLSFileError(key, _fault(path, problem, "")) from None
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
    except OSError as problem:
        raise TLSFileError("ca_file", _fault(files.ca_file, problem, "no certificate in PEM")) from None
    if files.client_cert is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(files.client_cert)
        except OSError as problem:
            raise TLSFileError("client_cert", _fault(files.client_cert, problem, "no certificate in PEM")) from None
        try:
            # Without the empty password OpenSSL would ask on the terminal.
            context.load_cert_chain(files.client_cert, files.client_key, password="")
        except OSError as problem:
            reason = problem.reason if isinstance(problem, ssl.SSLError) else None
            if reason in _WEAK:
                raise TLSFileError(
                    "client_cert", _fault(files.client_cert, problem, "too weak a certificate")
                ) from None
            key = "client_key" if files.client_key else "client_cert"
            fault = "no private key in PEM that is not encrypted"
            if reason == "KEY_VALUES_MISMATCH":
                fault = "the key of another certificate than client_cert"
            raise TLSFileError(key, _fault(files.client_key or files.client_cert, problem, fault)) from None
    return _restricted(context)


_WEAK = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")


def _fault(path: str | None, problem: OSError, fault: str) -> str:
    if isinstance(problem, ssl.SSLError):
        return f"the file {path} holds {fault}"
    return f"the file {path} cannot be read: {problem.strerror}"


@functools.cache
def default_ssl_context() -> ssl.SSLContext:
    """Returns the shared context: the system's trusted authorities, TLS ≥ 1.2, host name checked.

    Each context costs 20 ms and a MiB.
    """
    return _restricted(ssl.create_default_context())


def _restricted(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
