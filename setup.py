"""Builds the package; `building/` has the extensions and the build switch, pyproject.toml everything else."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))  # not there where pip builds

from building.commands import Build
from building.kernels import extensions
from building.switch import BUILD

if __name__ == "__main__":  # not in the processes of `cythonize`, which import this file on some systems
    setup(ext_modules=[] if BUILD == "pure" else extensions(), cmdclass={"build_ext": Build})
