"""Writes the `__init__` of dataclasses for mypyc, and the method that reads the figures of a stream.

mypyc leaves a dataclass's `__init__` to the interpreter, which costs a request 11,000 instructions for its figures
alone, and 1,500 for each field of a frozen one. So it compiles a copy of each module that has dataclasses, in which
they define it. `msgspec.Struct` in its place costs 10,000: compiled code reads its attributes through the interpreter.
So does `getattr`; the copy names each figure that is counted.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from setuptools.errors import PlatformError

FIELD_MAKERS = ("field", "figure")
"""The functions that make fields of the dataclasses in compiled modules."""
COUNTING = "counted"
"""The method of a dataclass that reads the attributes which its figures count, in their alphabetical order."""


def shadow_options(modules: list[str], folder: str) -> Iterator[str]:
    """Yields mypy's options that replace the sources of some modules; writes the replacements.

    Args:
        modules: The paths of the sources.
        folder: Where the replacements are written.

    Raises:
        PlatformError: As `with_initializers`.
    """
    for module in modules:
        source = Path(module).read_text("utf-8")
        if (replacement := with_initializers(source)) != source:
            shadow = Path(folder, module.replace("/", "."))
            shadow.parent.mkdir(parents=True, exist_ok=True)
            shadow.write_text(replacement, "utf-8")
            yield from ("--shadow-file", module, str(shadow))


def with_initializers(source: str) -> str:
    """Returns the source of a module in which each dataclass defines its `__init__`, but for settings.

    The method replaces the empty line below its class, so line numbers do not change. Settings are frozen and have a
    base: they are made at the start, and a pickle makes them without arguments.

    Raises:
        PlatformError: A dataclass has a form for which no `__init__` is written.
    """
    if "@dataclass" not in source:
        return source
    lines = source.split("\n")
    for each in ast.parse(source).body:
        options = dataclass_options(each) if isinstance(each, ast.ClassDef) else None
        if options is None or (options.get("frozen") and each.bases):
            continue
        if lines[each.end_lineno : each.end_lineno + 1] != [""]:
            raise unwritten(each, "no empty line follows")
        lines[each.end_lineno] = f"    {initializer(each, options)}"
        for method in each.body:
            if isinstance(method, ast.FunctionDef) and method.name == COUNTING:
                lines[method.end_lineno - 1] = f"        {reading(each)}"
    return "\n".join(lines)


def dataclass_options(parsed: ast.ClassDef) -> dict[str | None, object] | None:
    """Returns the options of a class's decorator `dataclass`. None if it has no such decorator."""
    for mark in parsed.decorator_list:
        call = mark if isinstance(mark, ast.Call) else ast.Call(mark, [], [])
        if isinstance(call.func, ast.Name) and call.func.id == "dataclass":
            return {each.arg: each.value.value for each in call.keywords}
    return None


def initializer(parsed: ast.ClassDef, options: dict[str | None, object]) -> str:
    """Returns the source of the `__init__` of a dataclass, in one line.

    Args:
        parsed: The class.
        options: The options of its decorator.
    """
    names = {getattr(each, "name", "") for each in parsed.body}
    if parsed.bases or parsed.keywords or "init" in options or names & {"__init__", "__post_init__"}:
        raise unwritten(parsed, "it has a base, or an initializer of its own")
    parameters, values = ["*"] if options.get("kw_only") else [], []
    for field in (each for each in parsed.body if isinstance(each, ast.AnnAssign)):
        name, kind, default = field.target.id, ast.unparse(field.annotation), field.value
        if kind == "KW_ONLY":
            parameters.append("*")
            continue
        if re.match(r"(\w+\.)*(ClassVar|InitVar|KW_ONLY)\b", kind):
            raise unwritten(parsed, f"`{name}` is no plain field")
        factory = None
        if isinstance(default, ast.Call) and ast.unparse(default.func) in FIELD_MAKERS:
            given = {each.arg: each.value for each in default.keywords}
            default, factory = given.get("default"), given.get("default_factory")
            if (default or factory) is None or given.keys() & {"init", "kw_only"}:
                raise unwritten(parsed, f"`{name}` has no default, or options")
        if factory is None:
            parameters.append(f"{name}: {kind}" + (f" = {ast.unparse(default)}" if default else ""))
            values.append(f"self.{name} = {name}")
        else:
            parameters.append(f"{name}: {kind} | None = None")
            values.append(f"self.{name} = ({ast.unparse(factory)})() if {name} is None else {name}")
    # mypy allows no assignment to a frozen field, and mypyc compiles it to that of any other.
    ignored = "  # type: ignore[misc]  # frozen" if options.get("frozen") and values else ""
    return f"def __init__({', '.join(['self', *parameters])}) -> None: {'; '.join(values) or 'pass'}{ignored}"


def reading(parsed: ast.ClassDef) -> str:
    """Returns the last line of `counted`: each attribute that a figure's series name as `source` or `total`.

    A series without `source` counts the figure itself. Names that the class does not define are members of `usage`.
    """
    fields = {each.target.id: each.value for each in parsed.body if isinstance(each, ast.AnnAssign)}
    defined = fields.keys() | {each.name for each in parsed.body if isinstance(each, ast.FunctionDef)}
    counted = set()
    for name, figure in fields.items():
        for series in figure.args[1:]:
            named = {each.arg: each.value.value for each in series.keywords if each.arg in ("source", "total")}
            counted |= {*{"source": name, **named}.values()} & defined
    return f"return ({', '.join(f'self.{name}' for name in sorted(counted))},)"


def unwritten(parsed: ast.ClassDef, reason: str) -> PlatformError:
    return PlatformError(f"building/initializers.py writes no `__init__` for the dataclass {parsed.name}: {reason}")
