"""Connections to upstreams: names, sockets, TLS, proxies, pools, and HTTP on them."""
