"""`[[guard]]`: which texts are held back, from the tables of the file, and from the lists that they name.

Owns what the keys of a table must not have together; `guard_keys` has the keys. Every mistake names guard and key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any, Final

from gai_fast.config.environment import Environment, secret_headers
from gai_fast.config.file import ConfigFile
from gai_fast.config.guard_keys import GUARD, NEEDED, REQUIRED_OF_GUARD, USES_OF, pattern, word
from gai_fast.config.limits import LIMITS
from gai_fast.config.problems import Problems, Value, meant, nearest, shortened, shown
from gai_fast.guards.limits import LIMITS as MATCHER
from gai_fast.model.settings import (
    JUDGES,
    KINDS,
    FunctionSettings,
    GuardAction,
    GuardSettings,
    JudgeSettings,
    UpstreamSettings,
)
from gai_fast.net.upstream.tls import TLSFileError, TLSFiles
from gai_fast.providers import get_provider
from gai_fast.providers.requests.routes import MODERATIONS
from gai_fast.runtime.files import open_file
from gai_fast.runtime.functions import FunctionError, import_function

CheckPattern = Callable[[str, bool], int]
"""Returns the positions of a pattern (`gai_fast.guards.syntax`), which is compared with normalized text or not. Its
`ValueError` says what is wrong, and what to write."""
Table = dict[str, Value]

_REPORTED: Final = 10
"""The most mistakes of one list that are reported: further ones mostly repeat the first."""
_PLAIN: Final[tuple[str, ...]] = ("on", "models", "keys", "category", "replacement", "normalize", "restore")
"""The keys whose values are those of `GuardSettings`."""
_OF_JUDGE: Final[tuple[str, ...]] = ("model", "threshold", "url", "timeout", "max_exposure")
"""The keys whose values are those of `JudgeSettings`."""


# ---- the file's tables ---------------------------------------------------------------------------------------------


def read_guards(file: ConfigFile, given: Sequence[Mapping[str, Any]], problems: Problems) -> list[Table]:
    """Reads the `[[guard]]` tables of a file, each by itself.

    Args:
        file: The file.
        given: The tables.
        problems: Collects mistakes.

    Returns:
        The given, valid keys of each table.
    """
    if len(given) > LIMITS.guard_tables:
        problems.add(
            file.where("guard", LIMITS.guard_tables), f"more than {LIMITS.guard_tables} [[guard]]: join some of them"
        )
    return [_table(file, each, index, problems) for index, each in enumerate(given)]


def _table(file: ConfigFile, given: Mapping[str, Any], index: int, problems: Problems) -> Table:
    table: Table = {}
    title = _title(given)
    for name, value in given.items():
        where = file.where("guard", index, name)
        if name not in GUARD:
            problems.add(where, f"unknown key {shown(name)} in {title}{nearest(name, GUARD)}")
            continue
        try:
            table[name] = Value(GUARD[name].read(value), where)
        except ValueError as problem:
            repeated = f", not {shown(value)}" if str(problem).startswith("must") and not GUARD[name].secret else ""
            problems.add(where, f"`{name}` in {title} {problem}{repeated}")
    misspelt = {meant(name, GUARD) for name in given if name not in GUARD}
    here = file.where("guard", index)
    for name, hint in REQUIRED_OF_GUARD.items():
        if name not in given and name not in misspelt:
            problems.add(here, f"`{name}` is missing in {title}: {hint}")
    if "use" in table:
        names, hint = NEEDED.get(table["use"].value, ((), ""))
        if names and not any(name in given or name in misspelt for name in names):
            problems.add(here, f"`{names[0]}` is missing in {title}: {hint}")
        _check_together(table, title, problems)
    return table


def _title(given: Mapping[str, Any]) -> str:
    """Returns the header of a table with the guard's name, if it has one."""
    name = given.get("name")
    return f"[[guard]] {shown(name)}" if isinstance(name, str) and name else "[[guard]]"


def _check_together(table: Table, title: str, problems: Problems) -> None:
    """Reports keys that do not go with the guard's `use` or with each other."""
    use = table["use"].value
    for name, value in table.items():
        uses = USES_OF.get(name, (use,))
        if use not in uses:
            those = ", ".join(f'"{each}"' for each in uses)
            problems.add(value.origin, f'`{name}` in {title} goes with use = {those}, not with "{use}"')
    masks = _action(table) == "mask"
    if use == "moderation" and masks:
        what = "must be stop or flag: a moderation does not say what to mask"
        problems.add(table["action"].origin, f"`action` in {title} {what}")
    elif use in JUDGES and masks and "max_exposure" in table and table["max_exposure"].value:
        what = 'must be 0 with action = "mask": what was sent is not masked any more'
        problems.add(table["max_exposure"].origin, f"`max_exposure` in {title} {what}")
    if use == "pii" and "restore" in table and table["restore"].value:
        if not masks:
            problems.add(table["restore"].origin, f'`restore` in {title} needs action = "mask"')
        elif "on" in table and "input" not in table["on"].value:
            problems.add(table["restore"].origin, f'`restore` in {title} needs "input" in `on`')


def _action(table: Table) -> GuardAction:
    default: GuardAction = "stop" if table["use"].value in JUDGES else "mask"
    action: GuardAction = table["action"].value if "action" in table else default
    return action


# ---- from tables to settings ---------------------------------------------------------------------------------------


class GuardBuilder:
    """Builds the guards of a configuration: reads their lists, and finds their upstreams and functions.

    Args:
        upstreams: The usable upstreams.
        named: The names of all upstreams; mistakes in them are already reported.
        environ: The environment.
        folder: The folder of relative paths, and the first in which functions are looked up.
        check_pattern: Checks a pattern.
        problems: Collects mistakes.
    """

    def __init__(
        self,
        upstreams: Mapping[str, UpstreamSettings],
        named: Sequence[str],
        environ: Environment,
        folder: Path,
        check_pattern: CheckPattern,
        problems: Problems,
    ) -> None:
        self._upstreams = upstreams
        self._named = named
        self._environ = environ
        self._folder = folder
        self._check_pattern = check_pattern
        self._problems = problems

    def build(self, tables: Sequence[Table]) -> tuple[GuardSettings, ...]:
        """Returns the guards in the order of the file. One with a mistake is left out, or lacks what is wrong."""
        firsts: dict[str, Value] = {}
        guards: list[GuardSettings] = []
        for table in tables[: LIMITS.guard_tables]:
            if "name" not in table or "use" not in table:
                continue
            name = table["name"]
            if firsts.setdefault(name.value, name) is not name:
                first = firsts[name.value].origin
                self._problems.add(name.origin, f"a second [[guard]] is named {shown(name.value)}, as at {first}")
            guards.append(self._guard(table))
        return tuple(guards)

    def _guard(self, table: Table) -> GuardSettings:
        name, use = table["name"].value, table["use"].value
        values = {key: table[key].value for key in _PLAIN if key in table}
        if use == "pii":
            values["kinds"] = table["kinds"].value if "kinds" in table else KINDS
        elif use == "patterns":
            values["patterns"] = self._patterns(table)
        elif use == "words":
            values["words"] = self._words(table)
        else:
            values["judge"] = self._judge(table)
        return GuardSettings(name, use, action=_action(table), **values)

    def _patterns(self, table: Table) -> tuple[str, ...]:
        is_normal = "normalize" in table and table["normalize"].value
        positions = 0
        found: list[str] = []
        mistakes: list[tuple[str, str]] = []
        for where, what, entry in self._entries(table, "patterns", pattern):
            try:
                positions += self._check_pattern(entry, is_normal)
                found.append(entry)
            except ValueError as problem:
                mistakes.append((where, f"{what}: {problem}"))
        self._report("patterns", table, mistakes)
        self._check_size("patterns", table, len(found), LIMITS.guard_patterns, positions)
        return tuple(found)

    def _words(self, table: Table) -> tuple[str, ...]:
        found = tuple([entry for _, _, entry in self._entries(table, "words", word)])
        self._check_size("words", table, len(found), LIMITS.guard_words, _tree_size(found))
        return found

    def _check_size(self, key: str, table: Table, count: int, most: int, positions: int) -> None:
        origin, title = self._of_list(key, table)
        if count > most:
            self._problems.add(origin, f"`{key}` in {title} has more than {most} entries, those of the file included")
        elif positions > MATCHER.positions:
            what = f"`{key}` in {title} has {positions} positions, and {MATCHER.positions} are allowed"
            self._problems.add(origin, f"{what}: make two guards of it")

    def _report(self, key: str, table: Table, mistakes: Sequence[tuple[str, str]]) -> None:
        for where, what in mistakes[:_REPORTED]:
            self._problems.add(where, what)
        if len(mistakes) > _REPORTED:
            origin, title = self._of_list(key, table)
            self._problems.add(origin, f"`{key}` in {title}: {len(mistakes) - _REPORTED} more mistakes")

    def _of_list(self, key: str, table: Table) -> tuple[str, str]:
        """Returns the place of a list, and the header of its table."""
        origin = next((table[name].origin for name in (f"{key}_file", key) if name in table), table["name"].origin)
        return origin, _title({"name": table["name"].value})

    def _entries(self, table: Table, key: str, check: Callable[[str], str]) -> list[tuple[str, str, str]]:
        """Returns the entries of a list, those of its file behind those of its table, each once.

        Args:
            table: The table of the guard.
            key: The list's key.
            check: Checks an entry by itself.

        Returns:
            The place of each entry, the beginning of a message about it, and the entry.
        """
        title = _title({"name": table["name"].value})
        found: dict[str, tuple[str, str, str]] = {}
        for number, entry in enumerate(table[key].value if key in table else (), 1):
            found[entry] = table[key].origin, f"`{key}` in {title}, entry {number}", entry
        name = f"{key}_file"
        if name not in table:
            return list(found.values())
        path, origin, what = self._folder / table[name].value, table[name].origin, f"`{name}` in {title}"
        mistakes: list[tuple[str, str]] = []
        try:
            lines = _lines(path)
        except OSError as problem:
            mistakes.append((origin, f"{what}: {path} cannot be read: {problem.strerror}"))
        except ValueError as problem:
            mistakes.append((origin, f"{what}: {path} {problem}"))
        else:
            for line, entry in lines:
                where = f"{path}:{line}"
                try:
                    found.setdefault(check(entry), (where, what, entry))
                except ValueError as problem:
                    mistakes.append((where, f"{what} {problem}"))
        self._report(key, table, mistakes)
        return list(found.values())

    def _judge(self, table: Table) -> JudgeSettings:
        title = _title({"name": table["name"].value})
        values: dict[str, Any] = {key: table[key].value for key in _OF_JUDGE if key in table}
        if "upstream" in table:
            values["upstream"] = self._upstream(table["upstream"], title)
        if "headers" in table:
            owner = f" in {title}"
            values["headers"] = secret_headers(table["headers"], self._environ, self._folder, self._problems, owner)
        if "ca_file" in table and "url" in table:
            values["ca_file"] = self._ca_file(table, title)
        if "python" in table:
            values["function"] = self._function(table["python"], title)
        by_default = "open" if _action(table) == "flag" else "closed"
        values["fails_open"] = (table["on_failure"].value if "on_failure" in table else by_default) == "open"
        return JudgeSettings(**values)

    def _upstream(self, given: Value, title: str) -> UpstreamSettings | None:
        upstream = self._upstreams.get(given.value)
        problem = ""
        if upstream is None:
            if given.value in self._named:
                return None  # its own mistake is reported
            problem = f"no [[upstream]] is named {shown(given.value)}{nearest(given.value, self._named)}"
        elif upstream.takes_credentials:
            problem = f'{shown(given.value)} has api_key = "caller", and a moderation is asked with a key of its own'
        elif upstream.identity is not None:
            problem = f"{shown(given.value)} has `{upstream.credential}`, and a moderation is asked with an `api_key`"
        elif get_provider(upstream.provider).routes.path(MODERATIONS) is None:
            problem = f"{shown(given.value)} is no server that has {MODERATIONS}"
        if problem:
            self._problems.add(given.origin, f"`upstream` in {title}: {problem}")
        return upstream

    def _ca_file(self, table: Table, title: str) -> str | None:
        """Returns the path of the authorities. They are read once, so that a mistake in them is found now."""
        path, origin = str(self._folder / table["ca_file"].value), table["ca_file"].origin
        if not table["url"].value.lower().startswith("https:"):
            self._problems.add(origin, f"`ca_file` in {title} needs a url that begins with https://")
            return None
        try:
            TLSFiles(path).context()
        except TLSFileError as problem:
            self._problems.add(origin, f"`ca_file` in {title}: {problem}")
        return path

    def _function(self, given: Value, title: str) -> FunctionSettings:
        """Returns the function of a judge. It is imported, so that a mistake is found now."""
        function = FunctionSettings(given.value, str(self._folder.resolve()))
        try:
            import_function(function.reference, Path(function.folder))
        except FunctionError as problem:
            what = f"`python` in {title} {shortened(str(problem))}"
            self._problems.add(given.origin, f"{what}; correct the name, or what it names")
        return function


def _lines(path: Path) -> list[tuple[int, str]]:
    """Returns the entries of a list, each with its line.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no list.
    """
    with open_file(path) as file:
        content = file.read(LIMITS.guard_list + 1)
    if len(content) > LIMITS.guard_list:
        raise ValueError(f"is larger than {LIMITS.guard_list} bytes")
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise ValueError(f"is not UTF-8 in line {line}") from None
    found = [(line, entry) for line, text in enumerate(lines, 1) if (entry := _without_comment(text))]
    if not found:
        raise ValueError("has no entry")
    return found


def _without_comment(line: str) -> str:
    """Returns the entry of a line, without blanks around it; empty if there is none.

    A `#` begins a comment at the line's beginning and behind a blank: `C#` is a word.
    """
    entry = line.strip()
    at = (
        0
        if entry.startswith("#")
        else min((found for found in map(entry.find, (" #", "\t#")) if found > 0), default=-1)
    )
    return entry if at < 0 else entry[:at].rstrip()


def _tree_size(words: Sequence[str]) -> int:
    """Returns the number of positions of words: beginnings that several have count once."""
    size, before = 0, ""
    for each in sorted(map(str.casefold, words)):
        size += len(each) - len(commonprefix((before, each)))  # noqa: RUF071  # characters count
        before = each
    return size
