"""`config/guards.py`: what a `[[guard]]` becomes, what its keys must not have together, and the lists that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gai_fast.config.file import ConfigFile
from gai_fast.config.guards import GuardBuilder, read_guards
from gai_fast.config.problems import Problems
from gai_fast.model.settings import (
    KINDS,
    FunctionSettings,
    GuardSettings,
    IdentitySettings,
    JudgeSettings,
    Secret,
    UpstreamSettings,
)
from tests.integration.certificates import Authority
from tests.limits import LIMITS
from tests.unit.config.folders import GUARD, UPSTREAM, Folder

UPSTREAMS = {
    "openai": UpstreamSettings("openai", "openai", "https://api.openai.com/v1"),
    "theirs": UpstreamSettings("theirs", "openai", "https://api.openai.com/v1", takes_credentials=True),
    "cloud": UpstreamSettings("cloud", "openai", "https://cloud.example/v1", identity=IdentitySettings(command=("a",))),
    "claude": UpstreamSettings("claude", "anthropic", "https://api.anthropic.com"),
    "mine": UpstreamSettings("mine", "python", "", function=FunctionSettings("mine:answer", "/")),
}
WORDS = '[[guard]]\nname = "names"\nuse = "words"\nwords = ["kestrel"]\n'
PATTERNS = '[[guard]]\nname = "secrets"\nuse = "patterns"\n'
PII = '[[guard]]\nname = "people"\nuse = "pii"\n'
POLICY = '[[guard]]\nname = "policy"\nuse = "moderation"\nupstream = "openai"\n'
HOOK = '[[guard]]\nname = "hook"\nuse = "http"\nurl = "https://policy.internal/check/"\n'
PYTHON = '[[guard]]\nname = "own"\nuse = "python"\npython = "guard_of_mine:check"\n'


def check(pattern: str, normal: bool) -> int:
    """Refuses one form, as the syntax of patterns does; `N` is a pattern that normalized text never has."""
    if "(?=" in pattern or (normal and pattern == "N"):
        raise ValueError("the look-ahead `(?=` at character 1: write what follows")
    return int(pattern[1:-1]) if pattern.startswith("{") else len(pattern)


class Place:
    """A folder with a configuration of guards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "guard_of_mine.py").write_text("def check(text):\n    return {'flagged': False}\nname = 1\n")

    def _build(self, text: str, environ: dict[str, str]) -> tuple[tuple[GuardSettings, ...], list[str]]:
        file = self.folder / "gai-fast.toml"
        file.write_text(text)
        problems = Problems()
        read = ConfigFile(file)
        tables = read_guards(read, read.tables["guard"], problems)
        named = [*UPSTREAMS, "broken"]
        builder = GuardBuilder(UPSTREAMS, named, environ, self.folder, check, problems)
        return builder.build(tables), [line.replace(f"{self.folder}/", "") for line in problems.lines]

    def guards(self, text: str, **environ: str) -> tuple[GuardSettings, ...]:
        guards, problems = self._build(text, environ)
        assert problems == []
        return guards

    def problems(self, text: str, **environ: str) -> list[str]:
        _, problems = self._build(text, environ)
        assert problems
        return problems


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class TestWhatAGuardBecomes:
    def test_matchers_mask_both_sides_for_everybody_by_default(self, place: Place) -> None:
        assert place.guards(f'{PATTERNS}patterns = ["sk-[a-z]+", "b"]\n{WORDS}{PII}') == (
            GuardSettings("secrets", "patterns", patterns=("sk-[a-z]+", "b")),
            GuardSettings("names", "words", words=("kestrel",)),
            GuardSettings("people", "pii", kinds=KINDS),
        )
        [guard] = place.guards(WORDS)
        assert (guard.on, guard.action, guard.models, guard.keys) == (("input", "output"), "mask", ("*",), ("*",))
        assert (guard.category_of(), guard.replacement_of(), guard.judge) == ("words", "[words]", None)

    def test_judges_stop_and_refuse_what_they_cannot_judge_by_default(self, place: Place) -> None:
        function = FunctionSettings("guard_of_mine:check", str(place.folder))
        assert place.guards(POLICY + HOOK + PYTHON) == (
            GuardSettings("policy", "moderation", action="stop", judge=JudgeSettings(upstream=UPSTREAMS["openai"])),
            GuardSettings("hook", "http", action="stop", judge=JudgeSettings(url="https://policy.internal/check/")),
            GuardSettings("own", "python", action="stop", judge=JudgeSettings(function=function)),
        )
        assert JudgeSettings() == JudgeSettings(timeout=1.0, max_exposure=0, fails_open=False)

    @pytest.mark.parametrize(
        ("lines", "is_open"),
        [
            ("", False),
            ('action = "flag"', True),
            ('action = "mask"', False),
            ('on_failure = "open"', True),
            ('action = "flag"\non_failure = "closed"', False),
        ],
    )
    def test_a_failure_passes_a_flag_and_nothing_else_by_default(self, place: Place, lines: str, is_open: bool) -> None:
        [guard] = place.guards(HOOK + lines)
        assert guard.judge is not None
        assert guard.judge.fails_open is is_open

    def test_every_key_is_read(self, place: Place) -> None:
        who = 'on = ["output"]\nmodels = ["fast", "openai/*"]\nkeys = ["web-?"]\ncategory = "a b"\n'
        [guard] = place.guards(f'{PII}{who}kinds = ["ip", "card"]\nreplacement = "<{{category}}>"\naction = "stop"')
        shared: dict[str, Any] = {"on": ("output",), "models": ("fast", "openai/*"), "keys": ("web-?",)}
        shared["category"] = "a b"
        assert guard == GuardSettings(
            "people", "pii", action="stop", kinds=("ip", "card"), replacement="<{category}>", **shared
        )
        [guard] = place.guards(PII + 'on = ["tool_result", "tool_input"]')
        assert guard.on == ("tool_result", "tool_input")
        [guard] = place.guards(PII + 'restore = true\non = ["input"]')
        assert guard == GuardSettings("people", "pii", on=("input",), kinds=KINDS, restore=True)
        [guard] = place.guards(WORDS + 'normalize = true\nreplacement = ""')
        assert guard == GuardSettings("names", "words", words=("kestrel",), normalize=True, replacement="")
        own = 'model = "omni"\nthreshold = {violence = 0.8, "self-harm/intent" = 1}\ntimeout = 2\nmax_exposure = 200\n'
        [guard] = place.guards(POLICY + own + who)
        judge = JudgeSettings(
            UPSTREAMS["openai"],
            "omni",
            {"violence": 0.8, "self-harm/intent": 1.0},
            timeout=2.0,
            max_exposure=200,
        )
        assert guard == GuardSettings("policy", "moderation", action="stop", judge=judge, **shared)

    def test_a_hook_has_secret_headers_and_authorities_of_its_own(self, place: Place) -> None:
        Authority(place.folder)
        (place.folder / "secret").write_text("t2\n")
        lines = 'headers = {authorization = "env:POLICY", "x-b" = "file:secret", c = "d"}\nca_file = "ca.pem"'
        [guard] = place.guards(HOOK + lines, POLICY="Bearer t1")
        assert guard.judge is not None
        assert {name: value.reveal() for name, value in guard.judge.headers.items()} == {
            "authorization": "Bearer t1",
            "x-b": "t2",
            "c": "d",
        }
        assert isinstance(guard.judge.headers["c"], Secret)
        assert guard.judge.ca_file == str(place.folder / "ca.pem")
        assert "t1" not in repr(guard)

    def test_the_category_of_a_match_is_the_given_one_else_what_was_found_else_the_use(self) -> None:
        assert GuardSettings("a", "pii").category_of("email") == "email"
        assert GuardSettings("a", "http").category_of() == "http"
        assert GuardSettings("a", "pii", category="person").category_of("email") == "person"
        assert GuardSettings("a", "pii", replacement="{category}{category}.").replacement_of("ip") == "ipip."


class TestWhatGuardsMustNotHave:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ('[[guard]]\nuse = "pii"', "1: `name` is missing in [[guard]]: what events and errors call it, such as"),
            ('[[guard]]\nname = "a"', "1: `use` is missing in [[guard]] 'a': one of patterns, words, pii, moderation"),
            (WORDS + WORDS, "6: a second [[guard]] is named 'names', as at gai-fast.toml:2"),
            ('[[guard]]\nname = "A"\nuse = "pii"', "2: `name` in [[guard]] 'A' must be 1 to 32 characters of a-z 0-9"),
            (
                WORDS.replace("words", "wrods", 1),
                "3: `use` in [[guard]] 'names' must be patterns, words, pii, moderati",
            ),
            (PATTERNS + "pattern = ['a']", "4: unknown key 'pattern' in [[guard]] 'secrets'; did you mean patterns?"),
            (PATTERNS, "1: `patterns` is missing in [[guard]] 'secrets': such as patterns = "),
            ('[[guard]]\nname = "a"\nuse = "words"', "1: `words` is missing in [[guard]] 'a': such as words = "),
            ('[[guard]]\nname = "a"\nuse = "http"', "1: `url` is missing in [[guard]] 'a': where texts are posted"),
            ('[[guard]]\nname = "a"\nuse = "python"', "1: `python` is missing in [[guard]] 'a': the function that is"),
            ('[[guard]]\nname = "a"\nuse = "moderation"', "1: `upstream` is missing in [[guard]] 'a': the name of an"),
            (
                WORDS + 'action = "replace"',
                "5: `action` in [[guard]] 'names' must be mask, stop or flag, not 'replace'",
            ),
            (WORDS + "on = []", "5: `on` in [[guard]] 'names' must have 1 to 4 entries, not []"),
            (WORDS + 'on = ["input", "input"]', "5: `on` in [[guard]] 'names' has an entry twice"),
            (
                WORDS + 'on = ["outputs"]',
                "5: `on` in [[guard]] 'names' has 'outputs'; known: input, output, tool_input, tool_re",
            ),
            (WORDS + "models = []", "5: `models` in [[guard]] 'names' must have 1 to 1000 entries, not []"),
            (WORDS + "keys = []", "5: `keys` in [[guard]] 'names' must have 1 to 1000 entries, not []"),
            (WORDS + 'keys = [" "]', "5: `keys` in [[guard]] 'names' must be a list of names of callers"),
            (WORDS + 'normalize = "yes"', "5: `normalize` in [[guard]] 'names' must be true or false, not 'yes'"),
            (WORDS + f'category = "{"x" * 65}"', "5: `category` in [[guard]] 'names' must have at most 64 printable"),
            (WORDS + 'replacement = "a\\nb"', "5: `replacement` in [[guard]] 'names' must be a string of at most 256 "),
            (PII + "kinds = []", "4: `kinds` in [[guard]] 'people' must have 1 to 9 entries, not []"),
            (
                PII + 'kinds = ["mail"]',
                "4: `kinds` in [[guard]] 'people' has the unknown kind 'mail'; did you mean email?",
            ),
            (PATTERNS + "patterns = []", "4: `patterns` in [[guard]] 'secrets' must have 1 to 10000 entries"),
            (PATTERNS + 'patterns = [""]', "4: `patterns` in [[guard]] 'secrets' has an empty entry"),
            (
                PATTERNS + f'patterns = ["{"x" * 1025}"]',
                "`patterns` in [[guard]] 'secrets' has an entry of more than 1024",
            ),
            (WORDS.replace("kestrel", "x" * 257), "4: `words` in [[guard]] 'names' has an entry of more than 256 char"),
            (
                PATTERNS + 'patterns = ["a", "(?=b)"]',
                "4: `patterns` in [[guard]] 'secrets', entry 2: the look-ahead `(?=` at character 1: write what",
            ),
            (
                WORDS + 'patterns = ["a"]',
                '`patterns` in [[guard]] \'names\' goes with use = "patterns", not with "words"',
            ),
            (
                PII + "normalize = true",
                '`normalize` in [[guard]] \'people\' goes with use = "patterns", "words", not with',
            ),
            (
                PII + "timeout = 1",
                '4: `timeout` in [[guard]] \'people\' goes with use = "moderation", "http", "python"',
            ),
            (
                PII + "max_exposure = 1",
                '4: `max_exposure` in [[guard]] \'people\' goes with use = "moderation", "http"',
            ),
            (
                PII + 'on_failure = "open"',
                '4: `on_failure` in [[guard]] \'people\' goes with use = "moderation", "http"',
            ),
            (
                HOOK + 'upstream = "openai"',
                "5: `upstream` in [[guard]] 'hook' goes with use = \"moderation\", not with",
            ),
            (HOOK + "restore = true", '5: `restore` in [[guard]] \'hook\' goes with use = "pii", not with "http"'),
            (POLICY + 'replacement = "x"', '`replacement` in [[guard]] \'policy\' goes with use = "patterns", "words"'),
            (
                POLICY + 'action = "mask"',
                "5: `action` in [[guard]] 'policy' must be stop or flag: a moderation does not",
            ),
            (
                HOOK + 'action = "mask"\nmax_exposure = 1',
                "6: `max_exposure` in [[guard]] 'hook' must be 0 with action = \"mask\": what was sent is not masked",
            ),
            (PII + 'restore = true\naction = "flag"', "4: `restore` in [[guard]] 'people' needs action = \"mask\""),
            (PII + 'restore = true\non = ["output"]', "4: `restore` in [[guard]] 'people' needs \"input\" in `on`"),
            (POLICY + "threshold = {}", "5: `threshold` in [[guard]] 'policy' must be a table of 1 to 64 categories"),
            (
                POLICY + "threshold = {violence = 1.5}",
                "5: `threshold` in [[guard]] 'policy' has a score for 'violence' that must be a number from 0 to 1",
            ),
            (POLICY + "threshold = {a = true}", "has a score for 'a' that must be a number from 0 to 1, not true"),
            (
                POLICY + "timeout = 0",
                "5: `timeout` in [[guard]] 'policy' must be seconds, more than 0, at most 10000000",
            ),
            (
                POLICY + "max_exposure = 65537",
                "5: `max_exposure` in [[guard]] 'policy' must be a whole number, 0 to 65536",
            ),
            (
                POLICY + 'on_failure = "shut"',
                "5: `on_failure` in [[guard]] 'policy' must be closed or open, not 'shut'",
            ),
            (
                POLICY.replace("openai", "opnai"),
                "4: `upstream` in [[guard]] 'policy': no [[upstream]] is named 'opnai'; did",
            ),
            (POLICY.replace("openai", "theirs"), "`upstream` in [[guard]] 'policy': 'theirs' has api_key = \"caller\""),
            (
                POLICY.replace("openai", "cloud"),
                "4: `upstream` in [[guard]] 'policy': 'cloud' has `auth_command`, and a mod",
            ),
            (
                POLICY.replace("openai", "mine"),
                "`upstream` in [[guard]] 'policy': 'mine' is no server that has /v1/moder",
            ),
            (
                POLICY.replace("openai", "claude"),
                "`upstream` in [[guard]] 'policy': 'claude' is no server that has /v1",
            ),
            (HOOK.replace("https", "ftp"), "4: `url` in [[guard]] 'hook' must begin with http:// or https://"),
            (
                HOOK.replace("policy.internal", "169.254.169.254"),
                "`url` in [[guard]] 'hook' must not be a link-local or",
            ),
            (
                HOOK + 'headers = {host = "a"}',
                "5: `headers` in [[guard]] 'hook' must not set host: the gateway writes it",
            ),
            (
                HOOK + 'headers = {a = "env:NONE"}',
                "5: `headers` in [[guard]] 'hook': the environment variable NONE is not",
            ),
            (HOOK + 'ca_file = "none.pem"', "5: `ca_file` in [[guard]] 'hook': "),
            (
                HOOK.replace("https", "http") + 'ca_file = "a"',
                "5: `ca_file` in [[guard]] 'hook' needs a url that begins",
            ),
            (PYTHON.replace(":check", ""), "4: `python` in [[guard]] 'own' must be \"module:function\", such as"),
            (
                PYTHON.replace(":check", ":chek"),
                "`python` in [[guard]] 'own' names chek, which guard_of_mine does not h",
            ),
            (
                PYTHON.replace(":check", ":name"),
                "`python` in [[guard]] 'own' names name of guard_of_mine, which is no fu",
            ),
            (
                PYTHON.replace("guard_of_mine", "none_of_mine"),
                "`python` in [[guard]] 'own' names the module none_of_mine, ",
            ),
            (
                PATTERNS + 'patterns_file = "none"',
                "4: `patterns_file` in [[guard]] 'secrets': none cannot be read: No suc",
            ),
        ],
    )
    def test_each_mistake_is_one_line_that_names_guard_and_key(self, place: Place, text: str, problem: str) -> None:
        [message] = place.problems(text)
        assert message.startswith("gai-fast.toml:")
        assert problem in message.removeprefix("gai-fast.toml:")
        assert message.isprintable()

    def test_a_mistake_of_an_upstream_is_not_reported_again(self, place: Place) -> None:
        [guard] = place.guards(POLICY.replace("openai", "broken"))
        assert guard.judge == JudgeSettings()

    def test_a_secret_url_and_the_words_are_not_repeated(self, place: Place) -> None:
        for text in (
            HOOK.replace("policy", "user:sk-canary@policy"),
            HOOK.replace("check/", "check?key=sk-canary"),
            WORDS.replace('"kestrel"', '"sk-canary", 1'),
            WORDS.replace("kestrel", "sk-canary" * 40),
            HOOK + 'headers = {"x" = "sk-canary\\n"}',
        ):
            assert "canary" not in "".join(place.problems(text))

    def test_guards_have_a_bound(self, place: Place) -> None:
        text = "".join(WORDS.replace("names", f"g{number}") for number in range(LIMITS.guard_tables))
        assert len(place.guards(text)) == LIMITS.guard_tables == 32
        [message] = place.problems(text + WORDS)
        assert message == "gai-fast.toml:129: more than 32 [[guard]]: join some of them"


class TestLists:
    def test_a_list_has_an_entry_a_line_beside_those_of_its_table(self, place: Place) -> None:
        lines = [
            "# names",
            "",
            "kestrel",
            "  two words \t",
            "C#  # the language",
            "a#b",
            "\t# end",
            "kestrel",
            "Käse\r",
        ]
        (place.folder / "words.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
        [guard] = place.guards(WORDS.replace("kestrel", "own") + 'words_file = "words.txt"')
        assert guard.words == ("own", "kestrel", "two words", "C#", "a#b", "Käse")
        (place.folder / "patterns.txt").write_text("sk-[a-z]{3}\n#x\n")
        [guard] = place.guards(PATTERNS + f'patterns_file = "{place.folder}/patterns.txt"')
        assert guard.patterns == ("sk-[a-z]{3}",)

    def test_it_is_read_each_time(self, place: Place) -> None:
        for word in ("one", "two"):
            (place.folder / "w").write_text(word)
            [guard] = place.guards(WORDS + 'words_file = "w"')
            assert guard.words == ("kestrel", word)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"# only\n\n", "gai-fast.toml:4: `patterns_file` in [[guard]] 'secrets': list has no entry"),
            (b"a\n\xff", "gai-fast.toml:4: `patterns_file` in [[guard]] 'secrets': list is not UTF-8 in line 2"),
            (b"a\n(?=b)", "list:2: `patterns_file` in [[guard]] 'secrets': the look-ahead `(?=` at character 1: wr"),
            (b"a" * 1025, "list:1: `patterns_file` in [[guard]] 'secrets' has an entry of more than 1024 characters"),
            (
                b"#" * (LIMITS.guard_list + 1),
                "`patterns_file` in [[guard]] 'secrets': list is larger than 16777216 byt",
            ),
        ],
    )
    def test_a_mistake_in_it_is_named_with_its_line(self, place: Place, content: bytes, problem: str) -> None:
        (place.folder / "list").write_bytes(content)
        [message] = place.problems(PATTERNS + 'patterns_file = "list"')
        assert problem in message

    def test_a_folder_is_no_list(self, place: Place) -> None:
        [message] = place.problems(PATTERNS + 'patterns_file = "."')
        assert message.endswith(("cannot be read: not a regular file", "Is a directory"))

    def test_some_of_many_mistakes_are_reported(self, place: Place) -> None:
        (place.folder / "list").write_text("\n".join(f"(?=a{number})" for number in range(30)))
        messages = place.problems(PATTERNS + 'patterns_file = "list"')
        assert "gai-fast.toml:4: `patterns` in [[guard]] 'secrets': 20 more mistakes" in messages
        assert len(messages) == 11

    def test_its_entries_and_those_of_the_table_have_one_bound(self, place: Place) -> None:
        (place.folder / "list").write_text("\n".join(map(str, range(LIMITS.guard_patterns))))
        assert len(place.guards(PATTERNS + 'patterns_file = "list"')[0].patterns) == LIMITS.guard_patterns == 10_000
        [message] = place.problems(PATTERNS + 'patterns = ["x"]\npatterns_file = "list"')
        assert message.endswith(
            "`patterns` in [[guard]] 'secrets' has more than 10000 entries, those of the file included"
        )
        (place.folder / "list").write_text("\n".join(f"w{number}" for number in range(LIMITS.guard_words)))
        [message] = place.problems(WORDS + 'words_file = "list"')
        assert "has more than 100000 entries" in message

    def test_their_positions_have_a_bound(self, place: Place) -> None:
        assert place.guards(PATTERNS + 'patterns = ["{499999}", "a"]')
        [message] = place.problems(PATTERNS + 'patterns = ["{499999}", "ab"]')
        assert message == (
            "gai-fast.toml:4: `patterns` in [[guard]] 'secrets' has 500001 positions, and 500000 are allowed: make two "
            "guards of it"
        )

    def test_beginnings_that_words_share_count_once(self, place: Place) -> None:
        shared = "x" * 248
        (place.folder / "list").write_text("\n".join(f"{shared}{number:04}" for number in range(9_000)))
        assert len(place.guards(WORDS + 'words_file = "list"')[0].words) == 9_001
        (place.folder / "list").write_text("\n".join(f"{number:04}{shared}" for number in range(9_000)))
        [message] = place.problems(WORDS + 'words_file = "list"')
        assert message.startswith("gai-fast.toml:5: `words` in [[guard]] 'names' has 22")
        assert " positions, and 500000 are allowed" in message

    def test_a_pattern_is_checked_as_it_is_compared(self, place: Place) -> None:
        assert place.guards(PATTERNS + 'patterns = ["N"]')
        assert place.problems(PATTERNS + 'patterns = ["N"]\nnormalize = true')


class TestTheFile:
    def test_guards_are_read_from_it(self, folder: Folder) -> None:
        text = f"{UPSTREAM}{GUARD}{POLICY.replace('openai', 'main')}"
        loaded = folder.read(text)
        guards = loaded.settings.guards
        assert [each.name for each in guards] == [table["name"].value for table in loaded.guards] == ["names", "policy"]
        assert guards[1].judge is not None
        assert guards[1].judge.upstream is loaded.settings.upstreams["main"]
        assert folder.read("").settings.guards == ()

    def test_the_syntax_of_patterns_is_checked(self, folder: Folder) -> None:
        [message] = folder.problems(PATTERNS + 'patterns = ["a", "a[^c]*d"]')
        assert message.startswith("gai-fast.toml:4: `patterns` in [[guard]] 'secrets', entry 2: `[^c]*`")

    def test_a_mistake_is_named_with_others(self, folder: Folder) -> None:
        messages = folder.problems(f"{GUARD}on = []\n[server]\nprot = 1\n")
        assert [each.partition(": ")[0] for each in messages] == ["gai-fast.toml:5", "gai-fast.toml:7"]
        [message] = folder.problems("[guard]\n")
        assert "[guard] must be [[guard]]" in message
        [message] = folder.problems("", {"GAI_FAST_GUARD__NAME": "a"})
        assert message == "GAI_FAST_GUARD__NAME: [[guard]] is set in the file only"
