"""docs/http-api.md: every example runs as it stands, and every route, field, code and reason is there.

The README's first stream runs with them.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final, NamedTuple, NoReturn, get_args

import msgspec
import pytest

from gai_fast.model import request as native
from gai_fast.model.errors import CLASSES
from gai_fast.server.routes.table import ROUTES
from tests.docs.pages import ROOT, Block, blocks, coded, matches, read, rows, section

PAGE: Final = "docs/http-api.md"
TEXT: Final = read(PAGE)
SHOWN_ADDRESS: Final = "127.0.0.1:8080"
SECONDS: Final = 30
AT_ONCE: Final = 8
"""Examples that run at a time: most of them last as long as the demo's stream, 2.5 s, and do next to nothing."""


class Example(NamedTuple):
    """One command, and the output that its page shows below it."""

    page: str
    command: Block
    shown: Block

    def __str__(self) -> str:
        return f"{self.page}:{self.command.line}"


def examples(page: str) -> Iterator[Example]:
    """Yields every command of a page."""
    found = blocks(read(page))
    for block, below in pairwise([*found, Block("", "", "", 0)]):
        if block.language == "bash":
            assert below.language == "text", f"{page}:{block.line}: an example without its output"
            yield Example(page, block, below)


EXAMPLES: Final = [
    *examples(PAGE),
    *examples("README.md"),
    *examples("docs/clients.md"),
    *examples("docs/responses.md"),
]


# ---- one server, every command ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yields the address of `gai-fast serve` on a free port, without a configuration and without keys."""
    kept = {"PATH", "HOME", "PYTHONPATH", "GAI_FAST_NO_EXTENSIONS", "GAI_FAST_REQUIRE_EXTENSIONS"}
    with subprocess.Popen(
        [sys.executable, "-m", "gai_fast", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        cwd=tmp_path_factory.mktemp("server"),
        env={name: value for name, value in os.environ.items() if name in kept} | {"PYTHONUNBUFFERED": "1"},
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            banner = server.stdout.readline()
            found = re.search(r"http://(127\.0\.0\.1:\d+)", banner)
            assert found is not None, banner
            yield found[1]
        finally:
            server.terminate()
            assert server.wait(SECONDS) == 0


@pytest.fixture(scope="module")
def outputs(address: str, unavailable: Callable[[str], NoReturn]) -> dict[Example, str]:
    """Returns the output of each example; of a command that failed, its exit code and its errors."""
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            unavailable(program)

    def run(example: Example) -> tuple[Example, str]:
        script = f"set -e\n{example.command.text.replace(SHOWN_ADDRESS, address)}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=SECONDS, check=False)
        said = done.stdout.decode() if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.decode()}"
        return example, said.replace(address, SHOWN_ADDRESS)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(pool.map(run, EXAMPLES))


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_example_prints_what_the_page_shows(outputs: dict[Example, str], example: Example) -> None:
    printed = outputs[example]
    assert matches(example.shown.text, printed), f"{example} printed:\n{printed[:4000]}"


@pytest.mark.parametrize("program", [block for block in blocks(read("docs/clients.md")) if block.language == "python"])
def test_every_program_of_the_clients_page_runs(address: str, program: Block) -> None:
    code = program.text.replace(SHOWN_ADDRESS, address)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"One stormy night")


def test_the_session_of_the_responses_page_runs(address: str) -> None:
    [program] = [block for block in blocks(read("docs/responses.md")) if block.language == "python"]
    code = program.text.replace(SHOWN_ADDRESS, address)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=SECONDS, check=False)
    assert done.stdout.decode().split("\n") == ["My name is Ada. completed", "What is my name? completed", ""]


def test_every_chapter_but_the_list_of_routes_has_an_example() -> None:
    _, *chapters = re.split(r"^## ", TEXT, flags=re.M)
    assert [chapter.partition("\n")[0] for chapter in chapters if "```bash" not in chapter] == ["Routes"]


# ---- nothing is missing ----------------------------------------------------------------------------------------------


def test_every_route_stands_in_the_table_and_no_other() -> None:
    shown = {
        coding
        for row in [*rows(TEXT), *rows(section(read("docs/admin.md"), "Routes"))]
        for coding in coded(row[0])
        if re.match(r"(GET|HEAD|POST|PUT|PATCH|DELETE) /", coding)
    }
    assert {re.sub(r"\{\w+\}", "{}", route) for route in shown} == routes()


def routes() -> set[str]:
    """`METHOD path` of every route, without the names of parameters."""
    return {f"{route.method} {re.sub(r'{[^}]+}', '{}', route.path)}{route.operation.rest}" for route in ROUTES}


def test_every_field_of_a_request_stands_in_its_table() -> None:
    result = {name for row in rows(section(TEXT, "The native request")) for name in coded(row[0])}
    assert result == {*native.Request.__struct_fields__}


@pytest.mark.parametrize(
    ("label", "kind"),
    [("a tool", native.Tool), ("`response_format`", native.ResponseFormat), ("`reasoning`", native.Reasoning)],
)
def test_every_field_of_an_object_in_a_request_stands_in_its_row(label: str, kind: type[msgspec.Struct]) -> None:
    [row] = [row for row in rows(section(TEXT, "Tools and formats")) if row[0] == label]
    assert {*kind.__struct_fields__} <= {*coded(row[1])}


def test_every_role_and_every_part_has_a_row_with_its_fields() -> None:
    result = {row[0]: {*coded(row[1]), *coded(row[-1])} for row in rows(section(TEXT, "Messages"))}
    messages, user, assistant = map(get_args, (native.Message, native.UserPart, native.AssistantPart))
    kinds = {f"`{kind.__struct_config__.tag}`": kind for kind in (*messages, *user, *assistant)}
    assert {*kinds} == {*result} - {"role", "part"}
    for tag, kind in kinds.items():
        assert {*kind.__struct_fields__} - {"content"} <= result[tag], tag


def test_the_codes_are_those_of_the_package() -> None:
    result = [tuple(row[:3]) for row in rows(section(TEXT, "Codes"))[1:]]
    assert result == [
        (f"`{code}`", str(kind.default_status), "yes" if kind.default_temporary else "no")
        for code, kind in CLASSES.items()
    ]


def test_every_reason_stands_on_the_page() -> None:
    result = {reason for row in rows(section(TEXT, "Reasons")) for reason in coded(row[0])}
    makers = {"Error", *(kind.__name__ for kind in CLASSES.values())}
    used: dict[str, str] = {}
    for path in sorted((ROOT / "gai_fast").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            values = [keyword.value for keyword in node.keywords if keyword.arg == "reason" and name in makers]
            if name == "unavailable":  # of an adapter's answer: the reason is its first text
                values += [value for value in node.args if isinstance(value, ast.Constant)][:1]
            for each in (each for value in values for each in ast.walk(value)):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    used[each.value] = f"{path.relative_to(ROOT)}:{node.lineno}"
    assert {"validation", "event_too_large"} <= used.keys()
    assert {reason: place for reason, place in used.items() if reason not in result} == {}
