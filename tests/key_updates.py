"""Key updates of TLS 1.3, which the standard library can answer and not ask for."""

from __future__ import annotations

import ctypes
import ssl


def update_keys(tls: ssl.SSLObject, count: int, *, is_asking: bool) -> None:
    """Writes key updates to the outgoing buffer of a connection.

    Args:
        tls: The connection, after its handshake.
        count: The number of key updates.
        is_asking: Whether the peer must answer each with one of its own.
    """
    library = ctypes.CDLL(vars(ssl)["_ssl"].__file__)
    inner = vars(tls)["_sslobj"]
    # The second field of CPython's `PySSLSocket`, as in `kernels/_native/tls.pyx`.
    connection = ctypes.c_void_p.from_address(id(inner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p))
    for _ in range(count):
        assert library.SSL_key_update(connection, int(is_asking)) == 1
        tls.do_handshake()
