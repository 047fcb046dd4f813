#!/usr/bin/env bash
# Builds a wheel and tries it: ci/wheel.sh SOURCE DIST VENV builds it from SOURCE (a folder or an sdist) into DIST with
# PYTHON (default python3), on Linux as a manylinux or musllinux wheel; installs it with the extra `test` in the new
# environment VENV; and runs the kernels' tests on it. Further arguments are those of ci/kernels.sh. TOOLS: an environment
# of ci/tools.sh (default: a new one).
set -euo pipefail
cd "$(dirname "$0")/.."
source=$1 dist=$2 venv=$3
shift 3
export PIP_DISABLE_PIP_VERSION_CHECK=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$dist"
tools=${TOOLS:-$work/tools}
[ -d "$tools" ] || ci/tools.sh "${PYTHON:-python3}" "$tools"
# Without a pip of its own, which takes 3 s of a core to install.
"${PYTHON:-python3}" -m venv --clear --without-pip "$venv"
GAI_FAST_BUILD=native "$tools/bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$work/built" "$source"
if [ "$(uname)" = Linux ]; then
  # The oldest system that the wheel's symbols allow, or none: then it fails.
  PATH=$tools/bin:$PATH auditwheel repair -w "$work/repaired" "$work"/built/*.whl
  wheel=$(echo "$work"/repaired/*.whl)
else
  wheel=$(echo "$work"/built/*.whl)
fi
case $wheel in *-linux_*.whl) echo "error: $wheel runs on systems like this one alone" >&2; exit 1 ;; esac

"$venv/bin/python" - "$wheel" <<'CHECK'
import sys, zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
wanted = ["gai_fast/py.typed", "gai_fast/providers/demo_recording.ndjson", "gai_fast/server/pages/playground/"]
lost = [name for name in wanted if not any(entry.startswith(name) for entry in names)]
sources = [name for name in names if name.endswith((".c", ".pyx", ".h")) or not name.startswith(("gai_fast/", "gai_fast-"))]
sys.exit(f"error: missing in the wheel: {lost}; not wanted there: {sources}" if lost or sources else 0)
CHECK
cp "$wheel" "$dist"
ls -l "$dist/$(basename "$wheel")"
TOOLS=$tools ci/install.sh "$venv/bin/python" "$wheel[test]"
PYTHON=$venv/bin/python ci/kernels.sh "$@"
