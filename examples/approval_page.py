"""A page that asks before a tool is called: the run waits until somebody has clicked.

OPENAI_API_KEY=… python examples/approval_page.py            then open http://127.0.0.1:8000
"""

import contextlib
import os
from pathlib import Path

from aiohttp import web

import gai_fast
from gai_fast.config import load
from gai_fast.integrations.aiohttp import application, sse_handler

CONFIG = os.environ.get("CONFIG")
PAGE = """<!doctype html><title>Invoices</title>
<form id="ask"><input name="q" value="Bill Ada 7 euros" size="60"><button>Ask</button></form>
<p id="answer" style="white-space: pre-wrap"></p>
<script>
let source, on = (type, act) => source.addEventListener(type, ({data}) => act(JSON.parse(data)));
ask.onsubmit = event => {
  event.preventDefault(); source?.close(); answer.textContent = "";
  source = new EventSource("ask?" + new URLSearchParams(new FormData(ask)));
  on("text.delta", ({text}) => answer.append(text));
  on("tool.result", ({tool_result}) => answer.append(`[${tool_result}]\\n`));
  on("approval.required", ({approval: {id, tool, input, digest}}) => {  // the digest is of what is shown
    const decision = confirm(`${tool} ${JSON.stringify(input)}?`) ? "approve" : "deny";
    const stream = id.slice(0, id.lastIndexOf("-")), body = JSON.stringify({decision, digest});
    const headers = {"content-type": "application/json"};
    fetch(`gateway/api/v1/streams/${stream}/approvals/${id}`, {method: "POST", headers, body});
  });
  on("done", () => source.close());
};
</script>"""


@gai_fast.tool(approve=True)
def send_invoice(customer: str, euros: int) -> str:
    """Sends an invoice."""
    return f"{customer} has an invoice of {euros} euros"


async def prepare(request):
    return {"query": request.query.get("q") or "Hello"}


async def site():
    app, stack = web.Application(), contextlib.AsyncExitStack()
    app.on_cleanup.append(lambda _: stack.aclose())
    gateway = await stack.enter_async_context(gai_fast.Gateway(load(CONFIG and Path(CONFIG)), tools=[send_invoice]))
    app.router.add_get("/", lambda _: web.Response(text=PAGE, content_type="text/html"))
    app.router.add_get("/ask", sse_handler(gateway, prepare))
    app.add_subapp("/gateway", application(gateway))
    return app


if __name__ == "__main__":
    web.run_app(site(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
