"""Explains failed requests to a server in words, for the commands `top` and `doctor`.

No text of the server or of a URL is repeated: either may hold a password.
"""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp


def words_of(problem: Exception, wait: float) -> str:
    """Says why a server could not be asked.

    Args:
        problem: What aiohttp raised, or the socket below it.
        wait: Seconds for which an answer was waited for.
    """
    match problem:
        case TimeoutError():
            return f"no answer within {wait:g} s"
        case aiohttp.ClientConnectorCertificateError():
            refused = problem.certificate_error
            why = (
                refused.verify_message if isinstance(refused, ssl.SSLCertVerificationError) else type(refused).__name__
            )
            return f"the certificate is not trusted: {why}"
        case aiohttp.ClientSSLError():
            return "no TLS is spoken there"
        case aiohttp.ClientConnectorError():
            return f"nothing can be connected to there ({_reason_of(problem.os_error)})"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | OSError():
            return "the connection was lost"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refuses: status {problem.status}"
        case _:
            return f"the answer cannot be read ({type(problem).__name__})"


def _reason_of(problem: OSError) -> str:
    if isinstance(problem, socket.gaierror):  # its `errno` is none of the system's
        return problem.strerror or "the name is unknown"
    return os.strerror(problem.errno) if problem.errno else "at any of its addresses"  # where several were tried
