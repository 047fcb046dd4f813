"""The rules of docs/architecture.md, enforced: imports between folders, homes of decisions, what every module has.

They are read from the sources with `ast`, so that no module has to be imported to be checked.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import gai_fast
from gai_fast.formats import FORMATS, get_format
from gai_fast.processors import PROCESSORS
from gai_fast.providers import PROVIDERS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gai_fast"

# What the modules of a folder must not touch: they get time, bytes and ids handed in.
FORBIDDEN = {
    "model": {"asyncio", "time", "os"},
    "kernels": {"asyncio", "logging", "os", "time", "socket"},
    "core": {"asyncio", "socket", "httptools", "time", "os"},
    "providers": {"asyncio", "socket", "httptools", "time", "os"},
    "formats": {"asyncio", "socket", "httptools", "time", "os"},
    "processors": {"asyncio", "socket", "httptools", "time", "os"},
    "guards": {"asyncio", "socket", "httptools", "time", "os"},
}
LARGEST_FOLDER = 20
LARGER_FOLDERS: dict[str, str] = {}
"""Folders with more modules, each with its reason."""
"""The most modules of a folder; the root has three."""
USUAL_CLASS = {"lines": 700, "lines with its base": 1000, "methods": 45, "attributes": 26}
"""What a reader remembers of a class. A larger one is no fault: it stands in the table below with its reason."""
LARGER_CLASSES = {
    "net.upstream.connection_pool:ConnectionPool": "its figures are attributes, read by the scrape of metrics",
    "formats.messages.stream:Messages": "its attributes are the state of one message, block by block",
    "net.stream.session:Session": "its methods are what the relay, the attempts and the two lanes call on a stream",
    "net.runs.driver:RunDriver": "each method is something that happens to a run; what is done has parts",
    "net.engine.engine:Engine": "its attributes are the parts of a process that its streams share",
    "core.relay:Relay": "each method is something that happens to a stream; its base has what its client gets of it",
    "core.legal_stream:LegalStream": "one method for each kind of event, most of them of a few lines",
    "stores.store:Store": "one method for each thing that a process asks of its logs, most of them of a few lines",
    "stores.sealed:SealedBackend": "one method for each of a backend's, most of them calls of the inner one",
    "server.pass_through.transfer:Transfer": "as a session for a stream: attempts, response and figures of one",
}
"""Classes that are larger, each with the reason why it is one class."""
SHARED_CLASSES = {
    "Limits": "the limits of a folder, in its `limits.py`",
    "EventResponse": "a web framework's response that sends a stream: a class for each framework, in its module",
}
"""Names of public classes that several modules define, each with its one meaning."""
BODIES = "server.admin.bodies"
"""Its classes have the names that the schemas of `/openapi.json` have for clients."""
SWITCH = "kernels"
"""The one module of the kernels that reads the environment, and the only way to them."""

ENVIRONMENT = {SWITCH, "config.environment"}
# The modules in which a bug ends, so that it harms nothing else.
CATCHES_ALL = {
    "core.relay",  # a part of a stream: one stream
    "net.stream.session",  # the code that drives a stream: one stream
    "net.stream.intake",  # a read: one stream
    "net.engine.engine",  # the start and the figures of a stream: one stream; raised again
    "net.engine.durable",  # the start of a stream: its log ends; raised again as an error
    "net.engine.written_exchange",  # a request that is written: one stream
    "net.engine.targets",  # an adapter that builds a request: one stream
    "net.upstream.connection",  # a read: one exchange
    "net.upstream.pool",  # a connect: one exchange
    "net.upstream.connection_pool",  # a request that is given a connection: one exchange
    "net.judges.functions",  # a user's function: its text is not judged
    "net.toolbox.function_tool",  # a user's function: the result of its call
    "net.logs.cursor",  # one reader of a log
    "net.logs.follower",  # one follower
    "net.logs.whole_follower",  # one follower
    "net.stream.callbacks",  # a user's callback: the stream goes on
    "net.stream.metrics_sinks",  # a user's sink: the stream goes on
    "library.own_models",  # a user's function: its client gets an error
    "library.sdk_streams",  # a library's stream: its failure is an event; raised again if it is a bug
    "grpc.service",  # a call: INTERNAL
    "integrations._body",  # a user's source: its client gets an error
    "runtime.functions",  # a user's module while it is imported: its name cannot be used
    "runtime.thread_pool",  # a user's function in a thread: raised again, where it was called
    "runtime.threads",  # a user's source in a thread: raised again, where its item was asked for
    "server.edge.accepted_transport",  # the making of a client's connection: that connection
    "server.application",  # a handler: 500
    "server.pass_through.transfer",  # a request that is passed through: an answer
    "server.lanes.lane",  # a handler: 500
    "server.routes.router",  # a handler: 500
    "server.requests.pending",  # an answer that waits for another process: 500
    "server.websocket.session",  # a message of a WebSocket: it is closed with 1011
    "server.workers.supervisor",  # one worker: the others go on
    "server.workers.worker",  # a message of the supervisor: the worker goes on
    "stores.journal",  # copies of some streams: they are given up
    "stores.store",  # the lease, the sweep: they are tried again
    "stores.messages",  # one message about a stream: the others are handled
    "stores.sqlite",  # a call that shares its transaction: raised again, by that call alone
    "ledger.shared",  # an exchange of limits: requests are treated as while the store fails
}

KINDS = ("providers", "formats", "processors")
WINGS = {"answers", "requests", "chat", "responses", "messages", "generate", "sdk"}
"""The folders of what providers share: in all dialects, and in one."""

# Where a provider's name may stand, beside `providers/` and `formats/`.
ROUTES = {"server.routes.table", "server.requests.kinds.stream_routes"}
WORDS = {"python"}
"""Providers' names that are also words: of a key of the configuration, a language, an implementation."""
NAMED = {
    "config.resolution": {"demo"},
    "model.settings": {"demo"},
    "config.keys": {"demo"},
    "cli.mock.dialects": {"openai", "anthropic", "gemini"},
}

COMPILED = (ROOT / "building/compiled.txt").read_text()

# How many bytes, tokens or milliseconds is a question for `limits.py`.
LARGEST_LITERAL = 1024
WITHOUT_NUMBERS = {
    "kernels", "core", "providers", "formats", "processors", "guards", "net", "stores", "otel", "ledger",
}  # fmt: skip


@dataclass(frozen=True)
class Module:
    """One of our sources; `name` is without `gai_fast.`, and empty for the package itself."""

    name: str
    path: Path

    @property
    def top(self) -> str:
        """Its folder in the package, or nothing."""
        parts = self.path.relative_to(PACKAGE).parts
        return parts[0] if len(parts) > 1 else ""

    @property
    def folder(self) -> str:
        """The folder that it stands in."""
        return self.path.parent.relative_to(PACKAGE).as_posix()

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def kind(self) -> str:
        """`providers` and its like, or nothing."""
        top = self.name.partition(".")[0]
        return top if top in KINDS else ""

    @property
    def tree(self) -> ast.Module:
        return parsed(self.path)

    @property
    def nodes(self) -> tuple[ast.AST, ...]:
        return walked(self.path)

    def at(self, node: ast.stmt | ast.expr | ast.excepthandler) -> str:
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), path)


@cache
def walked(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(parsed(path)))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [Module(name_of(path), path) for path in sorted(PACKAGE.rglob("*.py"))]
NAMES = {module.name for module in MODULES}
NATIVE_SOURCES = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
TEXTS = sorted(
    path
    for folder, endings in (
        (PACKAGE, {".py", ".pyx", ".pxd", ".js", ".css", ".html", ".svg"}),
        (ROOT / "csrc", {".h", ".c"}),
    )
    for path in folder.rglob("*")
    if path.suffix in endings
)


@cache
def imports(module: Module) -> list[tuple[ast.stmt, str]]:
    """Returns every import, wherever it stands: our modules by their name here, others by their top-level name."""
    found: list[tuple[ast.stmt, str]] = []
    for node in module.nodes:
        if isinstance(node, ast.Import):
            found += [(node, ours(alias.name)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = f"gai_fast.{module.name}".rstrip(".").split(".")
                keep = len(package) - node.level + module.is_package
                base = ".".join([*package[:keep], *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append((node, ours(inner if inner.removeprefix("gai_fast.") in NAMES else base)))
    return found


def late_imports(module: Module) -> list[tuple[ast.Call, str]]:
    """Returns the modules that a module imports by a name in its text, while it runs."""
    calls = (node for node in module.nodes if isinstance(node, ast.Call))
    return [
        (call, ours(call.args[0].value))
        for call in calls
        if ast.unparse(call.func).endswith("import_module") and isinstance(call.args[0], ast.Constant)
    ]


def ours(name: str) -> str:
    """`gai_fast.x` as `gai_fast:x`, another package by its first name."""
    top, _, rest = name.partition(".")
    return f"gai_fast:{rest}" if top == "gai_fast" else top


def violations(found: Iterable[str]) -> str:
    return "\n".join(found)


# ---- folders ---------------------------------------------------------------------------------------------------------


@cache
def edges() -> dict[tuple[str, str], list[str]]:
    """Returns the imports between folders, by the two folders."""
    by_name = {module.name: module for module in MODULES}
    found: dict[tuple[str, str], list[str]] = {}
    for module in MODULES:
        for node, target in (*imports(module), *late_imports(module)):
            imported = by_name.get(target.removeprefix("gai_fast:")) if target.startswith("gai_fast:") else None
            if imported is None or module.folder == imported.folder:
                continue
            found.setdefault((module.folder, imported.folder), []).append(f"{module.at(node)}: imports {imported.name}")
    return found


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Returns the groups of folders each of which reaches the others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in graph.get(waiting.pop(), set()) - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    reach = {folder: reached(folder) for folder in graph}
    found = {frozenset({one, *(other for other in reach[one] if one in reach.get(other, ()))}) for one in graph}
    return [set(group) for group in found if len(group) > 1]


def test_a_circle_of_folders_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert not circles({"a": {"b", "c"}, "b": {"c"}})


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    found = edges()
    graph: dict[str, set[str]] = {}
    for one, other in found:
        graph.setdefault(one, set()).add(other)
    assert not violations(
        line
        for group in circles(graph)
        for (one, other), imported in found.items()
        if {one, other} <= group
        for line in imported
    )


def test_an_import_by_name_is_one_between_folders() -> None:
    assert any("_signatures" in line for line in edges()["formats", "providers"])


def test_the_core_is_given_its_parts() -> None:
    own = {"core": ("runtime", "net", "providers", "formats", "processors"), "model": ("",)}
    assert not violations(
        line
        for (one, other), imported in edges().items()
        for folder, forbidden in own.items()
        if one == folder
        for name in forbidden
        if not name or other == name or other.startswith(f"{name}/")
        for line in imported
    )


def test_guards_import_the_vocabulary_the_interface_of_processors_and_json() -> None:
    assert not violations(
        f"{module.at(node)}: imports {target}"
        for module in MODULES
        if module.top == "guards"
        for node, target in imports(module)
        if target.startswith("gai_fast:")
        and not re.match(r"gai_fast:(guards\b|model\b|core\.processing\b|kernels$)", target)
    )


def test_a_folder_is_read_at_a_glance() -> None:
    modules: dict[str, list[str]] = {}
    for module in MODULES:
        if not module.is_package or not module.top:
            modules.setdefault(module.folder.removeprefix("."), []).append(module.path.name)
    assert not violations(
        f"{folder or 'the root'}: {len(names)} modules"
        for folder, names in modules.items()
        if len(names) > (LARGEST_FOLDER if folder else 3) and folder not in LARGER_FOLDERS
    )


def test_a_class_that_is_larger_than_usual_stands_in_the_table_with_its_reason() -> None:
    """A split is made if two things with two reasons to change stand in one class, never to meet a number."""
    classes = {
        f"{module.name}:{node.name}": node
        for module in MODULES
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
    }
    by_name: dict[str, list[ast.ClassDef]] = {}
    for node in classes.values():
        by_name.setdefault(node.name, []).append(node)

    def line_count(node: ast.ClassDef) -> int:
        return (node.end_lineno or 0) - node.lineno + 1

    def sizes(node: ast.ClassDef) -> dict[str, int]:
        functions = [inner for inner in node.body if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))]
        attributes = {
            inner.attr
            for inner in ast.walk(node)
            if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
            if ast.unparse(inner.value) == "self"
        }
        found = {"lines": line_count(node), "methods": len(functions), "attributes": len(attributes)}
        bases = [base for above in node.bases for base in by_name.get(ast.unparse(above), [])]
        if len(node.bases) == 1 and len(bases) == 1:
            found["lines with its base"] = found["lines"] + line_count(bases[0])
        return found

    larger = {
        name: beyond
        for name, node in classes.items()
        if (beyond := {size: count for size, count in sizes(node).items() if count > USUAL_CLASS[size]})
    }
    assert not violations(
        f"{name}: {beyond}: two responsibilities, or a reason in LARGER_CLASSES"
        for name, beyond in larger.items()
        if name not in LARGER_CLASSES
    )
    assert not violations(f"{name}: no longer larger than usual" for name in LARGER_CLASSES if name not in larger)


def test_no_name_of_a_public_class_means_two_things() -> None:
    """A native kernel has its twin's name: it is no second class, but the same one in another language."""
    named: dict[str, set[str]] = {}
    for module in MODULES:
        for node in module_level(module.tree.body) if module.name != BODIES else ():
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                named.setdefault(node.name, set()).add(module.name)
    shared = {name: modules for name, modules in named.items() if len(modules) > 1}
    assert not violations(f"{name}: {modules}" for name, modules in shared.items() if name not in SHARED_CLASSES)
    assert not violations(f"{name}: no longer shared" for name in SHARED_CLASSES if name not in shared)
    own = {name for name in shared["Limits"] if name.rpartition(".")[2] != "limits"}
    assert not violations(f"{name}: `Limits` outside a `limits.py`" for name in own)


def module_level(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields a module's statements, including those under a condition: a class that needs another library."""
    for statement in statements:
        yield statement
        if isinstance(statement, (ast.If, ast.Try)):
            yield from module_level([*statement.body, *statement.orelse])


def test_a_folder_does_not_touch_what_is_handed_to_it() -> None:
    assert not violations(
        f"{module.at(node)}: imports {target}"
        for module in MODULES
        for node, target in imports(module)
        if target in FORBIDDEN.get(module.top, ()) and (module.name, target) != (SWITCH, "os")
    )


def test_the_native_sources_do_not_either() -> None:
    line = re.compile(r"^\s*(?:from|cimport|import)\s+([A-Za-z_][\w.]*)", re.M)
    allowed = {"gai_fast.kernels._native", "gai_fast.kernels._pure"}
    allowed |= {"gai_fast.model.events", "gai_fast.model.halves", "gai_fast.model.limits"}
    assert not violations(
        f"{path.relative_to(ROOT)}: imports {name}"
        for path in NATIVE_SOURCES
        for name in line.findall(path.read_text())
        if name.partition(".")[0] in FORBIDDEN["kernels"]
        or (name.startswith("gai_fast") and not any(name == one or name.startswith(f"{one}.") for one in allowed))
    )


def test_only_the_switch_and_the_kernels_import_the_kernels() -> None:
    assert not violations(
        f"{module.at(node)}: imports {target}"
        for module in MODULES
        for node, target in imports(module)
        if re.match(r"gai_fast:(kernels\.)?(_native|_pure)\b", target)
        if module.name != SWITCH and not re.match(r"(kernels\.)?(_native|_pure)\b", module.name)
    )


def test_providers_formats_and_processors_know_neither_each_other_nor_their_like() -> None:
    """Modules whose names begin with an underscore are shared by their siblings, as are limits and the agents that
    formats tell apart; the package registers the siblings.
    What providers share stands in folders.

    A format may be a folder, whose modules know each other.
    """
    assert not violations(
        f"{module.at(node)}: imports {target}"
        for module in MODULES
        if module.kind
        for node, target in imports(module)
        for kind, _, name in [target.removeprefix("gai_fast:").partition(".")]
        if target.startswith("gai_fast:") and kind in KINDS
        if kind != module.kind
        or not (name.startswith(("_", "limits", "agents")) or f"{kind}/{name.partition('.')[0]}" == module.folder)
        if not (kind == "providers" and name.partition(".")[0] in WINGS)
    )


def test_stores_and_timers_do_not_know_the_network() -> None:
    assert not violations(
        f"{module.at(node)}: imports {target}"
        for module in MODULES
        if module.top in ("stores", "runtime")
        for node, target in imports(module)
        if re.match(r"gai_fast:net\b", target)
    )


def test_the_parts_of_a_stream_do_not_know_the_relay() -> None:
    """Nor does the relay know them: `sinks` and the bases of the kinds stand between."""
    assert not violations(
        f"{module.at(node)}: imports {target}"
        for module in MODULES
        if module.kind
        for node, target in imports(module)
        if re.match(r"gai_fast:(core\.)?relay\b", target)
    )


def test_the_environment_is_read_in_one_place() -> None:
    assert not violations(
        f"{module.at(node)}: reads the environment"
        for module in MODULES
        if module.name not in ENVIRONMENT
        for node in module.nodes
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
        if ast.unparse(node.value) == "os"  # a WSGI request has an `environ` too
    )


# ---- what may stand where --------------------------------------------------------------------------------------------


def test_no_providers_name_stands_outside_its_home() -> None:
    names = PROVIDERS.keys() - WORDS
    assert not violations(
        f"{module.at(node)}: {node.value!r}"
        for module in MODULES
        if module.kind not in ("providers", "formats") and module.name not in ROUTES
        for node in module.nodes
        if isinstance(node, ast.Constant) and node.value in names - NAMED.get(module.name, set())
    )


DIALECTS = {name for name in FORMATS if name in PROVIDERS}
"""Dialects whose name is a provider's too."""


ATTRIBUTION = "x-anthropic-billing-header:"
"""How the text begins with which Claude Code names itself to its provider."""


def test_formats_name_no_provider() -> None:
    """A dialect's name stands once in its format, and its headers have it. All else that has a provider's name is read
    from the registry of providers (`formats/_signatures.py`).
    """
    named = re.compile(rf"(?<![a-z])({'|'.join(sorted(PROVIDERS, key=len, reverse=True))})(?![a-z])")
    found = {
        (module.folder, node.value): module.at(node)
        for module in MODULES
        if module.kind == "formats" and module.name != "formats"
        for node in module.nodes
        # With blanks it is prose.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
        if named.search(node.value)
    }
    headers = {name for registered in FORMATS for name in get_format(registered).passed_headers} | {ATTRIBUTION}
    assert not violations(
        f"{where}: {text!r}"
        for (folder, text), where in found.items()
        if text not in headers and (folder not in ("formats/chat", "formats/messages") or text not in DIALECTS)
    )


def table_nodes(module: Module) -> set[ast.AST]:
    """Returns all inside the displays that a module binds to a constant's name."""
    nodes: set[ast.AST] = set()
    for statement in module.tree.body:
        match statement:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, value) if name.isupper():
                if isinstance(value, (ast.Dict, ast.Set, ast.Tuple, ast.List, ast.Call)):
                    nodes.update(ast.walk(value))
    return nodes


def compiled_modules() -> list[Module]:
    found = COMPILED.split()
    names = {name.removesuffix("/__init__").replace("/", ".") for name in found}
    assert len(names) == len(found)
    assert names <= NAMES
    return [module for module in MODULES if module.name in names]


def test_no_module_that_mypyc_compiles_has_what_it_does_not_keep() -> None:
    """It forgets the cause of an exception, and its coroutines are cancelled by a call that CPython 3.12 warns of."""
    nodes = [(module, node) for module in compiled_modules() for node in module.nodes]
    assert not violations(module.at(node) for module, node in nodes if isinstance(node, ast.AsyncFunctionDef))
    assert not violations(
        module.at(node)
        for module, node in nodes
        if isinstance(node, ast.Raise) and node.cause is not None
        if not (isinstance(node.cause, ast.Constant) and node.cause.value is None)
    )


def test_no_function_of_a_compiled_module_has_a_function_within() -> None:
    """mypyc keeps the inner one among the variables that it refers to: a cycle with all that the call has seen.

    Each request left one, with its prompt, for the garbage collector. A lambda or a `partial` makes none.
    """
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{module.name}:{inner.lineno}"
        for module in compiled_modules()
        for outer in module.nodes
        if isinstance(outer, functions)
        for inner in ast.walk(outer)
        if isinstance(inner, functions) and inner is not outer
    ]
    assert not found


def test_structs_of_compiled_modules_have_types_that_mypyc_keeps() -> None:
    """At run time it gives a member of type `Any`, or of a union, the type `type`, which msgspec reads."""
    assert not violations(
        f"{module.at(member)}: {ast.unparse(member.annotation)}"
        for module in compiled_modules()
        for node in module.nodes
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Struct") for base in node.bases)
        for member in node.body
        if isinstance(member, ast.AnnAssign)
        and (isinstance(member.annotation, ast.BinOp) or ast.unparse(member.annotation) in ("Any", "object"))
    )


def test_no_class_hides_an_attribute_of_the_instances_of_a_compiled_one() -> None:
    """Compiled code would go on with the attribute's own value, and never see what is assigned to it from then on."""
    compiled = compiled_modules()
    classes = [(module, node) for module in MODULES for node in module.tree.body if isinstance(node, ast.ClassDef)]
    bases = {node.name: [ast.unparse(base) for base in node.bases] for _, node in classes}
    own = {
        node.name: set(instance_attributes(node))
        for module, node in classes
        if module in compiled and "Protocol" not in bases[node.name]
    }

    def inherited(name: str) -> set[str]:
        above = bases.get(name, [])
        return set().union(*(own.get(base, set()) | inherited(base) for base in above))

    assert {"ended", "copyable", "usage", "model", "choices"} <= inherited("AzureAdapter")
    assert not violations(
        module.at(statement)
        for module, node in classes
        for statement in node.body
        if set(class_attributes(statement)) & inherited(node.name)
    )


def test_no_interpreted_module_asks_whether_an_object_is_of_a_compiled_abstract_class() -> None:
    """Abstract classes that mypyc makes share one cache of answers: what was asked about one counts for all.

    Compiled code looks at the object's type itself.
    """
    compiled = compiled_modules()
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for module in compiled
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
    }
    abstract = {"ABC"}
    while more := {name for name, above in bases.items() if above & abstract} - abstract:
        abstract |= more
    assert {"Adapter", "ChatAPI"} <= abstract
    assert not violations(
        module.at(node)
        for module in MODULES
        if module not in compiled
        for imported in [abstract & names_from(module).keys()]
        for node in module.nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
        if any(isinstance(each, ast.Name) and each.id in imported for each in ast.walk(node.args[1]))
    )


def test_a_compiled_class_with_an_interpreted_subclass_allows_it() -> None:
    """Without mypyc's attribute the first instance of the subclass is a TypeError, in compiled builds alone.

    A protocol is an ordinary class in compiled builds too.
    """
    compiled = compiled_modules()
    allowed = {
        (module.name, node.name): any(
            "allow_interpreted_subclasses" in ast.unparse(each) for each in node.decorator_list
        )
        for module in compiled
        for node in module.tree.body
        if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases)
    }
    assert any(allowed.values())
    assert not violations(
        f"{module.at(node)}: {base} does not allow {node.name}"
        for module in MODULES
        if module not in compiled
        for names in [names_from(module)]
        for node in module.nodes
        if isinstance(node, ast.ClassDef)
        for base in map(ast.unparse, node.bases)
        if not allowed.get((names.get(base, ""), base), True)
    )


def names_from(module: Module) -> dict[str, str]:
    """Returns the names that a module imports, and from which of ours."""
    return {
        alias.name: node.module.removeprefix("gai_fast.")
        for node in module.nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def instance_attributes(node: ast.ClassDef) -> Iterator[str]:
    """Yields the attributes that a class declares in its body or sets in `__init__`."""
    for each in ast.walk(node):
        match each:
            case ast.AnnAssign(ast.Name(name), annotation) if each in node.body:
                if not ast.unparse(annotation).startswith("ClassVar"):
                    yield name
            case ast.Attribute(ast.Name("self"), name, ast.Store()):
                yield name


def class_attributes(statement: ast.stmt) -> Iterator[str]:
    """Yields the attributes that a statement in a class sets."""
    match statement:
        case ast.Assign(targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(ast.Name(name), _, ast.expr()):
            yield name
        case ast.FunctionDef(name):
            yield name


def test_a_large_number_is_a_limit_or_stands_in_a_table() -> None:
    assert not violations(
        f"{module.at(node)}: {node.value}"
        for module in MODULES
        if module.top in WITHOUT_NUMBERS and module.path.stem != "limits"
        for node in module.nodes
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value >= LARGEST_LITERAL
        if node not in table_nodes(module)
    )


def test_no_exception_is_caught_that_is_not_named() -> None:
    def broad(node: ast.expr | None) -> bool:
        if isinstance(node, ast.Tuple):
            return any(map(broad, node.elts))
        return node is None or (isinstance(node, ast.Name) and node.id in ("Exception", "BaseException"))

    assert not violations(
        f"{module.at(node)}: a broad except"
        for module in MODULES
        if module.name not in CATCHES_ALL
        for node in module.nodes
        if isinstance(node, ast.ExceptHandler) and broad(node.type)
    )


def lines(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        name = path.relative_to(ROOT)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            yield f"{name}:{number}", line


def test_nothing_is_left_to_be_done() -> None:
    left = re.compile(r"\b(TODO|FIXME|XXX)\b")
    assert not violations(f"{where}: {line.strip()}" for where, line in lines(TEXTS) if left.search(line))


@pytest.mark.parametrize("mark", ["type: ignore", "noqa", "pragma: no cover"])
def test_what_silences_a_check_says_which_and_why(mark: str) -> None:
    named = re.compile(rf"# {mark}(\[[a-z, -]+\]|: [A-Z0-9, ]+)  # \S")
    assert not violations(
        f"{where}: {line.strip()}"
        for where, line in lines(path for path in written_files() if path.suffix == ".py")
        if f"# {mark}" in line and not named.search(line)
    )


def test_no_path_or_address_of_a_machine_is_left_in_the_sources() -> None:
    own = re.compile(r"/work/|/tmp/w|/home/|/root/|/Users/")
    assert not violations(f"{where}: {line.strip()}" for where, line in lines(TEXTS) if own.search(line))


# ---- what every module has -------------------------------------------------------------------------------------------


# Documents that are not in the repository, and their numbered items; the brackets keep this line from matching itself.
OUTSIDE = re.compile(
    r"\b(?:CONTR[A]CT|DESI[G]N|RELIAB[I]LITY|ECOSY[S]TEM|OPER[A]TING|PROV[I]DERS §|CLI[E]NTS\.md|[Td][0-9]{2}\b)"
)
PAGE_NAMED = re.compile(r'docs/([\w/-]+\.md)(?:, "([^"]+)"(?: and "([^"]+)")?)?')
WRITTEN = {".py", ".pyx", ".pxd", ".c", ".h", ".md", ".toml", ".sh", ".in", ".js", ".css", ".html", ".svg", ""}


def written_files() -> Iterator[Path]:
    """Yields every text file of the repository, without those that are built, installed or recorded."""
    for top in sorted(ROOT.iterdir()):
        if top.name.startswith(".") or top.name in ("build", "dist") or top.suffix == ".egg-info":
            continue
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            is_made = {".cache", "results", "__pycache__"} & {*path.parts} or path.match("_native/*.c")
            if path.is_file() and path.suffix in WRITTEN and not is_made:
                yield path


def test_no_file_refers_to_a_document_that_is_not_in_the_repository() -> None:
    assert not violations(
        f"{path.relative_to(ROOT)}:{number}: {found[0]}"
        for path in written_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := OUTSIDE.search(line))
    )


def test_every_page_and_section_that_a_source_names_is_there() -> None:
    docs = ROOT / "docs"
    headings = {
        str(page.relative_to(docs)): re.findall(r"^#+ (.+)$", page.read_text(), re.M) for page in docs.rglob("*.md")
    }
    assert not violations(
        f"{path.relative_to(ROOT)}: docs/{page} {section}"
        for path in written_files()
        if path.suffix != ".md"
        for page, *sections in PAGE_NAMED.findall(path.read_text())
        for section in sections
        if section not in ["", *headings.get(page, ())] or (not section and page not in headings)
    )


def test_every_module_says_what_it_owns() -> None:
    assert not violations(str(module.path) for module in MODULES if not ast.get_docstring(module.tree))


# Packages of others are loaded once: what is tried is whether ours need one another in a certain order. A package of
# ours is loaded before each of its modules in any case, so its modules are tried in processes that have it already.
IMPORT_EACH_ALONE = """
import contextlib, gc, importlib, os, sys, traceback
for package in ("aiohttp.web", "click", "httptools", "msgspec", "orjson", "prometheus_client", "uvloop"):
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(package)
gc.disable()
def load(name):
    try:
        importlib.import_module(name)
        return 0
    except BaseException:
        traceback.print_exc()
        print("cannot be imported alone:", name, file=sys.stderr)
        return 1
def failures_within(package):
    failures = 0
    for name in sys.argv[1:]:
        if name.rpartition(".")[0] == package:
            child = os.fork()
            if not child:
                os._exit(load(name) or failures_within(name) > 0)
            failures += os.waitpid(child, 0)[1] != 0
    return failures
sys.exit(failures_within("") > 0)
"""


@pytest.mark.timeout(900)
def test_every_module_imports_alone_and_without_a_warning() -> None:
    names = [f"gai_fast.{module.name}".rstrip(".") for module in MODULES]
    if gai_fast.IMPLEMENTATION == "pure":
        names.remove("gai_fast.kernels._native")
    names.remove("gai_fast.__main__")
    if find_spec("django") is None:  # every other module works without what is not installed with the package
        names.remove("gai_fast.integrations.django")
    assert {name.rpartition(".")[0] for name in names} <= {"", *names}, "what is in no package would not be tried"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE, *names],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_who_only_encodes_or_decodes_loads_no_more_than_that() -> None:
    code = (
        "import sys, gai_fast; list(gai_fast.decode('openai', []))\n"
        "heavy = 'asyncio ssl click httptools uvloop aiohttp starlette fastapi django'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "from gai_fast import *\nprint(Gateway.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.stdout == "[]\nGateway\n", done.stderr


def test_every_public_name_is_there_and_explained() -> None:
    assert list(gai_fast.__all__) == sorted(gai_fast.__all__, key=lambda name: (not name.isupper(), name))
    for name in gai_fast.__all__:
        value = getattr(gai_fast, name)
        if callable(value):
            assert (inspect.getdoc(value) or "").strip(), name


# ---- one file and one registration line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "registered"), [("providers", PROVIDERS), ("formats", FORMATS), ("processors", PROCESSORS)]
)
def test_every_module_of_a_kind_is_registered_and_every_registered_one_is_there(
    kind: str, registered: dict[str, str]
) -> None:
    """A module or a folder that stands for itself holds an object under a name that the package registers."""
    there = {
        f"gai_fast.{module.name}"
        for module in MODULES
        if module.kind == kind and module.name != kind
        if (module.folder == kind or module.is_package) and module.path.stem not in ("limits", "agents")
    }
    own = {name for name in there if not name.rpartition(".")[2].startswith("_")}
    own -= {f"gai_fast.providers.{wing}" for wing in WINGS} | {"gai_fast.formats.agents"}
    assert own <= set(registered.values())
    assert {path for path in registered.values() if find_spec(path) is None} == set()


def test_every_api_of_a_provider_has_rules_with_a_source() -> None:
    """The SDK with its version, or the address of a document, and the day on which it was read."""
    form = re.compile(r"([a-z-]+ \d+\.\d+\.\d+|https://\S+), 20\d\d-\d\d-\d\d")
    apis = [(module, name, api) for module in PROVIDERS.values() for name, api in import_module(module).APIS.items()]
    assert not violations(
        f"{module} {name}: {api.rules.provider!r} {api.rules.source!r}"
        for module, name, api in apis
        if not (api.recording or api.calls_function)  # asks nobody
        if api.rules.provider != api.provider or not form.fullmatch(api.rules.source)
    )


def test_every_provider_has_its_fixtures() -> None:
    fixtures = {path.name for path in (ROOT / "tests/corpus/fixtures").iterdir()}
    assert {name.replace("-", "_") for name in PROVIDERS} <= {name.replace("-", "_") for name in fixtures}
