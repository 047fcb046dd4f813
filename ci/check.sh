#!/usr/bin/env bash
# Linters and types. PYTHON: an interpreter with the dev extra (default: .venv's).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

"$python" -m ruff check
"$python" -m ruff format --check
"$python" -m mypy
