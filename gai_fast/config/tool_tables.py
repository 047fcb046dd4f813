"""`[[tool_server]]` and `[[tool]]`: which tools the gateway may call, from the tables of the file.

Owns what the keys of a table must not have together, and what they name; `tool_keys` has the keys. Every mistake names
key and table. It must not know how a tool is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gai_fast.config.checks import REFERENCE
from gai_fast.config.environment import Environment, inherited_variables, secret_headers, secret_variables
from gai_fast.config.problems import Problems, Value, meant, shortened, shown
from gai_fast.config.tool_keys import NEEDED_OF_TOOLS, TOOL, TOOL_SERVER, WAY_OF, WAYS
from gai_fast.model.credentials import names_credential, passwords_in
from gai_fast.model.settings import (
    FunctionSettings,
    IdentitySettings,
    Secret,
    ToolServerSettings,
    ToolSettings,
)
from gai_fast.model.tool_rules import BETWEEN
from gai_fast.net.upstream.tls import TLSFileError, TLSFiles
from gai_fast.runtime.functions import FunctionError, import_function

Table = dict[str, Value]

_KEYS: Final = {"tool_server": TOOL_SERVER, "tool": TOOL}
_PLAIN: Final = ("tools", "approve", "idempotent", "connect_timeout", "timeout", "max_result", "max_calls", "session")
"""The keys whose values are those of the settings."""
_NO_ARGUMENTS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


def check_ways(section: str, given: Mapping[str, Any], table: Table, where: str, problems: Problems) -> None:
    """Reports a table that has none of its ways or both, and keys of the other way.

    Args:
        section: `tool_server` or `tool`.
        given: The table as it is given.
        table: Its valid keys.
        where: Its place.
        problems: Collects mistakes.
    """
    title = _title(section, table)
    ways = WAYS[section]
    chosen = [way for way in ways if way in given]
    misspelt = {meant(name, _KEYS[section]) for name in given if name not in _KEYS[section]}
    if not chosen and not misspelt & {*ways}:
        problems.add(where, f"`{ways[0]}` is missing in {title}: {NEEDED_OF_TOOLS[section]}")
    if len(chosen) > 1:
        origin = table[chosen[1]].origin if chosen[1] in table else where
        problems.add(origin, f"`{chosen[1]}` in {title} beside `{chosen[0]}`: it is one of them")
    elif chosen:
        for name, way in WAY_OF[section].items():
            if name in table and way != chosen[0]:
                problems.add(table[name].origin, f"`{name}` in {title} goes with `{way}`, not with `{chosen[0]}`")


def _plain(given: Value) -> frozenset[str]:
    """Returns the names whose values stand in the file and, by their names and forms, are no credentials."""
    return frozenset(
        name
        for name, text in given.value.items()
        if not REFERENCE.fullmatch(text) and not names_credential(name) and not passwords_in(text)
    )


def _title(section: str, table: Table) -> str:
    """Returns the header of a table with its name, if it has one."""
    return f"[[{section}]] {shown(table['name'].value)}" if "name" in table else f"[[{section}]]"


class ToolBuilder:
    """Builds the servers and the tools of a configuration. One with a mistake lacks what is wrong, or is left out.

    Args:
        environ: The environment.
        folder: The folder of relative paths, and the first in which functions are looked up.
        problems: Collects mistakes.
    """

    def __init__(self, environ: Environment, folder: Path, problems: Problems) -> None:
        self._environ = environ
        self._folder = folder
        self._problems = problems
        self._servers: Mapping[str, Table] = {}

    def servers(self, tables: Mapping[str, Table]) -> tuple[ToolServerSettings, ...]:
        """Returns the servers in the order of the file.

        Args:
            tables: The tables by name.
        """
        self._servers = tables
        return tuple(self._server(table) for table in tables.values())

    def tools(self, tables: Mapping[str, Table]) -> tuple[ToolSettings, ...]:
        """Returns the gateway's own tools in the order of the file. `servers` is called before.

        Args:
            tables: The tables by name.
        """
        for name, table in tables.items():
            self._check_name(name, table["name"].origin)
        return tuple(self._tool(table) for table in tables.values())

    def _check_name(self, name: str, origin: str) -> None:
        """Reports a name that may mean a server, or a tool of one."""
        if name in self._servers:
            first = self._servers[name]["name"].origin
            self._problems.add(origin, f"a [[tool]] is named {shown(name)}, as the [[tool_server]] at {first}")
        label, between, _ = name.partition(BETWEEN)
        if between and label in self._servers:
            what = f"`name` in [[tool]] must not begin with {label}{BETWEEN}: so models see the tools of {shown(label)}"
            self._problems.add(origin, f"{what}; choose another")

    def _server(self, table: Table) -> ToolServerSettings:
        title = _title("tool_server", table)
        values = self._values(table, title)
        if "auth_command" in table:
            values["identity"] = IdentitySettings(command=table["auth_command"].value)
            if any(name.lower() == "authorization" for name in (table["headers"].value if "headers" in table else ())):
                what = f"`headers` in {title} has authorization beside `auth_command`, which writes it"
                self._problems.add(table["headers"].origin, what)
        if "ca_file" in table and "url" in table:
            values["ca_file"] = self._ca_file(table, title)
        if "command" in table:
            values["command"] = table["command"].value
            values["inherited"] = inherited_variables(self._environ)
        if "env" in table:
            values["env"] = secret_variables(table["env"], self._environ, self._folder, self._problems, f" in {title}")
            values["plain"] = _plain(table["env"])
        return ToolServerSettings(table["name"].value, **values)

    def _tool(self, table: Table) -> ToolSettings:
        title = _title("tool", table)
        values: dict[str, Any] = {"parameters": _NO_ARGUMENTS}
        if "python" in table:
            values |= self._of_function(table["python"], table["name"].value, title)
        values |= {name: table[name].value for name in ("description", "parameters") if name in table}
        return ToolSettings(table["name"].value, **{**values, **self._values(table, title)})

    def _values(self, table: Table, title: str) -> dict[str, Any]:
        """Returns what servers and tools have alike."""
        values: dict[str, Any] = {name: table[name].value for name in _PLAIN if name in table}
        if "url" in table:
            values["url"] = Secret(table["url"].value)
        if "headers" in table:
            owner = f" in {title}"
            values["headers"] = secret_headers(table["headers"], self._environ, self._folder, self._problems, owner)
            values["plain"] = _plain(table["headers"])
        return values

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

    def _of_function(self, given: Value, table_name: str, title: str) -> dict[str, Any]:
        """Returns what a function says of itself. It is imported, so that a mistake is found now."""
        from gai_fast.net.toolbox.function_schema import read_function  # nothing of that folder without tools

        function = FunctionSettings(given.value, str(self._folder.resolve()))
        try:
            read = read_function(import_function(function.reference, Path(function.folder)))
        except FunctionError as problem:
            what = f"`python` in {title} {shortened(str(problem))}"
            self._problems.add(given.origin, f"{what}; correct the name, or what it names")
            return {}
        except ValueError as problem:
            self._problems.add(given.origin, f"`python` in {title}: {given.value} {shortened(str(problem))}")
            return {}
        if read.own_name not in (None, table_name):
            what = (
                f"{given.value} is named {shown(read.own_name)} by its decorator: name the table so, or take that out"
            )
            self._problems.add(given.origin, f"`python` in {title}: {what}")
        return {
            "function": function,
            "description": read.description,
            "parameters": read.schema,
            "approve": read.approve,
            "idempotent": read.idempotent,
        }
