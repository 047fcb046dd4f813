"""TLS to an upstream: whom it trusts, and a connection over a socket that is connected already.

Owns the contexts: trusted authorities, versions, the client's own certificate. It must not know how a socket is
connected (`pool.py`), nor the handshake's steps and the records (`tls_transport.py`).
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable
from socket import socket

from gai_fast.errors import Error
from gai_fast.net.http_request import Origin
from gai_fast.net.tls_transport import Handshakes, Receiver, TLSTransport


class TLS:
    """TLS to one upstream; belongs to one loop and its thread.

    Args:
        origin: Where the upstream is; its host is the name that the certificate must have.
        loop: The loop of the connections.
        clock: Monotonic seconds.
        context: Verifies the upstream; `default_ssl_context` where not given.
    """

    def __init__(
        self,
        origin: Origin,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._peer = origin.peer
        self._loop = loop
        self._handshakes = Handshakes(loop, context or default_ssl_context(), origin.host, clock)

    async def connect(self, sock: socket, receiver: Receiver) -> None:
        """Makes a TLS connection on a socket, and calls the receiver's `connection_made`.

        The socket belongs to the connection from now on, and is closed where this fails or is cancelled.

        Args:
            sock: Connected to the upstream, directly or through a proxy's tunnel; not blocking. No byte of the
                upstream's side of TLS may have been read from it.
            receiver: An asyncio protocol.

        Raises:
            Error: `network`, with the reason `tls`.
        """
        shaken: asyncio.Future[None] = self._loop.create_future()
        transport = TLSTransport(self._handshakes, self._loop, sock, receiver, functools.partial(_settle, shaken))
        is_made = False
        try:
            await shaken
            is_made = True
        except OSError as exc:
            text = f"no TLS with {self._peer} ({said(exc)}): "
            text += "check base_url, its certificate and the trusted authorities"
            raise Error("network", text, reason="tls") from exc
        finally:
            if not is_made:  # a cancelled handshake, too, must not leave its socket open
                transport.abort()


def _settle(shaken: asyncio.Future[None], problem: Exception | None) -> None:
    if shaken.done():
        return  # cancelled
    if problem is None:
        shaken.set_result(None)
    else:
        shaken.set_exception(problem)


def said(problem: OSError) -> str:
    """Returns what went wrong in a handshake."""
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


@functools.cache
def default_ssl_context() -> ssl.SSLContext:
    """Returns the shared context: the system's trusted authorities, TLS ≥ 1.2, host name checked.

    Each context costs 20 ms and a MiB.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
