"""Where connections arrive: sockets, TLS to clients, PROXY headers, places."""
