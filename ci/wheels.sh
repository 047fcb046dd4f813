#!/usr/bin/env bash
# Builds the sdist and a wheel for one interpreter (PYTHON, default python3) into dist/ and tries both in empty
# environments: the wheel must be native and serve the demo; without a compiler the sdist must install and work as
# pure Python. Release wheels for the other versions and machines are cibuildwheel's (pyproject.toml).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

empty_venv() { "$python" -m venv "$work/$1"; }

# The answer of the demo through the installed package, away from the sources.
try() {
  local bin=$work/$1/bin log=$work/$1.log answer=$work/$1.sse url=
  "$bin/gai-fast" version
  "$bin/gai-fast" serve --port 0 >"$log" 2>&1 &
  server=$!
  # The banner says where it listens; it is printed when it does. A server that never does is a failure, not a hang.
  local end=$((SECONDS + 300))
  until [ -n "$url" ] || ! kill -0 "$server" || [ $SECONDS -ge $end ]; do
    sleep 0.2
    url=$(sed -n 's/^gai-fast .* on //p' "$log")
  done
  curl -sS --fail --max-time 300 "$url/api/v1/stream" -H 'content-type: application/json' \
    -d '{"model": "demo", "query": "Hello"}' >"$answer" || { cat "$log" >&2; return 1; }
  kill "$server" && wait "$server" || true
  server=
  grep -q '"type":"done","finished":true' "$answer" || { cat "$log" "$answer" >&2; return 1; }
  echo "$1: served the demo, $(grep -c '^event: text.delta' "$answer") text deltas"
}

expect() {
  local found
  found=$("$work/$1/bin/python" -P -c 'import gai_fast; print(gai_fast.IMPLEMENTATION)')
  [ "$found" = "$2" ] || { echo "error: $1 is $found, not $2" >&2; exit 1; }
}

echo '== sdist and wheel'
empty_venv tools
"$work/tools/bin/python" -m pip install -qq build auditwheel
rm -rf dist
GAI_FAST_BUILD=native "$work/tools/bin/python" -m build --outdir dist . >"$work/build.log" 2>&1 ||
  { cat "$work/build.log" >&2; exit 1; }
sdist=$(echo "$PWD"/dist/*.tar.gz)
wheel=$(echo "$PWD"/dist/*.whl)
ls -l dist
"$work/tools/bin/python" - "$wheel" <<'CHECK'
import sys, zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
wanted = ["gai_fast/py.typed", "gai_fast/providers/demo_recording.ndjson", "gai_fast/server/playground/"]
lost = [name for name in wanted if not any(entry.startswith(name) for entry in names)]
sources = [name for name in names if name.endswith((".c", ".pyx", ".h")) or not name.startswith(("gai_fast/", "gai_fast-"))]
sys.exit(f"error: missing in the wheel: {lost}; not wanted there: {sources}" if lost or sources else 0)
CHECK
[ "$(uname)" != Linux ] || "$work/tools/bin/python" -m auditwheel show "$wheel"

echo '== the wheel in an empty environment'
empty_venv native
"$work/native/bin/python" -m pip install -qq "$wheel"
expect native native
try native

echo '== the sdist without a compiler, and without uvloop'
empty_venv pure
GAI_FAST_BUILD=auto CC=/nonexistent CXX=/nonexistent "$work/pure/bin/python" -m pip install -qq --no-cache-dir "$sdist"
"$work/pure/bin/python" -m pip uninstall -qq -y uvloop
expect pure pure
try pure
