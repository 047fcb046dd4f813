"""A guard that is a web hook: gai-fast asks this server about each piece of text. In gai-fast.toml:

[[guard]]
name = "policy"
use = "http"
url = "http://127.0.0.1:8000/check"
action = "stop"
"""

import os
import re

from aiohttp import web

FORBIDDEN = re.compile(r"\b(?:casino|lottery|treasure)\b", re.IGNORECASE)


async def check(request):
    asked = await request.json()  # guard, on, channel, text, model, caller, stream_id
    found = FORBIDDEN.search(asked["text"])
    return web.json_response(
        {
            "flagged": found is not None,
            "category": "gambling",
            "score": 1.0 if found else 0.0,
            "spans": [list(found.span())] if found else [],
        }
    )


app = web.Application(client_max_size=1024 * 1024)
app.router.add_post("/check", check)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
