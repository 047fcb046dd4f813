"""Sockets and transports of connections in both directions: of clients and to upstreams."""
