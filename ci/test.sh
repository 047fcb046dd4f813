#!/usr/bin/env bash
# The tests: all of them, or those that the arguments name. PYTHON: an interpreter with the dev extra (default: .venv's).
# GAI_FAST_REQUIRE_ALL=1 makes any skip a failure and tests the native implementation, GAI_FAST_NO_EXTENSIONS=1 tests the
# pure one. tests/README.md has the other variables.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

if [ -n "${GAI_FAST_REQUIRE_ALL:-}" ] && [ -z "${GAI_FAST_NO_EXTENSIONS:-}" ]; then
  export GAI_FAST_REQUIRE_EXTENSIONS=1
fi
"$python" - <<'VERSION'
import platform
from gai_fast import IMPLEMENTATION
from gai_fast.kernels import MODULES
print(f"testing {IMPLEMENTATION}, modules {MODULES}, on {platform.python_version()}")
VERSION
exec "$python" -m pytest -q --durations 15 --durations-min 1 "$@"
