"""Django under ASGI, in one file: a view that streams an answer, and one that streams a source of its own.

pip install django uvicorn
python examples/django_chat.py
curl -N 'http://127.0.0.1:8000/ask?q=Tell+me+a+story'
"""

import asyncio
import os

import django
import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY=os.urandom(32).hex())
django.setup()

import gai_fast  # noqa: E402  # Django's settings come first
from gai_fast.integrations.django import ndjson_response, sse_handler  # noqa: E402  # Django must be set up before

gateway = gai_fast.Gateway()  # opened by the first request


def prepare(request):
    """May use the ORM and the session: a sync function runs as Django's sync views do."""
    return {"query": request.GET.get("q", "Hello"), "model": "demo", "resumable": True}


async def progress(request):
    async def steps():
        for percent in (0, 50, 100):
            yield {"percent": percent}
            await asyncio.sleep(0.01)

    return ndjson_response(steps())


urlpatterns = [
    path("ask", sse_handler(gateway, prepare)),
    path("progress", progress),
]
application = get_asgi_application()

if __name__ == "__main__":
    uvicorn.run(application, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), lifespan="off")
