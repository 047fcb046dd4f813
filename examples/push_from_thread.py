"""A source that a plain thread pushes: a library that blocks, such as a local model, becomes a stream for browsers.

python examples/push_from_thread.py
curl -N http://127.0.0.1:8000/count?to=5
"""

import asyncio
import os
import time

from aiohttp import web

import gai_fast
from gai_fast.integrations.aiohttp import sse_response

workers = set()


def count(stream, to):
    """Blocks between two pieces, as such a library does."""
    for number in range(1, to + 1):
        time.sleep(0.05)
        stream.send_threadsafe(f"{number} ", timeout=30)  # waits where the client is slow


async def work(stream, to):
    try:
        await asyncio.to_thread(count, stream, to)
    except gai_fast.Network:
        pass  # the client has left: the thread's next piece has failed, and it has ended
    except Exception as problem:
        await stream.fail(problem)
        raise
    else:
        await stream.finish()


async def answer(request):
    to = request.query.get("to", "5")
    if to not in map(str, range(1, 1001)):
        raise web.HTTPBadRequest(text="`to` is from 1 to 1000")
    stream = gai_fast.Stream()
    task = asyncio.create_task(work(stream, int(to)))
    workers.add(task)  # a task that nobody holds may be collected
    task.add_done_callback(workers.discard)
    return sse_response(stream)


def application():
    app = web.Application()
    app.router.add_get("/count", answer)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
