#!/usr/bin/env bash
# The kernels under the address and undefined-behaviour sanitizers: all cases, recordings and damaged inputs of the parity
# tests, at their splits. Builds in a copy, so that the working tree keeps its own build; the C that Cython has made for that
# one is compiled here too. PYTHON: an interpreter with the dev extra (default: .venv's). Arguments go to pytest (default:
# the kernels' tests).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
export GAI_FAST_CORPUS=${GAI_FAST_CORPUS:-$(realpath -m ../shared/streams)}
compiler=${CC:-cc}

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar -c --exclude='*.so' --exclude=__pycache__ pyproject.toml README.md LICENSE setup.py building csrc gai_fast tests tools | tar -x -C "$copy"
cd "$copy"
GAI_FAST_BUILD=native GAI_FAST_SANITIZE=1 "$python" setup.py -q build_ext --inplace --parallel "$(nproc)"

if "$python" -c 'import gai_fast.kernels._native' 2>/dev/null; then
  echo 'sanitize: the build is not sanitized: it loads without the sanitizers' >&2
  exit 1
fi

# Python allocates with malloc, so that every object has its own guarded memory. What it keeps until it exits is no leak.
export PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 GAI_FAST_REQUIRE_EXTENSIONS=1
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)"
if [ $# -eq 0 ]; then
  # Not the requests to upstreams, which no kernel makes.
  set -- tests/csrc tests/unit/kernels/_pure tests/unit/net/test_fast_path.py tests/fuzz tests/parity \
    --ignore tests/fuzz/test_requests.py
fi
# The address sanitizer reserves terabytes, so the process's memory cannot be limited, whichever tests are asked for.
set -- "$@" --deselect tests/fuzz/test_misuse.py::test_a_parser_that_had_no_memory_for_its_input_does_not_go_on_as_if_nothing_were_missing
# -s: a sanitizer writes to standard error and ends the process, and pytest must not hold that back.
LD_PRELOAD=$preload "$python" -m pytest -q -s -p no:cacheprovider --timeout 900 "$@"
