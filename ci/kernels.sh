#!/usr/bin/env bash
# The tests that native and pure kernels are equal, on the gai_fast that PYTHON imports (default: .venv's), away from the
# sources: for an installed wheel. Arguments go to pytest (default: tests/parity).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-.venv/bin/python}")
case $python in /*) ;; *) python=$PWD/$python ;; esac
[ $# -gt 0 ] || set -- tests/parity

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/benchmarks"
cp -R tests pyproject.toml "$copy"
cp -R benchmarks/*.py benchmarks/instructions "$copy/benchmarks" # which some tests take their cases from
cd "$copy"
GAI_FAST_REQUIRE_EXTENSIONS=1 "$python" -c \
  'import gai_fast; from gai_fast.kernels import SIMD; print(f"kernels: {gai_fast.IMPLEMENTATION}, {SIMD}, {gai_fast.__path__[0]}")'
GAI_FAST_REQUIRE_EXTENSIONS=1 "$python" -m pytest -q -p no:cacheprovider "$@"
