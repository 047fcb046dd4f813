"""A careful server written by hand: aiohttp on both sides, orjson, one write for all frames of a read."""

from __future__ import annotations

from benchmarks.contenders import EVENTS, MEMORY, Contender, Task, own_server

CONTENDERS = (
    Contender(
        name="aiohttp + orjson, by hand",
        does="normalizes",
        note="aiohttp client and server on uvloop; frames of one read are joined into one write",
        command=own_server(__name__),
        memory=MEMORY,
        requirements=("aiohttp", "orjson", "uvloop"),
        distributions=("aiohttp", "orjson", "uvloop"),
        quick=True,
    ),
)


def main() -> None:
    """Relays, and answers from memory."""
    import uvloop
    from aiohttp import web

    from benchmarks.contenders._chat import ChatReader, Upstream, delta, ending, frame

    task = Task.from_environment()
    texts = task.texts()
    upstream = Upstream(task.upstream)
    headers = {"content-type": "text/event-stream", "cache-control": "no-cache"}

    async def relay(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        reader = ChatReader()
        seq = 0
        async with upstream.ask() as answer:
            async for data in answer.content.iter_any():
                frames = [frame(delta(seq + at, text)) for at, text in enumerate(reader.feed(data), 1)]
                if frames:
                    seq += len(frames)
                    await response.write(b"".join(frames))
        await response.write(b"".join(map(frame, ending(seq + 1, reader))))
        return response

    async def answer_from_memory(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        reader = ChatReader()
        reader.finish_reason, reader.is_done = "stop", True
        frames = [frame(delta(seq, text)) for seq, text in enumerate(texts, 1)]
        frames += map(frame, ending(len(texts) + 1, reader))
        await response.write(b"".join(frames))
        return response

    app = web.Application()
    app.router.add_post(EVENTS.path, relay)
    app.router.add_post(MEMORY.path, answer_from_memory)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=task.port, backlog=4096, access_log=None, print=None)


if __name__ == "__main__":
    main()
