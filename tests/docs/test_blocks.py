"""Every fenced block of every page runs, or stands in `NOT_RUN` with the reason.

The pages of `IN_ORDER` are run here, each as a reader follows it: in one folder, from its first block to its last. The
blocks of other pages are run by the tests that `ELSEWHERE` names.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import pytest

from tests.docs.pages import ROOT, Block, blocks, matches, read
from tests.ports import free_port
from tests.waiting import SECONDS

PAGES: Final = [
    str(page.relative_to(ROOT))
    for page in (
        ROOT / "README.md",
        ROOT / "CHANGES.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *(ROOT / folder / "README.md" for folder in ("benchmarks", "ci", "examples", "programs", "tests")),
    )
]

SERVE: Final = Block("", "bash", "gai-fast serve", 0)
TWO_TARGETS: Final = """# gai-fast.toml
upstream = [
  {name = "east", provider = "openai-compatible", base_url = "http://127.0.0.1:9000/v1"},
  {name = "west", provider = "openai-compatible", base_url = "http://127.0.0.1:9000/v1"},
]
[[model]]
name = "fast"
targets = [{upstream = "east", id = "gpt-5-mini"}, {upstream = "west", id = "gpt-oss-20b"}]
"""
IN_ORDER: Final = {
    "docs/admin.md": (Block("", "toml", TWO_TARGETS, 0), SERVE),
    "docs/cli.md": (),
    "docs/grpc.md": (SERVE,),
    "docs/guards.md": (),
    "docs/installation.md": (),
    "docs/runs.md": (),
    "docs/production.md": (Block("", "bash", "cp -r $REPOSITORY/deploy .", 0),),
    "docs/tutorial.md": (),
}
"""The pages that are run here, with what their reader has done before, as blocks."""

ELSEWHERE: Final = {
    ("README.md", "bash"): "docs/test_http_api.py",
    ("README.md", "text"): "docs/test_http_api.py",
    ("README.md", "toml"): "test_readme.py",
    ("README.md", "python"): "test_readme.py",
    ("docs/clients.md", "bash"): "docs/test_http_api.py",
    ("docs/clients.md", "text"): "docs/test_http_api.py",
    ("docs/clients.md", "python"): "docs/test_http_api.py",
    ("docs/clients.md", "js"): "node/test_clients_page.py",
    ("docs/architecture/providers-and-formats.md", "python"): "test_adding_a_provider.py",
    ("docs/events.md", ""): "docs/test_events_page.py",
    ("docs/frameworks.md", "bash"): "docs/test_frameworks.py",
    ("docs/frameworks.md", "python"): "docs/test_frameworks.py",
    ("docs/grpc.md", "js"): "node/test_grpc_page.py",
    ("docs/http-api.md", "bash"): "docs/test_http_api.py",
    ("docs/http-api.md", "text"): "docs/test_http_api.py",
    ("docs/javascript.md", "javascript"): "docs/test_javascript_page.py",
    ("docs/javascript.md", "text"): "docs/test_javascript_page.py",
    ("docs/library.md", "python"): "docs/test_library.py",
    ("docs/library.md", "text"): "docs/test_library.py",
    ("docs/migrating.md", "python"): "docs/test_migrating.py",
    ("docs/providers.md", "python"): "integration/test_own_models.py",
    ("docs/responses.md", "bash"): "docs/test_http_api.py",
    ("docs/responses.md", "text"): "docs/test_http_api.py",
    ("docs/responses.md", "python"): "docs/test_http_api.py",
    ("docs/troubleshooting.md", "nginx"): "integration/test_behind_nginx.py",
    ("programs/README.md", "toml"): "docs/test_programs.py",
    ("docs/programs.md", "toml"): "agents/test_sessions.py",
    ("docs/programs.md", "bash"): "agents/test_sessions.py",
    **{
        (page, "toml"): "docs/test_configurations.py"
        for page in (
            "docs/balance.md",
            "docs/configuration.md",
            "docs/identity.md",
            "docs/issuers.md",
            "docs/limits.md",
            "docs/local-model.md",
            "docs/migrating.md",
            "docs/operations.md",
            "docs/pass-through.md",
            "docs/providers.md",
            "docs/troubleshooting.md",
        )
    },
}
"""The tests that run the blocks of a language on a page."""

LONG: Final = "takes minutes; run by hand"
DRAWING: Final = "a drawing, no code"
NOT_RUN: Final = {
    ("CONTRIBUTING.md", "make install"): "installs the package",
    ("docs/responses.md", "json"): "an item of a request; integration/test_approval_answers.py sends it",
    ("docs/admin.md", "curl -s https://gateway.example.com"): "asks a server with keys; integration/test_keys.py",
    ("README.md", "GAI_FAST_BUILD=pure"): "installs the package",
    ("README.md", "make serve"): "installs the package; integration/test_cli.py runs the command that it starts",
    ("README.md", ".venv/bin/gai-fast serve -c gai-fast.toml"): "asks providers; test_readme.py loads the file",
    ("benchmarks/README.md", 'make bench ARGS="--scenario burst-100 --only gai-fast --only Go"'): LONG,
    ("docs/architecture.md", "a client's request"): DRAWING,
    ("docs/architecture.md", "gai_fast/"): DRAWING,
    ("docs/architecture/net.md", "bytes of the upstream"): DRAWING,
    ("docs/architecture/net.md", "upstream → SharedCall → publication"): DRAWING,
    ("docs/architecture/net.md", "upstream → session → delivery → publication"): DRAWING,
    ("docs/architecture/server.md", "a client's connection"): DRAWING,
    ("docs/architecture/stores-and-ledger.md", "publication → stores/memory.py"): DRAWING,
    (
        "docs/performance.md",
        "gai-fast bench http://127.0.0.1:8080   ",
    ): "asks Groq; integration/test_bench.py",
    (
        "docs/performance.md",
        "gai-fast bench http://127.0.0.1:8080 --requests 1000",
    ): "integration/test_bench.py",
    ("docs/performance.md", "http://127.0.0.1:8080/api/v1/stream · gai"): "a table of figures, which differ each time",
    ("benchmarks/README.md", "# The first time, and after each change"): LONG,
    ("benchmarks/README.md", ".venv/bin/python -m benchmarks.instructions"): LONG,
    ("benchmarks/README.md", "make bench-others"): LONG,
    ("tests/README.md", "make soak   "): LONG,
    ("docs/cli.md", "curl -sN https://api.openai.com"): "asks OpenAI; integration/test_cli.py pipes an answer",
    ("docs/issuers.md", "client = OpenAI("): "needs an issuer; integration/test_issuers.py runs the SDK with its token",
    ("docs/guards.md", "from presidio_analyzer"): "needs its models; integration/test_judges.py asks functions",
    ("docs/production.md", "docker build"): "needs Docker and a cluster; test_deploy.py checks the files",
    ("docs/production.md", "docker compose"): "needs Docker; test_deploy.py checks the files",
    ("docs/production.md", "python3 -m venv /opt/gai-fast"): "changes the system; test_deploy.py checks the units",
    ("docs/production.md", 'pip install ".[seal]"'): "installs a package",
    ("docs/production.md", "[store.encryption]"): "parts of a file; docs/test_configurations.py loads it",
    ("docs/javascript.md", '<script type="module">'): "runs when a page is left",
    ("docs/javascript.md", '<p id="state"></p>'): "browser/test_playground.py shows the states",
    ("docs/operations.md", "scrape_configs:"): "a part of a file; integration/test_prometheus.py scrapes with a key",
    ("docs/limits.md", "x-ratelimit-limit-requests: 10"): "headers, which integration/test_limits.py compares",
    ("docs/local-model.md", "CMAKE_ARGS"): "compiles llama.cpp; `make test-local`",
    ("docs/local-model.md", "curl -N"): "asks the model; `make test-local`",
    ("docs/local-model.md", "make local"): "compiles llama.cpp; `make test-local`",
    ("docs/limits.md", '{"input_tokens": 1200'): "a part of an event; integration/test_money.py has whole ones",
    ("docs/pass-through.md", "from openai import"): "asks OpenAI; integration/test_pass_through.py runs the SDK",
    ("docs/tutorial.md", "python3 -m venv .venv"): "installs the package, which is installed where tests run",
    **{
        (
            "programs/README.md",
            language,
        ): "`make programs` installs them and runs the page; docs/test_programs.py"
        for language in ("bash", "js", "python")
    },
}
"""The blocks that cannot run, by their page and how they begin, and why; or by their language, all of it."""


def reasons(page: str, block: Block) -> list[tuple[str, str]]:
    """Returns the entries of `NOT_RUN` that a block has."""
    return [
        (named, begin)
        for named, begin in NOT_RUN
        if named == page and (begin == block.language or block.text.startswith(begin))
    ]


ALL: Final = [(page, block) for page in PAGES for block in blocks(read(page))]


# ---- no block is left out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_or_has_a_reason(page: str) -> None:
    """A fence that `blocks` cannot read, such as an indented one, would be left out unseen."""
    found = blocks(read(page))
    assert 2 * len(found) == len(re.findall(r"^ *(?:```|~~~)", read(page), re.M))
    left_out = [
        f"{page}:{block.line}"
        for block in found
        if page not in IN_ORDER and (page, block.language) not in ELSEWHERE and not reasons(page, block)
    ]
    assert left_out == []


def test_what_the_tables_name_is_there() -> None:
    kinds = {(page, block.language) for page, block in ALL}
    assert ELSEWHERE.keys() - kinds == set()
    assert NOT_RUN.keys() - {name for page, block in ALL for name in reasons(page, block)} == set()
    assert IN_ORDER.keys() - set(PAGES) == set()


@pytest.mark.parametrize(("page", "file"), sorted({(page, file) for (page, _), file in ELSEWHERE.items()}))
def test_the_test_that_runs_a_page_reads_it(page: str, file: str) -> None:
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert page in source or 'glob("*.md")' in source


# ---- pages that are run in order -------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A block that is run, and the output that the page shows below it, if it shows one."""

    block: Block
    shown: Block | None


RUNS: Final = {"bash", "python", "toml"}
MARK: Final = "\x1e"
LONGEST: Final = 4 * SECONDS
"""The longest that a page may take: the tutorial has some thirty commands, and takes 12 s on a quiet machine."""
SERVER: Final = re.compile(r"gai-fast (serve|mock|grpc)\b.*")
NAME: Final = re.compile(r"# ([\w.-]+\.toml)\n")
WAIT_FOR_SERVER: Final = """
until grep -qs 'http://' {name}.log; do kill -0 ${name} || {{ cat {name}.log; exit 1; }}; sleep 0.02; done
cat {name}.log
"""
TERMINAL: Final = """#!{python}
# Runs a command whose standard output is a terminal, as a reader's is; what it prints goes to ours.
import os, sys, termios

ours, theirs = os.openpty()
attributes = termios.tcgetattr(theirs)
attributes[1] &= ~termios.OPOST  # else a line feed becomes two characters
termios.tcsetattr(theirs, termios.TCSANOW, attributes)
if os.fork() == 0:
    os.close(theirs)
    try:
        while printed := os.read(ours, 65536):
            os.write(1, printed)
    finally:  # Linux ends a terminal by an error
        os._exit(0)
os.dup2(theirs, 1)
os.closerange(3, theirs + 1)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def steps(page: str) -> Iterator[Step]:
    """Yields the steps of a page that are run."""
    found = [
        block for block in blocks(read(page)) if (page, block.language) not in ELSEWHERE and not reasons(page, block)
    ]
    for number, block in enumerate(found):
        if block.language in RUNS:
            below = found[number + 1] if number + 1 < len(found) else None
            yield Step(block, below if below is not None and below.language == "text" else None)
        else:
            is_output = number > 0 and found[number - 1].language in RUNS and block.language == "text"
            assert is_output, f"{page}:{block.line}: neither a step nor the output of one"


def script(block: Block) -> str:
    """The shell's commands for a block: a server runs in the background, a program is piped, a file is written."""
    if block.language == "python":
        return f"python3 - <<'END OF BLOCK'\n{block.text}END OF BLOCK\n"
    if block.language == "toml":
        file = NAME.match(block.text)
        assert file, f"line {block.line}: the first line of a file is its name in a comment"
        return f"cat > {file[1]} <<'END OF BLOCK'\n{block.text}END OF BLOCK\n"
    server = SERVER.fullmatch(block.text.strip())
    if server is None:
        return block.text
    name = server[1]
    stop = f'[ -z "${{{name}:-}}" ] || {{ kill ${name}; wait ${name} || true; }}\n'
    # The shell makes the log in the background: what the page's server before said is removed first.
    start = f"rm -f {name}.log\nterminal {block.text.strip().rstrip('& ')} > {name}.log 2>&1 & {name}=$!\n"
    return stop + start + WAIT_FOR_SERVER.format(name=name)


class Run(NamedTuple):
    """The steps of a page that began, with what each printed, and the error of the last one if it failed."""

    printed: list[tuple[Step, str]]
    error: str


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], NoReturn]) -> dict[str, Run]:
    """All pages at a time: they mostly wait for streams."""
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            unavailable(program)
    folders = {page: tmp_path_factory.mktemp("page") for page in IN_ORDER}
    # Before the first page runs: a file that is open to be written cannot be executed, and a process that another
    # thread forks meanwhile has it open until it executes its own program.
    for folder in folders.values():
        make_programs(folder)
    with ThreadPoolExecutor(len(folders)) as pool:
        return dict(zip(folders, pool.map(follow, folders, folders.values()), strict=True))


def make_programs(folder: Path) -> None:
    """Makes the programs that a page in a folder runs: `gai-fast`, `python3`, and `terminal` for servers."""
    programs = folder / "programs"
    programs.mkdir()
    python = shlex.quote(sys.executable)
    (programs / "terminal").write_text(TERMINAL.format(python=sys.executable))
    (programs / "terminal").chmod(0o755)
    for name, command in (("gai-fast", f"{python} -m gai_fast"), ("python3", python)):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)


@pytest.mark.parametrize("page", IN_ORDER)
def test_the_steps_of_a_page_print_what_it_shows(runs: dict[str, Run], page: str) -> None:
    printed, error = runs[page]
    assert not error, f"{page}:{printed[-1][0].block.line if printed else 0}: {error}"
    assert len(printed) == len(list(steps(page)))
    for step, said in printed:
        if step.shown is not None:
            assert matches(step.shown.text, said), f"{page}:{step.block.line} printed:\n{said[:4000]}"


def follow(page: str, folder: Path) -> Run:
    """Runs a page in a folder that has its programs."""
    followed = list(steps(page))
    ports = {"8080": str(free_port()), "9000": str(free_port()), "50051": str(free_port())}
    parts = ["set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT", *map(script, IN_ORDER[page])]
    parts += [f"printf '{MARK}'\n{script(step.block)}" for step in followed]
    whole = "\n".join(parts)
    for shown, port in ports.items():
        whole = whole.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{port}")
    output, error = _run(whole, folder, ports)
    for shown, port in ports.items():
        output = output.replace(f"127.0.0.1:{port}", f"127.0.0.1:{shown}")
    return Run(list(zip(followed, output.split(MARK)[1:], strict=False)), error)


def _run(text: str, folder: Path, ports: dict[str, str]) -> tuple[str, str]:
    """Returns the output of the commands, and the error of the one that failed."""
    kept = {"PATH", "PYTHONPATH", "GAI_FAST_NO_EXTENSIONS", "GAI_FAST_REQUIRE_EXTENSIONS"}
    environment = {name: value for name, value in os.environ.items() if name in kept} | {
        "PATH": f"{folder / 'programs'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "REPOSITORY": str(ROOT),
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)),
        "GAI_FAST_PORT": ports["8080"],
        "GAI_FAST_MOCK_PORT": ports["9000"],
        "GAI_FAST_GRPC_PORT": ports["50051"],
    }
    with subprocess.Popen(
        ["bash", "-c", text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as shell:
        try:
            output, errors = shell.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            output, errors = shell.communicate()
            return output, f"not done within {LONGEST:.0f} s: {errors}"
    return output, f"exit code {shell.returncode}: {errors}" if shell.returncode else ""
