"""A function of your program that models call: FastAPI answers questions about orders.

pip install fastapi uvicorn
OPENAI_API_KEY=… python examples/fastapi_tool.py
curl -N http://127.0.0.1:8000/chat -H 'content-type: application/json' -d '{"prompt": "Where is order 17?"}'
"""

import contextlib
import os
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel

import gai_fast
from gai_fast.config import load
from gai_fast.integrations.asgi import error_response, sse_response

CONFIG = os.environ.get("CONFIG")
ORDERS = {17: "on its way", 18: "delivered"}


@gai_fast.tool(idempotent=True)  # it may be called again after a fault
async def order_status(number: int, meta: gai_fast.ToolMeta) -> dict:
    """Returns where an order is."""
    return {"number": number, "status": ORDERS.get(number, "unknown"), "asked_by": meta.request_id}


gateway = gai_fast.Gateway(load(Path(CONFIG) if CONFIG else None), tools=[order_status])


class Question(BaseModel):
    prompt: str


@contextlib.asynccontextmanager
async def lifespan(app):
    async with gateway:
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(gai_fast.Error)
async def refused(request: Request, error: gai_fast.Error):
    return error_response(error, request=request)


@app.post("/chat")
async def chat(question: Question, request: Request):
    return sse_response(gateway.stream({"query": question.prompt}), request=request, heartbeat=10)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
