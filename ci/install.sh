#!/usr/bin/env bash
# Installs packages: ci/install.sh PYTHON ARGUMENT... puts them into the environment of PYTHON. The arguments are those
# that `pip install` and `uv pip install` share. uv takes 3 s of a core for what the tests need, and pip 38. pip takes its
# place if uv is not there, or fails: uv does not read pip's configuration, which may name another index.
# TOOLS: the environment that has uv and pip (default: the one of PYTHON). VERBOSE=1 shows the progress.
set -euo pipefail
into=$1
shift
tools=${TOOLS:-$(dirname "$(dirname "$into")")}
quiet=() quieter=()
[ -n "${VERBOSE:-}" ] || quiet=(-q) quieter=(-qq)
if [ -x "$tools/bin/uv" ]; then
  # uv has other names for pip's variables.
  [ -z "${PIP_CONSTRAINT:-}" ] || export UV_CONSTRAINT=$PIP_CONSTRAINT
  [ -z "${PIP_BUILD_CONSTRAINT:-}" ] || export UV_BUILD_CONSTRAINT=$PIP_BUILD_CONSTRAINT
  "$tools/bin/uv" pip install ${quiet[@]+"${quiet[@]}"} --python "$into" "$@" && exit
  echo 'uv failed, as it says above; pip is tried' >&2
fi
"$tools/bin/python" -m pip --python "$into" install ${quieter[@]+"${quieter[@]}"} --disable-pip-version-check \
  --no-compile "$@"
