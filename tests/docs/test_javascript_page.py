"""docs/javascript.md: its example runs as it stands, but for the import, and the types name what the module has."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, get_args

import pytest

from gai_fast.model import request as native
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


def test_a_request_has_every_field_of_a_native_one_but_those_that_the_module_sets() -> None:
    typed = set(re.findall(r"^  (\w+)\?:", _interface("Request"), re.M))
    assert typed == {*native.Request.__struct_fields__} - {"stream", "resumable"}


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("effort", native.Effort),
        ("summary", native.Summary),
        ("verbosity", native.Verbosity),
        ("tool_choice", native.ToolChoice),
    ],
)
def test_a_word_of_a_request_is_one_that_the_server_reads(field: str, words: Any) -> None:
    [line] = re.findall(rf"\b{field}\?: (.*)", _interface("Request"))
    assert re.findall(r'"(\w+)"', line) == [*get_args(words)]


def _interface(name: str) -> str:
    """Returns the lines of an interface of the types."""
    [found] = re.findall(rf"^export interface {name} {{\n(.*?)^}}", TYPES.read_text(), re.S | re.M)
    return str(found)
