"""programs/README.md, docs/programs.md and `make programs`: the page is what is run, and a wrong answer is seen.

The programs themselves are run by `make programs` alone: they are installed from the registries.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import gai_fast
from programs.__main__ import Row, exit_code, table
from programs.dialects import DIALECTS
from programs.environments import Environment
from programs.gateways import gateway
from programs.page import ADDRESS, KEY, PAGE, Block, Program, Unreadable, configuration, programs
from programs.running import Bench, Run, Verdict, changes, fault_of
from programs.script import RESULT, STORY, WEATHER, Answer, Asked, answer_to
from programs.upstream import Upstream
from tests.docs.pages import ROOT, coded, read, rows

TEXT = PAGE.read_text(encoding="utf-8")
CALL = Answer(tool="weather", arguments={"city": "Oslo"})


@pytest.mark.parametrize("program", programs(TEXT), ids=lambda program: f"{program.name}: {program.install}")
def test_the_blocks_of_a_program_are_whole(program: Program) -> None:
    for block in (program.text, program.tool):
        assert KEY in block.text
        if block.language == "python":
            compile(block.text, program.name, "exec")
    assert program.text.language == program.tool.language


def test_the_settings_of_each_program_are_those_of_its_blocks() -> None:
    names = set()
    for name, address, setting in rows(read("docs/programs.md"))[1:]:
        sections = [each for each in programs(TEXT) if each.name.startswith(name.partition(",")[0])]
        blocks = "\n".join(each.text.text for each in sections)
        assert all(code in blocks for cell in (address, setting) for code in coded(cell)), name
        names |= {each.name for each in sections}
    assert names == {each.name for each in programs(TEXT)}


def test_every_dialect_has_programs() -> None:
    blocks = "\n".join(program.text.text for program in programs(TEXT))
    for name in ("chat.completions", "responses.stream", "messages.stream", "/api/v1/chat", "format=agui", "claude -p"):
        assert name in blocks
    assert len({program.install for program in programs(TEXT)}) == len(programs(TEXT)) - 2, "the SDKs of two dialects"


@pytest.mark.parametrize(
    "page",
    [
        "## A\n```bash\npip install a\n```\n",
        f"## A\n```bash\nmake a\n```\n```python\n{ADDRESS}\n```\n```python\n{ADDRESS}\n```\n",
        f"## A\n```bash\npip install a\n```\n```python\n{ADDRESS}\n```\n```python\nelsewhere\n```\n",
        f"## A\n```bash\npip install a\n```\n```ruby\n{ADDRESS}\n```\n```python\n{ADDRESS}\n```\n",
        "## A\nnothing\n",
    ],
)
def test_a_section_that_could_not_be_run_is_a_fault(page: str) -> None:
    with pytest.raises(Unreadable, match=r"^A: "):
        programs(page)
    with pytest.raises(Unreadable, match="one configuration"):
        configuration(page)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("answer", [Answer(STORY), CALL], ids=["text", "tool"])
@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
def test_the_scripted_upstream_answers_as_a_provider_does(name: str, answer: Answer, whole: bool) -> None:
    dialect = DIALECTS[name]
    body = {"model": "fast", "stream_options": {"include_usage": True}}
    if whole:
        chunks, headers = [json.dumps(dialect.whole(answer, body, 1)).encode()], {"content-type": "application/json"}
    else:
        chunks, headers = dialect.frames(answer, body, 1), {"content-type": "text/event-stream"}
    events = list(gai_fast.decode(dialect.provider, chunks, headers=headers))
    assert [event for event in events if event["type"] in ("warning", "error")] == []
    result = gai_fast.collect(events)
    assert result.text == answer.text
    assert [(call.name, call.input) for call in result.tool_calls] == (
        [("weather", {"city": "Oslo"})] if answer.tool else []
    )
    assert result.finish_reason == ("tool_calls" if answer.tool else "stop")
    assert result.usage is not None
    assert (result.usage["input_tokens"], result.usage["output_tokens"]) == (21, 13)


REQUESTS: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": [{"role": "user", "content": "weather"}, {"role": "tool", "content": RESULT}],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    },
    "responses": {
        "input": [{"role": "user", "content": "weather"}, {"type": "function_call_output", "output": RESULT}],
        "tools": [{"type": "function", "name": "weather"}, {"type": "web_search"}],
    },
    "messages": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "weather"}, {"type": "tool_result", "content": RESULT}],
            }
        ],
        "tools": [{"name": "weather"}],
    },
}


@pytest.mark.parametrize("name", DIALECTS)
def test_the_scripted_upstream_reads_what_its_script_is_about(name: str) -> None:
    asked = DIALECTS[name].read(REQUESTS[name])
    assert asked == dataclasses.replace(asked, tools=["weather"], results=[RESULT])
    assert asked.said.startswith("weather")
    assert answer_to(asked) == Answer(WEATHER)
    assert answer_to(dataclasses.replace(asked, results=[])) == CALL
    assert answer_to(dataclasses.replace(asked, results=["7 °C"])).text != WEATHER
    assert answer_to(Asked("weather", [], [])) == answer_to(Asked("Hi", ["weather"], [])) == Answer(STORY)


def test_a_difference_is_a_fault() -> None:
    run = Run(f"{STORY}\nstop 13\n", "", [])
    assert fault_of(run, STORY) == fault_of(run, STORY, run) == ""
    assert fault_of(Run("", "exit code 1: why", []), STORY) == "exit code 1: why"
    assert fault_of(Run("Once", "", []), STORY) == "printed 'Once'"
    assert fault_of(Run(f"{STORY}\nlength 13\n", "", []), STORY, run) == "printed 'length 13', straight 'stop 13'"
    assert fault_of(Run(f"{STORY}\n", "", []), STORY, run) == "printed 'more or fewer lines', straight ''"


def test_changes_of_requests_are_named() -> None:
    old = {"model": "fast", "tools": [{"name": "a", "x": 1}]}
    new = {"model": "quick", "tools": [{"name": "a"}], "y": 1}
    assert changes([("chat", old)], [("chat", old)]) == []
    assert changes([("chat", old)], [("chat", new)]) == [
        "request with y",
        "request without tools[].x",
        "request's model differs",
    ]
    assert changes([("chat", old)], []) == ["0 requests for 1"]


def test_the_exit_code_tells_what_failed_and_where_all_is_required_what_is_missing() -> None:
    good = Row("a", "1", "3 of 3", "3 of 3", "nothing")
    bad = dataclasses.replace(good, failed=True)
    missing = Row("b", "", "", "", "not run: npm: No such file or directory", missing=True)
    assert [exit_code([good, each], requires_all=False) for each in (good, bad, missing)] == [0, 1, 0]
    assert exit_code([good, missing], requires_all=True) == 1
    assert table([good, missing]).splitlines()[-1] == f"| b       |         |        |        | {missing.differs} |"


ASK = """
import json, urllib.request
body = {"model": "fast", "messages": [{"role": "user", "content": "%s"}]}
headers = {"authorization": "Bearer my-gateway-key", "content-type": "application/json"}
url = "http://127.0.0.1:8080/v1/chat/completions"
request = urllib.request.Request(url, json.dumps(body).encode(), headers)
answer = json.load(urllib.request.urlopen(request))
print(answer["choices"][0]["message"]["content"])
"""


async def test_a_program_is_run_straight_and_through_a_gateway(tmp_path: Path) -> None:
    program = Program("urllib", "", Block("python", ASK % "Hi"), Block("python", ASK % "Weather?"))
    place = Environment((Path(sys.executable).parent,), None, "")
    async with (
        Upstream() as upstream,
        gateway(tmp_path, configuration(TEXT), DIALECTS["messages"], upstream.url) as running,
    ):
        text, tool = await Bench(upstream, {"messages": running}).judge(program, place)
    assert text == Verdict(runs=1, right=1)
    assert (tool.right, len(tool.faults)) == (0, 2), "it has no tool, so the upstream tells it a story"
    assert all(STORY[-20:] in fault for fault in tool.faults)


@pytest.mark.parametrize(
    "page", [PAGE, ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.stem
)
def test_no_block_writes_over_a_file_of_the_reader(page: Path) -> None:
    """A file in the reader's home, or one that a program names, may have settings: a block adds to it at most."""
    blocks = "\n".join(re.findall(r"^```(?:sh|bash)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M))
    assert re.findall(r"""(?<![>&])>\|?\s*["']?(?:~|\$).*""", blocks) == []
