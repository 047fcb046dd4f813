"""A guard that is a Python function: an answer ends before it promises something.

python examples/guard_function.py "A story"
"""

import asyncio
import re
import sys
import tempfile
from pathlib import Path

import gai_fast

PROMISE = re.compile(r"\b(?:never|always|guarantee)\b", re.IGNORECASE)
CONFIG = """
[[guard]]
name = "promises"
use = "python"
python = "guard_function:judge"
on = ["output"]
"""


def judge(asked):
    return {"flagged": PROMISE.search(asked["text"]) is not None, "category": "promise"}


async def main(question, config):
    async with gai_fast.Gateway.from_config(config) as gateway:
        result = await gateway.ask(question)
    print(result.text, f"[{result.finish_reason}]")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "gai-fast.toml")
        config.write_text(CONFIG)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "A story", config))
