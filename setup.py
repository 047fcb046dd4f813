"""The extensions and the build switch; everything else is in pyproject.toml.

There are two kinds of extension: the Cython kernels (`_native`, whose twins are `_pure`), and the modules in
`COMPILED` and `RARELY_RUN`, which mypyc compiles from their Python source.
docs/architecture/kernels.md, "What is compiled", has the numbers.

GAI_FAST_BUILD: "auto" (default) falls back where compiling fails: without kernels the package is pure Python, without
mypyc the modules stay interpreted. "native" makes both an error. "pure" compiles nothing.
GAI_FAST_MYPYC=0 compiles the kernels only: for `make serve`, and for development, as Python modules can be edited then.
GAI_FAST_OPTIMIZE=0 compiles in half the time, for builds that are tested and not measured.
GAI_FAST_SANITIZE=1 compiles the kernels only, with the address and undefined-behaviour sanitizers.
"""

import ast
import gc
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

BUILD = os.environ.get("GAI_FAST_BUILD", "auto")
MYPYC = os.environ.get("GAI_FAST_MYPYC", "1") not in ("", "0")
OPTIMIZE = os.environ.get("GAI_FAST_OPTIMIZE", "1") not in ("", "0")
SANITIZE = os.environ.get("GAI_FAST_SANITIZE", "0") not in ("", "0")
JOBS = os.cpu_count() or 1
# What the files of a library share stays within it: calls go straight to the function instead of through the linker's
# table, which took 9 % of the CPU of a request (bursts of 100 deltas), and the table's 0.7 MB.
HIDDEN = "-fvisibility=hidden"
# Calls of the interpreter's functions read their addresses and pass by the linker's stubs: 1 % fewer instructions a
# request, and 4 % fewer misses of the instruction cache.
NO_STUBS = "-fno-plt"
# Code for failures stands behind the code of requests (csrc/cold.h), which then takes fewer lines of the caches.
COLD = "-freorder-blocks-and-partition"
# The analysis of pointers finds nothing for mypyc's C that another pass uses: 5 % of the time, for the same code.
NO_POINTERS = "-fno-tree-pta"
GCC_ONLY = (COLD, NO_POINTERS)
"""The options that Clang refuses."""
HEADERS = "build/mypyc/headers.h"
"""The headers that each of mypyc's files includes, and `csrc/cold.h` before them."""
SHIM_HEADERS = "build/mypyc/shim_headers.h"
"""The header that each shim includes: Python's."""
RARE = "rare_"
"""Begins the names of the files that are compiled without optimisation."""
RARE_HEADERS = f"build/mypyc/{RARE}headers.h"
"""A copy of `HEADERS`: once compiled, headers serve only files with the same options."""
BATCHES = 20
RARE_BATCHES = 4
"""So many C files include mypyc's, one a module: the headers take 0.14 s of a core for each, a fifth of all."""
KERNELS = {
    "encoders": ("loops", "simd_scalar", "simd_vector"),
    "parsers": ("loops",),
    "relay": ("loops", "learn"),
    "sockets": ("loops",),
    "tls": ("openssl", "loops"),
}
"""The Cython modules, and the C files in csrc/ that each is linked with."""
WITHOUT_LOOPS = ("sockets", "tls")
"""The Cython modules without loops over bytes: their rows are the same with -O1, which takes half the time of -O3."""
# Only modules whose share of a request was measured, and which can be compiled: mypyc checks annotations at run time,
# loses the `from` of a `raise`, and does not allow to replace a method of an instance, or an attribute of instances by
# one of a subclass (tests/test_architecture.py).
COMPILED = (
    "core/account",
    "core/adapter",
    "core/answer",
    "core/body",
    "core/chunks",
    "core/learning",
    "core/legal_stream",
    "core/meter",
    "core/object_scan",
    "core/reading",
    "core/relay",
    "core/shapes",
    "core/signatures",
    "core/sinks",
    "core/structure",
    "core/transcript",
    "formats/_base",
    "formats/_members",
    "formats/_openai",
    "formats/_passthrough",
    "formats/chat/format",
    "formats/chat/members",
    "formats/chat/parts",
    "formats/chat/passthrough",
    "formats/chat/request",
    "formats/chat/stream",
    "formats/gai",
    "formats/messages/format",
    "formats/messages/members",
    "formats/messages/parts",
    "formats/messages/passthrough",
    "formats/messages/request",
    "formats/messages/stream",
    "formats/responses/format",
    "formats/responses/members",
    "formats/responses/output",
    "formats/responses/parts",
    "formats/responses/passthrough",
    "formats/responses/request",
    "formats/responses/stream",
    "formats/responses/tools",
    "model/figures",
    "net/attempts/attempt",
    "net/attempts/attempts",
    "net/attempts/candidates",
    "net/attempts/error_redaction",
    "net/attempts/spec",
    "net/logs/cursor",
    "net/logs/delivery",
    "net/logs/follower",
    "net/logs/publication",
    "net/logs/view",
    "net/logs/writer",
    "net/stream/durable",
    "net/stream/figures",
    "net/stream/intake",
    "net/stream/metrics_sinks",
    "net/stream/session",
    "net/stream/streams",
    "net/stream/targets",
    "net/stream/timers",
    "net/stream/upstreams",
    "net/upstream/connection",
    "net/upstream/connection_pool",
    "net/upstream/http_request",
    "net/upstream/http_response",
    "net/upstream/idle_time",
    "net/upstream/plain_transport",
    "net/upstream/socket_transport",
    "net/upstream/sockets",
    "net/upstream/tls_transport",
    "providers/_adapter",
    "providers/_anthropic_answers",
    "providers/_base",
    "providers/_chat",
    "providers/_chat_answers",
    "providers/_chat_calls",
    "providers/_events",
    "providers/_failures",
    "providers/_gemini_answers",
    "providers/_gemini_citations",
    "providers/_native_rules",
    "providers/_reasoning_tags",
    "providers/_requests",
    "providers/_responses",
    "providers/_responses_answers",
    "providers/_room",
    "providers/_sdk_texts",
    "providers/_target",
    "providers/_tool_calls",
    "providers/_tool_names",
    "providers/anthropic",
    "providers/cohere",
    "providers/gemini",
    "providers/mistral",
    "providers/ollama",
    "providers/openai",
    "providers/openai_compatible",
    "runtime/clock",
    "runtime/ids",
    "runtime/timers",
    "server/admission/admit",
    "server/admission/callers",
    "server/admission/negotiation",
    "server/admission/server_limits",
    "server/edge/accepted_transport",
    "server/http/replies",
    "server/http/request",
    "server/lanes/lane",
    "server/lanes/request_reader",
    "server/lanes/router",
    "server/observe/access_log",
    "server/observe/counts",
    "server/observe/spend",
    "server/pass_through/headers",
    "server/pass_through/routes",
    "server/pass_through/transfer",
    "server/pass_through/usage",
    "server/requests/incoming",
    "server/requests/specs",
    "server/requests/stream_response",
    "server/requests/streams",
    "server/websocket/ack_window",
    "server/websocket/frame_guard",
    "server/websocket/stream",
    "server/websocket/writer",
    "stores/memory",
    "stores/sealer",
)
# Modules that mypyc compiles too, under the same conditions. No row of `python -m benchmarks.instructions check` spends
# more than 0.2 % of a request in one, so they are compiled without optimisation, which takes two fifths of the time.
RARELY_RUN = (
    "core/limits",
    "core/stored_ids",
    "core/usage",
    "formats/chat/whole",
    "formats/limits",
    "formats/messages/whole",
    "formats/responses/whole",
    "ledger/state",
    "model/changes",
    "model/halves",
    "model/limits",
    "model/money",
    "model/settings",
    "model/upstream_headers",
    "net/attempts/balance",
    "net/attempts/key_ring",
    "net/attempts/retry",
    "net/limits",
    "net/stream/allowance",
    "providers/_chat_mends",
    "providers/_chat_rules",
    "providers/_completions",
    "providers/_finish_words",
    "providers/_messages_rules",
    "providers/_refusals",
    "providers/_responses_rules",
    "providers/_rules",
    "providers/_tuning",
    "providers/limits",
    "runtime/limits",
    "server/admin/recent_requests",
    "server/admission/auth_throttle",
    "server/admission/stored_ids",
    "server/edge/connections",
    "server/http/deadlines",
    "server/http/transport",
    "server/http/write_watch",
    "server/limits/__init__",
    "server/requests/quotas",
)
FIELD_MAKERS = ("field", "figure")
"""The functions that make fields of the dataclasses in `COMPILED`."""
FALL_BACK = (CCompilerError, ExecError, PlatformError, ImportError, OSError, SystemExit)
"""The ways in which compiling fails; where there is no compiler, the threads below raise an OSError."""
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "binding": False,  # plain builtin methods: half the call overhead of Cython's own function type
    "embedsignature": True,
    "embedsignature.format": "clinic",
}


class Build(build_ext):
    """Compiles the kernels, all or none, then the modules for mypyc, all or none.

    Sources are translated to C here and not when `setup` is called: pip runs this file three times, and compiles once.
    """

    def run(self):
        """Compiles both kinds; each falls back on its own."""
        self.extensions = []
        # mypyc translates on one core, 11 s, while the other compiles the kernels.
        with ThreadPoolExecutor(1) as pool:
            parts = PARTS if self._has_compiler() else ()
            self._compile([(translate, instead, pool.submit(translate)) for translate, instead in parts])
        self.distribution.ext_modules = self.extensions
        self._remove_stale(Path(self.build_lib))
        if self.inplace or self.editable_mode:
            self._remove_stale(Path())

    def _has_compiler(self):
        """Returns whether a compiler is there and new enough. Translating for none takes 20 s of a core."""
        probe = CompilerProbe(self.distribution)
        self.distribution.ext_modules = kernel_extensions()
        try:
            probe.ensure_finalized()
            probe.run()
        except FALL_BACK as problem:
            self._fall_back(problem, *PARTS[0])
            return False
        return True

    def _fall_back(self, problem, translate, instead):
        if BUILD == "native":
            raise problem
        print(
            f"gai-fast: {translate.__name__}: {problem}; {instead}. GAI_FAST_BUILD=native makes this an error, "
            "GAI_FAST_BUILD=pure compiles nothing.",
            file=sys.stderr,
        )

    def _compile(self, parts):
        for translate, instead, extensions in parts:
            part = CompileSideBySide(self.distribution)
            for option in ("build_lib", "build_temp", "inplace", "editable_mode", "force", "debug", "parallel"):
                setattr(part, option, getattr(self, option))
            try:
                self.distribution.ext_modules = extensions.result()
                part.ensure_finalized()
                part.run()
            except FALL_BACK as problem:
                self._fall_back(problem, translate, instead)
                break  # modules that are compiled without the kernels would be neither implementation
            self.extensions += part.extensions

    def _remove_stale(self, root):
        """Removes the products of earlier and failed builds, which would be imported in place of the sources."""
        suffix = Path(self.get_ext_filename("any")).name.removeprefix("any")
        current = {root / self.get_ext_filename(self.get_ext_fullname(extension.name)) for extension in self.extensions}
        for path in set((root / "gai_fast").rglob(f"*{suffix}")) - current:
            path.unlink()


class CompilerProbe(build_ext):
    """Compiles one line: csrc/compiler.h refuses what is too old."""

    def build_extensions(self):
        """Compiles no extension."""
        source = Path(self.build_temp) / "probe.c"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text('#include "compiler.h"\n')
        self.compiler.compile([str(source)], output_dir=self.build_temp, include_dirs=["csrc"])


class CompileSideBySide(build_ext):
    """Compiles as many C files at once as there are processors, those of one extension as well."""

    def build_extensions(self):
        """Compiles and links all extensions."""
        self.parallel = self.parallel or JOBS
        compile_all = self.compiler.compile
        with ThreadPoolExecutor(JOBS) as pool:

            def compile_one(source, extra_postargs=(), **options):
                return compile_all([source], extra_postargs=options_of(source, extra_postargs), **options)

            def compile_each(sources, **options):
                largest_first = sorted(sources, key=os.path.getsize, reverse=True)
                objects = pool.map(lambda source: compile_one(source, **options), largest_first)
                return [each for made in objects for each in made]

            self.compiler.compile = compile_each
            if self._is_clang():
                for extension in self.extensions:
                    options = extension.extra_compile_args
                    extension.extra_compile_args = [each for each in options if each not in GCC_ONLY]
            if sys.platform == "linux":
                for header in (HEADERS, RARE_HEADERS, SHIM_HEADERS):
                    self._precompile(header)
            super().build_extensions()

    def _is_clang(self):
        """Asks the compiler, since it may be called `cc`; of macOS even `gcc` is Clang."""
        macros = [*self.compiler.compiler_so, "-dM", "-E", "-x", "c", os.devnull]
        return "__clang__" in subprocess.run(macros, capture_output=True, text=True, check=False).stdout

    def _precompile(self, header):
        """Parses a header once and not for each of mypyc's files and shims."""
        for extension in self.extensions:
            options = options_of(header, extension.extra_compile_args)
            if header in options:
                break
        else:
            return
        folders = [f"-I{folder}" for folder in (*self.include_dirs, *extension.include_dirs)]
        options = [each for each in options if each not in ("-include", header)]
        compiler = [*self.compiler.compiler_so, *folders, *options, "-x", "c-header"]
        self.spawn([*compiler, header, "-o", f"{header}.gch"])


def kernels():
    """The Cython kernels as extensions in C."""
    from Cython.Build import cythonize  # not needed, and perhaps not there, for a pure build

    return cythonize(kernel_extensions(), compiler_directives=DIRECTIVES, nthreads=JOBS)


def kernel_extensions():
    # Without CPython's -g a kernel compiles in three quarters of the time. A sanitizer names lines: -g1 will do. With
    # -O0 its step takes 26 s of a core less.
    optimised = ["-O0", "-g1"] if SANITIZE else ["-O3" if OPTIMIZE else "-O1", "-g0"]
    checks = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"] if SANITIZE else []
    return [
        Extension(
            f"gai_fast.kernels._native.{name}",
            [f"gai_fast/kernels/_native/{name}.pyx", *(f"csrc/{source}.c" for source in sources)],
            include_dirs=["csrc"],
            depends=[str(header) for header in sorted(Path("csrc").glob("*.h"))],
            extra_compile_args=[*checks, *optimised, "-std=c11", HIDDEN, NO_STUBS],
            extra_link_args=checks,
        )
        for name, sources in KERNELS.items()
    ]


def options_of(source, options):
    """Returns the options that a C file is compiled with, from those of its extension."""
    if Path(source).name.startswith(RARE):
        return [*(RARE_HEADERS if each == HEADERS else each for each in options), "-O0"]
    if "-O3" in options and Path(source).stem in WITHOUT_LOOPS:
        return [*options, "-O1"]
    return options


def in_batches(sources, rare):
    """Returns C files of one size that include mypyc's; the files of its own library are left as they are.

    A batch that is there is not written again: a library whose sources are as old as before is not compiled.

    Args:
        sources: mypyc's files, and those of its own library.
        rare: The names of the files of `RARELY_RUN`.
    """
    ours = sorted((path for path in sources if Path(path).name.startswith("__native_")), key=os.path.getsize)
    often = [path for path in ours if Path(path).name not in rare]
    rest = [path for path in ours if Path(path).name in rare]
    batches = [*write_batches("batch_", often, BATCHES), *write_batches(f"{RARE}batch_", rest, RARE_BATCHES)]
    return [*batches, *(path for path in sources if path not in ours)]


def write_batches(prefix, paths, count):
    for number in range(min(count, len(paths))):
        batch = Path(f"build/mypyc/{prefix}{number}.c")
        text = "".join(f'#include "{Path(path).name}"\n' for path in paths[number::count])
        if not batch.is_file() or batch.read_text() != text:
            batch.write_text(text)
        yield str(batch)


def shadows():
    """Yields mypy's options that replace the sources of some modules of `COMPILED`; writes the replacements."""
    for name in COMPILED:
        path, shadow = Path(f"gai_fast/{name}.py"), Path(f"build/mypyc/{name.replace('/', '.')}.py")
        source = path.read_text("utf-8")
        if (replacement := with_initializers(source)) != source:
            shadow.parent.mkdir(parents=True, exist_ok=True)
            shadow.write_text(replacement, "utf-8")
            yield from ("--shadow-file", str(path), str(shadow))


def with_initializers(source):
    """Returns the source of a module in which each dataclass that is not frozen defines its `__init__`.

    mypyc leaves a dataclass's `__init__` to the interpreter, which costs a request 11,000 instructions for its figures
    alone. The method replaces the empty line below its class, so line numbers do not change.

    Raises:
        PlatformError: A dataclass has a form for which no `__init__` is written.
    """
    if "@dataclass" not in source:
        return source
    lines = source.split("\n")
    for each in ast.parse(source).body:
        options = dataclass_options(each) if isinstance(each, ast.ClassDef) else None
        if options is None or options.get("frozen"):
            continue
        if lines[each.end_lineno : each.end_lineno + 1] != [""]:
            raise unwritten(each, "no empty line follows")
        lines[each.end_lineno] = f"    {initializer(each, options)}"
    return "\n".join(lines)


def dataclass_options(parsed):
    """Returns the options of a class's decorator `dataclass`. None if it has no such decorator."""
    for mark in parsed.decorator_list:
        call = mark if isinstance(mark, ast.Call) else ast.Call(mark, [], [])
        if isinstance(call.func, ast.Name) and call.func.id == "dataclass":
            return {each.arg: each.value.value for each in call.keywords}
    return None


def initializer(parsed, options):
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
    return f"def __init__(self, {', '.join(parameters)}) -> None: {'; '.join(values)}"


def unwritten(parsed, reason):
    return PlatformError(f"setup.py writes no `__init__` for the dataclass {parsed.name}: {reason}")


def compiled_modules():
    """The modules that mypyc compiles, in one library so that they call each other directly, a C file each."""
    if SANITIZE or not MYPYC:
        return []
    paths = [f"gai_fast/{name}.py" for name in (*COMPILED, *RARELY_RUN)]
    if missing := [path for path in paths if not Path(path).is_file()]:
        raise PlatformError(f"setup.py names modules that are not there: {', '.join(missing)}")
    from mypyc.build import mypycify  # perhaps not there where a build is not isolated

    extensions = mypycify(
        # aiohttp is not there where a build is isolated, so its classes count as `Any`.
        ["--python-version", "{}.{}".format(*sys.version_info), "--allow-subclassing-any", *shadows(), *paths],
        # A third of the CPU time of -O3, for 1 % more instructions a request.
        opt_level="1" if OPTIMIZE else "0",
        debug_level="0",
        multi_file=True,
        group_name="gai_fast._compiled",
        target_dir="build/mypyc",
    )
    gc.freeze()  # or the interpreter collects what mypy leaves when it ends: 6 s in which nothing else is left to do
    names = ("../../csrc/cold.h", "__native__compiled.h", "__native_internal__compiled.h")
    for header in (HEADERS, RARE_HEADERS):
        Path(header).write_text("".join(f'#include "{name}"\n' for name in names))
    Path(SHIM_HEADERS).write_text("#include <Python.h>\n")
    library, *shims = extensions  # a shim is what a module is imported through
    library.include_dirs.append("build/mypyc/gai_fast")  # mypyc includes its header without the group's folder
    library.depends += ["csrc/cold.h", *paths, *library.sources]
    from mypyc.namegen import exported_name

    rare = (f"gai_fast.{name.removesuffix('/__init__').replace('/', '.')}" for name in RARELY_RUN)
    library.sources = in_batches(library.sources, {f"__native_{exported_name(name)}.c" for name in rare})
    for extension in extensions:  # which share a list of options; a warning of a later compiler is no reason to be slow
        extension.extra_compile_args = [*extension.extra_compile_args, HIDDEN, NO_STUBS, "-Wno-error"]
    library.extra_compile_args += ["-include", HEADERS, *GCC_ONLY]
    for shim in shims:
        shim.extra_compile_args += ["-include", SHIM_HEADERS]
    return [*shims, library]  # behind the library one core would compile the shims, and the others would wait


PARTS = (
    (kernels, "the package will be pure Python, which does the same more slowly"),
    (compiled_modules, "the modules stay interpreted, and a request takes twice the time"),
)
if BUILD == "pure":
    PARTS = ()
if BUILD not in ("auto", "native", "pure"):
    raise SystemExit(f"GAI_FAST_BUILD must be auto, native or pure, not {BUILD!r}")
if __name__ == "__main__":  # not in the processes of `cythonize`, which import this file on some systems
    setup(ext_modules=[] if BUILD == "pure" else kernel_extensions(), cmdclass={"build_ext": Build})
