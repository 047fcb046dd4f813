"""Python processes that share a store with the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.waiting import SECONDS

ROOT = Path(__file__).parents[3]

CLAIMS = """
async def main(backend, name):
    await backend.open()
    print("ready", flush=True)
    began = float(sys.stdin.readline())
    for number in range(1000):
        await asyncio.sleep(began + number * 0.002 - time.time())  # both at the same time, again and again
        if await take(backend, f"key {number}", Claim(name, "body"), 60) is None:
            print(number)
    await backend.close()
"""
START = """
import asyncio, sys, time
from gai_fast.model.limits import SHARED
from pathlib import Path
from gai_fast.stores import Claim, LogHeader
from gai_fast.stores.backend import CopyChange, Record
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.sqlite import SQLiteBackend
from tests.records import take

"""
END = """
asyncio.run(main({backend}, *sys.argv[1:]))
"""


def start(main: str, backend: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a process.

    Args:
        main: The source of `async def main(backend, *arguments)`.
        backend: The expression that makes its backend.
        arguments: Texts.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    source = START + textwrap.dedent(main) + END.format(backend=backend)
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def race(backend: str) -> list[set[int]]:
    """Lets two processes claim a thousand keys at once; returns those that each has got."""
    processes = [start(CLAIMS, backend, name) for name in "ab"]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    began = time.time() + 0.1
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{began}\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=2 * SECONDS)[0] for process in processes]
    return [{*map(int, output.split())} for output in outputs]
