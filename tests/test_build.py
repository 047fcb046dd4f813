"""`setup.py` and `building/`: what each build compiles, and what is left if compiling fails.

Tests build a copy of the sources with one kernel and two modules for mypyc: a few seconds of a compiler.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from abc import ABCMeta
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NoReturn

import pytest
from setuptools.errors import PlatformError

import gai_fast
from building.initializers import with_initializers
from building.modules import LIST as COMPILED
from gai_fast import kernels as switch
from gai_fast.core.processing.processor import Processor
from gai_fast.core.run import CallResult
from gai_fast.model.figures import COUNTED
from gai_fast.model.metrics import StreamMetrics
from gai_fast.net.attempts.spec import StreamSpec
from tests.kernels import is_set

ROOT = Path(__file__).parents[1]
MYPYC_FAILS = "def mypycify(*paths, **options):\n    raise SystemExit('types do not fit')\n"

COUNTED_BY_NAME = "return tuple([getattr(self, name) for name in COUNTED])"
"""The line of `StreamMetrics.counted` that the build replaces."""

SAMPLE = """
from dataclasses import KW_ONLY, dataclass, field


@dataclass(slots=True)
class Sample:
    first: int
    second: list[int] = field(default_factory=list)
    _: KW_ONLY
    third: str = "x"

    def double(self) -> int:
        return 2 * self.first


@dataclass(frozen=True, slots=True)
class Frozen:
    first: int
    second: str = "y"


@dataclass(frozen=True)
class Empty:
    pass


@dataclass(frozen=True)
class Settings(Frozen):
    third: int = 3
"""
"""A module with a dataclass that makes what it is not given, and with frozen ones."""

pytestmark = pytest.mark.timeout(1000)

Build = Callable[..., subprocess.CompletedProcess[str]]


def test_required_modules_are_compiled() -> None:
    """CI measures and tests what users install: a build whose mypyc part failed must not pass for one."""
    if is_set("GAI_FAST_REQUIRE_ALL") and not is_set("GAI_FAST_NO_EXTENSIONS"):
        assert switch.MODULES == "compiled"
    assert (switch.MODULES == "compiled") is any((ROOT / "gai_fast").glob("_compiled__mypyc*.so"))


def test_isinstance_of_a_public_abstract_class_does_not_depend_on_what_was_asked_before() -> None:
    """Abstract classes that mypyc makes share one cache of answers, that of `ABC`: none for programs is compiled."""
    public = [each for name in gai_fast.__all__ if isinstance(each := getattr(gai_fast, name), ABCMeta)]
    assert {gai_fast.Gateway, gai_fast.JSONStreamProcessor} <= {*public}
    assert not [each for each in (*public, Processor) if "_abc_impl" not in vars(each)]


def test_code_for_failures_stands_behind_the_rest() -> None:
    """`csrc/cold.h` names functions of mypyc's: of other names GCC would say nothing."""
    if is_set("GAI_FAST_REQUIRE_ALL") and not is_set("GAI_FAST_NO_EXTENSIONS"):
        (library,) = (ROOT / "gai_fast").glob("_compiled__mypyc*.so")
        assert b"CPyDef_runtime___clock___now_ms.cold\0" in library.read_bytes()


@pytest.fixture
def build(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], NoReturn]) -> Build:
    """Builds the copy in `tmp_path` with these variables."""
    for module in ("Cython", "mypyc", "setuptools"):
        if find_spec(module) is None:
            unavailable(module)
    if shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        unavailable("a C compiler")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    built_files = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    shutil.copytree(ROOT / "gai_fast", tmp_path / "gai_fast", ignore=built_files)
    # What it imports is nearly all of the package, which mypy would check: 16 s of a core for that one module.
    (tmp_path / "gai_fast/__init__.py").write_text("")
    (tmp_path / "gai_fast/runtime/made.py").write_text(SAMPLE)
    # The real kernel takes 4 s of a core, five times.
    (tmp_path / "gai_fast/kernels/_native/sockets.pyx").write_text("def one():\n    return 1\n")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(ROOT / "building", tmp_path / "building", ignore=built_files)
    kernels = tmp_path / "building/kernels.py"
    table = re.compile(r"^KERNELS = \{.*?^\}$", re.M | re.S)
    kernels.write_text(table.sub('KERNELS = {"sockets": ()}', kernels.read_text(), count=1))
    modules = tmp_path / "building/modules.py"
    modules.write_text(modules.read_text().replace('opt_level="1"', 'opt_level="0"'))
    (tmp_path / "building/compiled.txt").write_text("runtime/clock\nruntime/made\n")

    types = str(tmp_path_factory.getbasetemp() / "types")  # those of the standard library

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GAI_FAST_")}
        return subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=tmp_path,
            # What is compiled never runs.
            env={**kept, "MYPY_CACHE_DIR": types, "GAI_FAST_LEVEL": "0", **variables},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    return run


def built(folder: Path) -> set[str]:
    """Returns the modules that are compiled in a folder."""
    return {path.name.partition(".")[0] for path in (folder / "gai_fast").rglob("*.so")}


def compiled_at(folder: Path) -> dict[str, int]:
    """Returns the time at which each module was compiled: what stands beside its source is a copy."""
    return {path.name.partition(".")[0]: path.stat().st_mtime_ns for path in (folder / "build").rglob("*.so")}


def test_a_native_build_compiles_both_kinds_and_a_development_build_the_kernels_alone(
    build: Build, tmp_path: Path
) -> None:
    """A module that only an earlier build compiled is removed: it would be imported in place of its source."""
    assert build(GAI_FAST_BUILD="native").returncode == 0
    assert built(tmp_path) == {"sockets", "clock", "made", "_compiled__mypyc"}
    (library,) = (tmp_path / "gai_fast").glob("_compiled__mypyc*.so")
    assert b"\0CPyDef_made___Sample_____init__" in library.read_bytes(), "the interpreter makes each instance"
    first = compiled_at(tmp_path)
    for path in (tmp_path / "build/mypyc").rglob("*"):
        os.utime(path, ns=(1, 1))  # mypyc dates its files a second ahead, and what is compiled by then counts as older
    with (tmp_path / "gai_fast/runtime/clock.py").open("a") as module:
        module.write("\n\ndef zero() -> int:\n    return 0\n")
    assert build(GAI_FAST_BUILD="native").returncode == 0
    assert {name for name, at in compiled_at(tmp_path).items() if at != first[name]} == {"_compiled__mypyc"}
    assert b"\0zero()" in library.read_bytes()
    assert build(GAI_FAST_BUILD="native", GAI_FAST_MYPYC="0").returncode == 0
    assert built(tmp_path) == {"sockets"}


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Returns the module that a source makes."""

    def execute(source: str) -> ModuleType:
        module = ModuleType("executed")
        monkeypatch.setitem(sys.modules, module.__name__, module)  # where `dataclass` looks up annotations
        exec(compile(source, "executed.py", "exec", dont_inherit=True), vars(module))
        return module

    return execute


@pytest.mark.parametrize(
    ("path", "name"), [("model/figures", "StreamMetrics"), ("net/attempts/spec", "StreamSpec")], ids=["figures", "spec"]
)
def test_a_dataclass_gets_the_initializer_that_dataclass_would_make(
    executed: Callable[[str], ModuleType], path: str, name: str
) -> None:
    source = (ROOT / f"gai_fast/{path}.py").read_text()
    replaced = with_initializers(source)
    assert path in COMPILED.read_text().split()
    changed = [line for line, now in zip(source.split("\n"), replaced.split("\n"), strict=True) if line != now]
    assert {line.strip() for line in changed} <= {"", COUNTED_BY_NAME}, "a traceback would name wrong lines"
    assert replaced.count("def __init__") == source.count("def __init__") + 1
    made, written = (signature(getattr(executed(text), name)).parameters.values() for text in (source, replaced))
    assert [(each.name, each.kind) for each in written] == [(each.name, each.kind) for each in made]
    by_factory = {each.name for each in made if "FACTORY" in type(each.default).__name__}
    defaults, expected = ({each.name: each.default for each in given} for given in (written, made))
    assert defaults == {**expected, **dict.fromkeys(by_factory)}


def test_the_figures_that_are_counted_are_read_without_a_look_up_by_name(
    executed: Callable[[str], ModuleType],
) -> None:
    source = (ROOT / "gai_fast/model/figures.py").read_text()
    replaced = with_initializers(source)
    assert COUNTED_BY_NAME in source
    assert COUNTED_BY_NAME not in replaced
    assert read_in(replaced) == [f"self.{name}" for name in COUNTED]
    given = {name: at for at, name in enumerate(COUNTED, 10) if name in StreamMetrics.__dataclass_fields__}
    metrics = executed(replaced).StreamMetrics(**given, events=50, backpressure=0.5, outcome="disconnected")
    assert metrics.counted() == tuple(getattr(metrics, name) for name in COUNTED)
    assert len({*metrics.counted()}) == len(COUNTED), "a place has another figure than its name says"


def read_in(source: str) -> list[str]:
    """Returns what `counted` reads in the source of a module."""
    (method,) = (
        each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.FunctionDef) and each.name == "counted"
    )
    returned = method.body[-1]
    assert isinstance(returned, ast.Return)
    assert isinstance(returned.value, ast.Tuple)
    return [ast.unparse(each) for each in returned.value.elts]


def test_a_series_counts_its_figure_or_what_it_names_and_members_of_another_object_are_not_read() -> None:
    source = (
        "@dataclass\nclass Few:\n"
        "    b: int = figure('', Series(X), Series(X, source='both'), default=0)\n"
        "    a: tuple = figure('', series('', total='sum'), default=())\n"
        "    sum: int = figure('', default=0)\n"
        "    c: dict = figure('', Series(X, source='inner'), default=None)\n"
        "    def both(self): ...\n"
        "    def counted(self):\n        return ()\n"
    )
    assert read_in(with_initializers(source)) == ["self.a", "self.b", "self.both", "self.sum"]


def test_an_initializer_keeps_what_it_is_given_and_makes_what_is_missing(
    executed: Callable[[str], ModuleType],
) -> None:
    sample = executed(with_initializers(SAMPLE)).Sample
    one, other = sample(1), sample(3, [4], third="y")
    assert (one.first, one.second, one.third, one.double()) == (1, [], "x", 2)
    assert (other.first, other.second, other.third) == (3, [4], "y")
    assert one.second is not sample(1).second
    with pytest.raises(TypeError, match="positional"):
        sample(1, [], "y")


def test_a_frozen_dataclass_has_an_initializer_too_unless_it_has_a_base() -> None:
    """In Python alone the assignments would be refused; mypyc compiles them as those of any other class."""
    written = [line.strip() for line in with_initializers(SAMPLE).split("\n") if "def __init__" in line][1:]
    assert written == [
        "def __init__(self, first: int, second: str = 'y') -> None: self.first = first; self.second = second"
        "  # type: ignore[misc]  # frozen",
        "def __init__(self) -> None: pass",
    ]


def test_a_frozen_dataclass_of_a_compiled_module_stays_frozen() -> None:
    result = CallResult("x", is_error=True)
    assert result == CallResult(value="x", is_error=True)
    with pytest.raises(FrozenInstanceError):
        result.value = "y"  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    "rest",
    [
        "(Base):\n    x: int\n",
        ":\n    def __post_init__(self): ...\n",
        ":\n    def __init__(self): ...\n",
        ":\n    x: ClassVar[int] = 3\n",
        ":\n    _: dataclasses.KW_ONLY\n",
        ":\n    x: int = field(repr=False)\n",
        ":\n    x: int = field(default=3, init=False)\n",
        ":\n    x: int = field(default=3, kw_only=True)\n",
        ":\n    x: int\nimport os\n",
        ":\n    x: int",
    ],
)
def test_a_dataclass_of_another_form_is_refused(rest: str) -> None:
    with pytest.raises(PlatformError, match=r"no `__init__` for the dataclass Odd"):
        with_initializers(f"@dataclass\nclass Odd{rest}")


def test_a_default_may_be_a_call() -> None:
    source = (
        "@dataclass(slots=True)\nclass Plain:\n    x: B = B(default=3)\n    y: D = field(default_factory=lambda: [1])\n"
    )
    method = "def __init__(self, x: B = B(default=3), y: D | None = None) -> None: "
    assert method + "self.x = x; self.y = (lambda: [1])() if y is None else y" in with_initializers(source)


@pytest.mark.parametrize("made", [StreamMetrics, StreamSpec, CallResult])
def test_the_initializers_of_what_each_stream_makes_are_compiled(made: type) -> None:
    assert isinstance(made.__init__, FunctionType) is (switch.MODULES != "compiled")


def test_kernels_stay_where_mypyc_fails_and_a_native_build_fails(build: Build, tmp_path: Path) -> None:
    stand_in = tmp_path / "stand-in/mypyc"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "build.py").write_text(MYPYC_FAILS)
    done = build(PYTHONPATH=str(stand_in.parent))
    assert done.returncode == 0, done.stderr
    assert built(tmp_path) == {"sockets"}
    assert "gai-fast: modules: types do not fit; the modules stay interpreted" in done.stderr
    assert build(PYTHONPATH=str(stand_in.parent), GAI_FAST_BUILD="native").returncode != 0


def test_without_a_compiler_the_package_is_pure_and_a_native_build_fails(build: Build, tmp_path: Path) -> None:
    done = build(CC="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert built(tmp_path) == set()
    assert "gai-fast: kernels: " in done.stderr
    assert "the package will be pure Python" in done.stderr
    assert build(CC="/nonexistent", GAI_FAST_BUILD="native").returncode != 0


def test_a_compiler_that_is_too_old_says_so_and_the_package_is_pure(build: Build, tmp_path: Path) -> None:
    """csrc/compiler.h has the floor; the compiler poses as an older one."""
    done = build(CC=f"{os.environ.get('CC', 'cc')} -U__GNUC__ -D__GNUC__=7")
    assert done.returncode == 0, done.stderr
    assert built(tmp_path) == set()
    assert "gai-fast needs GCC 8 or newer" in done.stderr
    assert "the package will be pure Python" in done.stderr


def test_clang_is_given_no_option_of_gcc_alone(build: Build, tmp_path: Path) -> None:
    """Clang fails on an option that it does not know: the modules would stay interpreted."""
    compiler = tmp_path / "clang"
    compiler.write_text(
        "#!/bin/sh\n"
        'case " $* " in\n'
        '*" -dM "*) set -- "$@" -D__clang__ ;;\n'
        '*" -freorder-blocks-and-partition "*|*" -fno-tree-"*) echo "clang: unknown argument" >&2; exit 1 ;;\n'
        "esac\n"
        f'exec {os.environ.get("CC", "cc")} "$@"\n'
    )
    compiler.chmod(0o755)
    done = build(CC=str(compiler), GAI_FAST_BUILD="native")
    assert done.returncode == 0, done.stderr
    assert built(tmp_path) == {"sockets", "clock", "made", "_compiled__mypyc"}


def test_a_pure_build_compiles_nothing(build: Build, tmp_path: Path) -> None:
    assert build(GAI_FAST_BUILD="pure").returncode == 0
    assert built(tmp_path) == set()


def test_a_compiled_module_that_is_not_there_is_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "gai_fast/runtime/clock.py").unlink()
    done = build(GAI_FAST_BUILD="native")
    assert done.returncode != 0
    assert "building/compiled.txt names modules that are not there: gai_fast/runtime/clock.py" in done.stderr
