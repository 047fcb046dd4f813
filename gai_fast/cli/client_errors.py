"""Explains failed requests to a server, for the commands `top`, `key` and `doctor`.

Text from the server or a URL is never printed: it may contain a password.
"""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp


def explain(problem: Exception, wait: float) -> str:
    """Returns the reason why a request failed.

    Args:
        problem: The exception from aiohttp or its socket.
        wait: The timeout of the request in seconds.
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
            return f"cannot connect ({_reason_of(problem.os_error)})"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | OSError():
            return "the connection was lost"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refuses: status {problem.status}"
        case _:
            return f"the answer cannot be read ({type(problem).__name__})"


def _reason_of(problem: OSError) -> str:
    if isinstance(problem, socket.gaierror):  # its `errno` is a code of getaddrinfo, not of the system
        return problem.strerror or "the name is unknown"
    return os.strerror(problem.errno) if problem.errno else "at any of its addresses"  # no errno: several were tried
