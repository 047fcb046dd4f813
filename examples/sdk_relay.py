"""The stream of OpenAI's SDK as a response: an endpoint that has a client already, for browsers, with a legal end.

pip install fastapi uvicorn openai
OPENAI_API_KEY=… python examples/sdk_relay.py        (OPENAI_BASE_URL: another server with OpenAI's API)
curl -N 'http://127.0.0.1:8000/chat?q=Tell+me+a+story'
"""

import os

import uvicorn
from fastapi import FastAPI
from openai import AsyncOpenAI

import gai_fast
from gai_fast.integrations.asgi import sse_response

app = FastAPI()
client = AsyncOpenAI()
MODEL = os.environ.get("MODEL", "gpt-5-mini")


@app.get("/chat")
async def chat(q: str):
    messages = [{"role": "user", "content": q}]
    usage = {"include_usage": True}
    asking = client.chat.completions.create(model=MODEL, messages=messages, stream=True, stream_options=usage)
    # Not awaited: a refusal within `commit_after`, retries of the SDK included, is a response with its status.
    return sse_response(gai_fast.from_sdk(asking), commit_after=15)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
