"""A chat page: the browser's EventSource shows the answer as it comes, and resumes it after a lost connection.

python examples/chat_page.py            then open http://127.0.0.1:8000
"""

import os

from aiohttp import web

import gai_fast
from gai_fast.integrations.aiohttp import sse_handler

PAGE = """<!doctype html><title>Chat</title>
<form id="ask"><input name="q" value="Tell me a story" size="60"><button>Ask</button></form>
<p id="answer" style="white-space: pre-wrap"></p>
<script>
let source;
ask.onsubmit = event => {
  event.preventDefault();
  answer.textContent = "";
  source?.close();  // of the question before
  source = new EventSource("ask?" + new URLSearchParams(new FormData(ask)));
  source.addEventListener("text.delta", ({data}) => { answer.textContent += JSON.parse(data).text; });
  source.addEventListener("stream.gap", ({data}) => { answer.textContent = JSON.parse(data).text ?? ""; });
  source.addEventListener("error", ({data}) => {
    if (data) answer.textContent += "\\n" + JSON.parse(data).error.message;  // else the connection's: it comes back
  });
  source.addEventListener("done", ({target}) => target.close());
};
</script>"""

gateway = gai_fast.Gateway()  # the providers whose keys are in the environment, and the model `demo`


async def page(request):
    return web.Response(text=PAGE, content_type="text/html")


async def prepare(request):
    # "resumable" keeps the stream while the browser is away; EventSource then asks for the rest by itself.
    return {"query": request.query.get("q") or "Hello", "model": "demo", "resumable": True}


async def running(app):
    async with gateway:
        yield


def application():
    app = web.Application()
    app.cleanup_ctx.append(running)
    app.router.add_get("/", page)
    app.router.add_get("/ask", sse_handler(gateway, prepare))
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
