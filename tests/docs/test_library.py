"""docs/library.md: every example runs as it stands, and every public name has one."""

from __future__ import annotations

import ast
import asyncio
import codeop
import inspect
import os
import re
import subprocess
import sys
import urllib.request
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pytest

import gai_fast
from gai_fast.core.result import Result
from gai_fast.kernels import _pure
from gai_fast.model.metrics import StreamMetrics
from tests.docs.pages import Block, blocks, coded, matches, read, rows, section

PAGE: Final = "docs/library.md"
TEXT: Final = read(PAGE)
EXTEND: Final = "Extend the server"
SECTIONS: Final = [
    (heading, list(group))
    for heading, group in groupby(blocks(TEXT), lambda block: block.section)
    if heading != EXTEND  # prints nothing: `serve` runs it
]
SECONDS: Final = 30


@pytest.mark.parametrize("examples", [group for _, group in SECTIONS], ids=[heading for heading, _ in SECTIONS])
def test_the_examples_of_a_section_run_in_order_and_print_what_the_page_shows(
    examples: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.endswith("_API_KEY") or name == "OLLAMA_HOST":
            monkeypatch.delenv(name)
    assert [block.language for block in examples] == ["python", "text"] * (len(examples) // 2)
    asyncio.run(asyncio.wait_for(_run(examples, capsys), SECONDS))


async def _run(examples: list[Block], capsys: pytest.CaptureFixture[str]) -> None:
    """Runs the blocks in one namespace, on one loop."""
    namespace: dict[str, Any] = {"__name__": "example"}
    for code, shown in zip(examples[::2], examples[1::2], strict=True):
        # The line numbers of a traceback are those of the page.
        lines = "\n" * (code.line - 1) + code.text
        waiting = eval(compile(lines, PAGE, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
        if inspect.iscoroutine(waiting):
            await waiting
        printed = capsys.readouterr().out
        assert matches(shown.text, printed), f"{PAGE}:{code.line} printed:\n{printed}"


@pytest.mark.parametrize(
    "code", [block for block in blocks(TEXT) if block.language == "python"], ids=lambda block: block.line
)
def test_an_example_can_be_pasted_at_the_prompt(code: Block) -> None:
    """Line by line, as `python -m asyncio` reads it: an empty line ends a statement of several lines, and none else."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    lines: list[str] = []
    for at, line in enumerate([*code.text.splitlines(), ""], code.line):
        lines.append(line)
        try:
            if compiler("\n".join(lines), PAGE, "single") is not None:
                lines = []
        except SyntaxError as problem:
            pytest.fail(f"{PAGE}:{at}: {problem.msg}")
    assert not lines


def test_serve_runs_the_function_that_the_page_gives_it(tmp_path: Path) -> None:
    (code,) = (block for block in blocks(TEXT) if block.section == EXTEND)
    (tmp_path / "shop.py").write_text(code.text)
    reference = re.findall(r"`gai-fast serve --app (\S+)`", TEXT)
    kept = {"PATH", "HOME", "PYTHONPATH", "GAI_FAST_NO_EXTENSIONS", "GAI_FAST_REQUIRE_EXTENSIONS"}
    with subprocess.Popen(
        [sys.executable, "-m", "gai_fast", "serve", "--port", "0", "--app", *reference],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name in kept} | {"PYTHONUNBUFFERED": "1"},
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            banner = server.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", banner)
            assert found is not None, banner
            for path, body in (("/hello", "hello"), ("/healthz", None)):
                with urllib.request.urlopen(found[0] + path, timeout=SECONDS) as response:
                    assert response.headers["x-shop"] == "corner"
                    assert body in (None, response.read().decode())
        finally:
            server.terminate()
            assert server.wait(SECONDS) == 0


def test_every_public_name_has_an_example() -> None:
    code = [ast.parse(block.text) for block in blocks(TEXT) if block.language == "python"]
    used = {
        node.attr
        for tree in code
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "gai_fast"
    }
    assert used == {*gai_fast.__all__}


def test_every_public_name_stands_in_the_table_of_contents() -> None:
    result = " ".join(row[1] for row in rows(section(TEXT, "Library")))
    codes = {kind.__name__ for kind in gai_fast.Error.__subclasses__()}
    assert {*coded(result)} - {"Error"} == {*gai_fast.__all__} - codes - {"Event", "Error", "GaiFastError"}
    assert "[`Error` and its classes](#errors)" in result


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("Collect a result", {*Result.__dataclass_fields__}),
        ("Measure streams", {*(each.name for each in fields(StreamMetrics)), "tokens_per_second"}),
        ("Encode a stream", {*inspect.signature(_pure.SSEEncoder).parameters}),
        ("Callbacks", {*inspect.signature(gai_fast.EventManager).parameters}),
        ("Follow JSON answers", {*inspect.signature(gai_fast.JSONStreamProcessor).parameters}),
        ("Decode a provider's answer", {*inspect.signature(gai_fast.decode).parameters}),
    ],
)
def test_every_attribute_and_every_argument_stands_in_its_table(heading: str, names: set[str]) -> None:
    result = {name for row in rows(section(TEXT, heading)) for name in coded(row[0])}
    assert names <= result
