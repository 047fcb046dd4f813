"""`gai-fast guard test`: what guards find in a text, and what passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

GUARDS = """
[[guard]]
name = "secrets"
use = "patterns"
patterns = ["sk-[a-z]{4,}"]
category = "secret"
models = ["none"]

[[guard]]
name = "people"
use = "pii"
kinds = ["email"]
restore = true

[[guard]]
name = "names"
use = "words"
words = ["kestrel"]
action = "stop"
on = ["output"]

[[guard]]
name = "watch"
use = "words"
words = ["secret"]
action = "flag"
on = ["output"]
"""
JUDGE = """
[[guard]]
name = "own"
use = "python"
python = "policy_of_test:check"
"""
POLICY = """
def check(asked):
    text = asked["text"]
    if "fail" in text:
        raise ValueError("no")
    at = text.find("bad")
    spans = [[at, at + 3]] if at >= 0 and "whole" not in text else []
    return {"flagged": at >= 0, "category": "rude", "spans": spans}
"""


@pytest.fixture(autouse=True)
def configuration(folder: Path) -> None:
    (folder / "gai-fast.toml").write_text(GUARDS)


def tried(run: Run, text: str, *arguments: str) -> tuple[list[dict[str, Any]], str]:
    result = run("guard", "test", "--json", *arguments, input=text)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert list(document) == ["matches", "text"]
    return document["matches"], document["text"]


def test_each_match_is_printed_and_what_passes(run: Run) -> None:
    result = run("guard", "test", input="a sk-abcd secret\n")
    assert (result.exit_code, result.stdout) == (
        0,
        "secrets  secret  2-9  mask\nwatch  words  3-9  flag\nwatch  words  11-17  flag\n\na [secret] secret\n",
    )
    assert run("guard", "test", input="nothing").stdout == "nothing\n"
    assert run("guard", "test", input="").stdout == "\n"


def test_json_has_matches_and_text(run: Run) -> None:
    match = {"guard": "secrets", "category": "secret", "from": 2, "to": 9, "action": "mask"}
    assert tried(run, "é sk-abcd\r\n", "--guard", "secrets") == ([match], "é [secret]\r\n")


def test_a_stop_ends_an_answer_before_its_match(run: Run) -> None:
    matches, text = tried(run, "a Kestrel sk-abcd", "--guard", "names")
    assert ([each["from"] for each in matches], text) == ([2], "a ")
    matches, text = tried(run, "sk-abcd a Kestrel b", "--on", "output")
    assert [each["guard"] for each in matches] == ["secrets", "names", "watch"]
    assert text == "[secret] a "


def test_own_words_are_placeholders_on_input_alone(run: Run) -> None:
    text = "to a@b.example, c@d.example, a@b.example and <EMAIL_1>"
    assert tried(run, text, "--on", "input")[1] == "to <EMAIL_2>, <EMAIL_3>, <EMAIL_2> and <EMAIL_1>"
    assert tried(run, text, "--on", "output")[1] == "to [email], [email], [email] and <EMAIL_1>"


def test_a_guard_that_does_not_see_the_side_is_named(run: Run) -> None:
    result = run("guard", "test", "--guard", "names", "--on", "input", input="kestrel")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "kestrel\n", "guard names does not see input\n")


def test_an_unknown_guard_is_an_error(run: Run, folder: Path) -> None:
    result = run("guard", "test", "--guard", "secret", input="a")
    assert (result.exit_code, result.output) == (
        2,
        "error: no [[guard]] is named 'secret'; did you mean secrets?\n",
    )
    (folder / "gai-fast.toml").write_text("")
    result = run("guard", "test", input="a")
    assert (result.exit_code, result.output) == (
        2,
        "error: there is no [[guard]]: name a configuration that has one by --config\n",
    )
    (folder / "gai-fast.toml").write_text(GUARDS.replace("sk-[a-z]{4,}", "^a"))
    assert run("guard", "test", input="a").exit_code == 2


class TestJudges:
    @pytest.fixture(autouse=True)
    def judge(self, folder: Path) -> None:
        (folder / "policy_of_test.py").write_text(POLICY)
        (folder / "gai-fast.toml").write_text(GUARDS + JUDGE)

    def judged(self, run: Run, folder: Path, lines: str, text: str, *arguments: str) -> tuple[list[Any], str]:
        (folder / "gai-fast.toml").write_text(GUARDS + JUDGE + lines)
        return tried(run, text, *arguments)

    def test_a_judge_gets_what_the_others_let_through(self, run: Run, folder: Path) -> None:
        matches, text = self.judged(run, folder, 'action = "mask"', "sk-abcd is bad, yes")
        assert matches[-1] == {"guard": "own", "category": "rude", "from": 12, "to": 15, "action": "mask"}
        assert text == "[secret] is [rude], yes"
        assert self.judged(run, folder, 'action = "mask"', "whole bad")[1] == "[rude]"

    def test_a_judge_stops_or_flags(self, run: Run, folder: Path) -> None:
        assert self.judged(run, folder, "", "it is bad, yes")[1] == "it is "
        assert self.judged(run, folder, "", "it is bad, yes", "--on", "input")[1] == ""
        matches, text = self.judged(run, folder, 'action = "flag"', "it is bad, yes")
        assert (len(matches), text) == (1, "it is bad, yes")
        assert self.judged(run, folder, "", "it is good") == ([], "it is good")

    @pytest.mark.parametrize(("lines", "passed"), [("", ""), ('on_failure = "open"', "fail")])
    def test_a_judge_that_fails_is_an_exit_code(self, run: Run, folder: Path, lines: str, passed: str) -> None:
        (folder / "gai-fast.toml").write_text(GUARDS + JUDGE + lines)
        result = run("guard", "test", "--json", input="fail")
        assert (result.exit_code, json.loads(result.stdout)) == (1, {"matches": [], "text": passed})
        assert result.stderr.startswith("guard own: ")
