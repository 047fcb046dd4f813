"""The arrival of connections: sockets, TLS to clients, PROXY headers, the maximum number of connections."""
