"""Where connections arrive: sockets, TLS to clients, PROXY headers, the maximum number of connections."""
