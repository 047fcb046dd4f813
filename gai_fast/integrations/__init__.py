"""Streams as responses of web frameworks: `aiohttp`, `asgi` (Starlette, FastAPI, any ASGI server), `django` and `wsgi`.

Each module is imported separately, and only that module imports its framework. `_body.py` has the code shared by
responses, `_handlers.py` the code shared by handlers.
"""
