"""docs/javascript.md: its example runs as it stands, but for the import, and the types name what the module has."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from tests.docs.pages import ROOT, blocks, read
from tests.docs.test_http_api import SECONDS, SHOWN_ADDRESS, address

__all__ = ["address"]

MODULE: Final = ROOT / "gai_fast/client/gai-fast.js"
TYPES: Final = MODULE.with_name("gai-fast.d.ts")


def test_the_example_prints_what_the_page_shows(
    address: str, tmp_path: Path, unavailable: Callable[[str], NoReturn]
) -> None:
    node = shutil.which("node")
    if node is None:
        unavailable("node")
    program, shown, *_ = blocks(read("docs/javascript.md"))
    assert (program.language, shown.language) == ("javascript", "text")
    text = program.text.replace(f"http://{SHOWN_ADDRESS}/client.js", MODULE.as_uri()).replace(SHOWN_ADDRESS, address)
    file = tmp_path / "example.mjs"
    file.write_text(text)
    done = subprocess.run([str(node), str(file)], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.strip() == shown.text.strip()


def exported(source: str, kinds: str) -> set[str]:
    return set(re.findall(rf"^export (?:{kinds}) (\w+)", source, re.M))


def test_the_types_name_every_function_and_class_of_the_module() -> None:
    values = exported(MODULE.read_text(), r"async function|function|class")
    assert values == {"stream", "follow", "SSEParser", "NDJSONParser", "refusal"}
    assert exported(TYPES.read_text(), "function|class") == values
