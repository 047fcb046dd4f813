"""WebSockets, of which each carries many streams: `handshake` is the way in.

`session` has one open socket, `connection` its bytes over aiohttp, and `stream` one of its streams.
"""
