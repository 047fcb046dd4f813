"""`Build`, the command that compiles the extensions, and what is left of the package if that fails."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

from building import kernels, modules
from building.switch import BUILD

FAILURES = (CCompilerError, ExecError, PlatformError, ImportError, OSError, SystemExit)
"""The ways in which compiling fails; if there is no compiler, the threads below raise an OSError."""
WITHOUT_KERNELS = "the package will be pure Python, which does the same more slowly"
WITHOUT_MODULES = "the modules stay interpreted, and a request takes twice the time"


class Build(build_ext):
    """Compiles the kernels, all or none, then the modules for mypyc, all or none.

    Sources are translated to C here and not when `setup` is called: pip runs setup.py three times, and compiles once.
    """

    def run(self) -> None:
        """Compiles both kinds. Modules without the kernels would be neither implementation."""
        compiled: list[Extension] = []
        if BUILD != "pure" and self._has_compiler():
            for name, translate, instead in (
                ("kernels", kernels.translated, WITHOUT_KERNELS),
                ("modules", modules.translated, WITHOUT_MODULES),
            ):
                if (extensions := self._compiled(name, translate, instead)) is None:
                    break
                compiled += extensions
        self.extensions = self.distribution.ext_modules = compiled
        self._remove_stale(Path(self.build_lib))
        if self.inplace or self.editable_mode:
            self._remove_stale(Path())

    def _has_compiler(self) -> bool:
        """Returns whether a compiler is there and new enough. Translating for none takes 20 s of a core."""
        probe = CompilerProbe(self.distribution)
        self.distribution.ext_modules = kernels.extensions()
        try:
            probe.ensure_finalized()
            probe.run()
        except FAILURES as problem:
            self._fall_back("kernels", problem, WITHOUT_KERNELS)
            return False
        return True

    def _compiled(self, name: str, translate: Callable[[], list[Extension]], instead: str) -> list[Extension] | None:
        """Returns the extensions of one kind, compiled. None if that failed, and the package does without."""
        part = CompileSideBySide(self.distribution)
        for option in ("build_lib", "build_temp", "inplace", "editable_mode", "force", "debug", "parallel"):
            setattr(part, option, getattr(self, option))
        try:
            self.distribution.ext_modules = translate()
            part.ensure_finalized()
            part.run()
        except FAILURES as problem:
            self._fall_back(name, problem, instead)
            return None
        return part.extensions

    def _fall_back(self, name: str, problem: BaseException, instead: str) -> None:
        if BUILD == "native":
            raise problem
        print(
            f"gai-fast: {name}: {problem}; {instead}. GAI_FAST_BUILD=native makes this an error, GAI_FAST_BUILD=pure "
            "compiles nothing.",
            file=sys.stderr,
        )

    def _remove_stale(self, root: Path) -> None:
        """Removes the products of earlier and failed builds, which would be imported in place of the sources."""
        suffix = Path(self.get_ext_filename("any")).name.removeprefix("any")
        current = {root / self.get_ext_filename(self.get_ext_fullname(extension.name)) for extension in self.extensions}
        for path in set((root / "gai_fast").rglob(f"*{suffix}")) - current:
            path.unlink()


class CompilerProbe(build_ext):
    """Compiles one line: csrc/compiler.h refuses what is too old."""

    def build_extensions(self) -> None:
        """Compiles no extension."""
        source = Path(self.build_temp) / "probe.c"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text('#include "compiler.h"\n', "utf-8")
        self.compiler.compile([str(source)], output_dir=self.build_temp, include_dirs=["csrc"])


class CompileSideBySide(build_ext):
    """Compiles as many C files at once as there are processors, those of one extension as well."""

    def build_extensions(self) -> None:
        """Compiles and links all extensions."""
        jobs = os.cpu_count() or 1
        self.parallel = self.parallel or jobs
        compile_all = self.compiler.compile
        if self._is_clang():
            for extension in self.extensions:
                options = extension.extra_compile_args
                extension.extra_compile_args = [each for each in options if each != modules.COLD]
        with ThreadPoolExecutor(jobs) as pool:

            def compile_each(sources: list[str], **options: object) -> list[str]:
                objects = pool.map(lambda source: compile_all([source], **options), sources)
                return [each for made in objects for each in made]

            self.compiler.compile = compile_each
            super().build_extensions()

    def _is_clang(self) -> bool:
        """Asks the compiler, since it may be called `cc`; of macOS even `gcc` is Clang."""
        macros = [*self.compiler.compiler_so, "-dM", "-E", "-x", "c", os.devnull]
        return "__clang__" in subprocess.run(macros, capture_output=True, text=True, check=False).stdout
