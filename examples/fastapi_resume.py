"""FastAPI with resume: a client that lost its connection sends `Last-Event-ID`, and gets the rest of the same answer.

pip install fastapi uvicorn
python examples/fastapi_resume.py
curl -N http://127.0.0.1:8000/chat -H 'content-type: application/json' -d '{"prompt": "Tell me a story"}'
"""

import contextlib
import os

import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel

import gai_fast
from gai_fast.integrations.asgi import error_response, sse_response

gateway = gai_fast.Gateway()


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
    """Is called for every request, also for one that resumes: the place for your own checks."""
    asking = {"query": question.prompt, "model": "demo", "resumable": True}
    return sse_response(gateway.stream(asking), request=request, heartbeat=10)


@app.get("/shout")
async def shout(prompt: str):
    """A response of a source of your own, here one that changes the events of another."""

    async def events():
        async with gateway.stream({"query": prompt, "model": "demo"}) as stream:
            async for event in stream:
                yield {**event, "text": event["text"].upper()} if "text" in event else event

    return sse_response(events())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
