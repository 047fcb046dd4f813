#!/usr/bin/env bash
# The tests: all of them, or those the arguments name. PYTHON: an interpreter with the dev extra (default: .venv's).
# With GAI_FAST_REQUIRE_ALL=1 whatever this machine lacks is a failure, otherwise a skip with its reason;
# GAI_FAST_NO_EXTENSIONS=1 tests the pure implementation.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

if [ -n "${GAI_FAST_REQUIRE_ALL:-}" ] && [ -z "${GAI_FAST_NO_EXTENSIONS:-}" ]; then
  export GAI_FAST_REQUIRE_EXTENSIONS=1
fi
"$python" -c 'import gai_fast, platform; print(f"testing {gai_fast.IMPLEMENTATION} on {platform.python_version()}")'
# Without the extension every test of it is skipped, as asked: hundreds of lines that would hide the rest.
exec "$python" -m pytest -q ${GAI_FAST_NO_EXTENSIONS:+-rfE} "$@"
