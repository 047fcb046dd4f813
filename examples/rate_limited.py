"""A rate-limited endpoint: each address may ask three times a minute; a further request is 429 with `retry-after`.

python examples/rate_limited.py
curl -N http://127.0.0.1:8000/ask -H 'content-type: application/json' -d '{"query": "Why is the sky blue?"}'
"""

import os
import time
from collections import OrderedDict

from aiohttp import web

import gai_fast
from gai_fast.integrations.aiohttp import sse_handler

REQUESTS, SECONDS = 3, 60
ADDRESSES = 10_000  # kept at most: the one that asked longest ago is forgotten first

gateway = gai_fast.Gateway()
asked = OrderedDict()  # address → the times of its last requests


def admit(address):
    """Counts a request, or raises."""
    now = time.monotonic()
    recent = [at for at in asked.pop(address, []) if now - at < SECONDS]
    asked[address] = recent
    if len(asked) > ADDRESSES:
        asked.popitem(last=False)
    if len(recent) >= REQUESTS:
        wait = SECONDS - (now - recent[0])
        text = f"only {REQUESTS} requests in {SECONDS} seconds"
        raise gai_fast.RateLimited(message=text, retry_after_ms=int(wait * 1000))
    recent.append(now)


async def prepare(request):
    admit(request.remote)
    try:
        return {"query": (await request.json())["query"], "model": "demo"}
    except (ValueError, KeyError, TypeError):
        raise gai_fast.InvalidRequest(message='send {"query": "…"} as JSON') from None


async def running(app):
    async with gateway:
        yield


def application():
    app = web.Application()
    app.cleanup_ctx.append(running)
    app.router.add_post("/ask", sse_handler(gateway, prepare))
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
