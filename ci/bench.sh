#!/usr/bin/env bash
# Benchmarks of the kernels: instructions and allocations per event against the committed baseline (which fails on ±3 %),
# then nanoseconds per event on both implementations. Servers are measured by `make bench`. PYTHON: an interpreter with
# the bench extra and Cython's build in place (default: .venv's). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export GAI_FAST_REQUIRE_EXTENSIONS=1

"$python" -m benchmarks.instructions check
exec "$python" -m pytest -q benchmarks/micro --benchmark-disable-gc --benchmark-max-time 0.3 --benchmark-columns min,median "$@"
