"""Reads a certificate's validity: the standard library reads one only from a peer that it has verified.

So each is shown in a handshake in memory, with the certificate itself as the authority. It takes some milliseconds.
"""

from __future__ import annotations

import ssl
from typing import Final

from gai_fast.runtime.files import open_file

_VALIDITY: Final = ("certificate has expired", "certificate is not yet valid")


def server_validity(context: ssl.SSLContext, path: str) -> tuple[float | None, str]:
    """Returns the end of a server's certificate in Unix seconds, and the reason if it is not valid today.

    Args:
        context: The context of the certificate.
        path: The file of its chain.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    return _shown(_trusting(client, path), context, is_client=False)


def client_validity(path: str, key_path: str | None) -> tuple[float | None, str]:
    """Works as `server_validity`, for a client's certificate.

    Args:
        path: The file of its chain.
        key_path: The file of its key. None if that is in the same file.

    Raises:
        OSError: The files cannot be used.
    """
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE  # the server shows the client's certificate, which is all that there is
    for context in (client, server):
        context.load_cert_chain(path, key_path, password="")  # else OpenSSL would ask on the terminal
    server.verify_mode = ssl.CERT_REQUIRED
    return _shown(client, _trusting(server, path), is_client=True)


def _trusting(context: ssl.SSLContext, path: str) -> ssl.SSLContext:
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    with open_file(path) as file:
        context.load_verify_locations(cadata=file.read().decode("ascii", "ignore"))
    return context


def _shown(of_client: ssl.SSLContext, of_server: ssl.SSLContext, *, is_client: bool) -> tuple[float | None, str]:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = of_client.wrap_bio(down, up), of_server.wrap_bio(up, down, server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as problem:
            return None, problem.verify_message if problem.verify_message in _VALIDITY else ""
    found = (server if is_client else client).getpeercert()
    end_of = found.get("notAfter") if found else None
    return (ssl.cert_time_to_seconds(end_of), "") if isinstance(end_of, str) else (None, "")
