"""Streams as responses of web frameworks: `aiohttp`, `asgi` (Starlette, FastAPI, any ASGI server) and `django`.

Each module is imported by itself, and alone imports its framework. `_body.py` has what they share, `_handlers.py` what
their handlers share.
"""
