"""Ports for programs that cannot choose one themselves."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Returns a port that nobody uses, below those that the system gives away: it stays free until it is taken."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
            except OSError:
                continue
            return int(probe.getsockname()[1])
