"""A gateway with guards by a configuration's file, before an upstream of each dialect, for clients of other makers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gai_fast.config.resolution import load
from gai_fast.server.serving import start
from tests.integration.gateway import KEY, Gateway, Net
from tests.integration.talking import NAME, RESULT, Talker

UPSTREAMS = {
    "chat": ("openai-compatible", "/v1"),
    "claude": ("anthropic", ""),
    "native": ("openai-compatible:responses", "/v1"),
    "gemini": ("gemini", "/v1beta"),
}
"""The upstreams of `file_of`: their providers, and the paths of their URLs."""
ACTIONS = ("mask", "flag", "stop")
ASKED = f"I am {NAME}, and it is {RESULT} deep."
UNASKED = "A kestrel."
"""What is asked, and what a guard on input stops."""
SAID = {
    "mask": f"I know [name] and {RESULT}",
    "flag": f"I know {NAME} and {RESULT}",
    "stop": "I know ",
}
"""What a client has of the answer."""
GUARDS = "".join(
    f"""
[[guard]]
name = "{action}s"
use = "words"
words = ["{NAME}"]
category = "name"
action = "{action}"
on = ["output"]
models = ["*-{action}"]
"""
    for action in ACTIONS
) + (
    """
[[guard]]
name = "door"
use = "words"
words = ["kestrel"]
action = "stop"
on = ["input"]
"""
)


def model_of(upstream: str, action: str) -> str:
    return f"{upstream}-{action}"


def file_of(url: str) -> str:
    """Returns a configuration: a model for each dialect and each action of a guard."""
    parts = ["[server]\nport = 0\n", GUARDS]
    for name, (provider, path) in UPSTREAMS.items():
        parts.append(
            f'[[upstream]]\nname = "{name}"\nprovider = "{provider}"\nbase_url = "{url}{path}"\napi_key = "env:KEY"\n'
        )
        parts += [f'[[model]]\nname = "{model_of(name, each)}"\nupstream = "{name}"\n' for each in ACTIONS]
    return "\n".join(parts)


async def configured(net: Net, folder: Path, text: str) -> Gateway:
    """Returns a gateway with this configuration's file."""
    file = folder / "gai-fast.toml"
    file.write_text(text)
    running = await start(load(file, environ={"KEY": KEY}))
    net.gateways.append(Gateway(net, running))
    net.stack.push_async_callback(running.close)
    return net.gateways[-1]


async def guarded(net: Net, folder: Path) -> tuple[Gateway, Talker]:
    """Returns a gateway with the models of `file_of`, and their upstream."""
    talker = Talker()
    upstream = await net.upstream(talker)
    return await configured(net, folder, file_of(upstream.url)), talker


def told(action: str) -> dict[str, Any]:
    """Returns what is said of a match."""
    return {"category": "name", "action": action, "guard": f"{action}s", "on": "output"}
