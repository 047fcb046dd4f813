#!/usr/bin/env bash
# Prints a working CPython of a version, e.g. ci/find-python.sh 3.12: from PATH, else from pyenv.
set -euo pipefail
version=${1:?usage: ci/find-python.sh 3.12}

for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
  # A pyenv shim is on PATH even if pyenv does not offer that version, so it is asked to run.
  if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
    "$candidate" -c 'import sys; print(sys.executable)'
    exit
  fi
done
echo "error: no CPython $version on PATH or under pyenv" >&2
exit 1
