#!/usr/bin/env bash
# Builds the sdist and a wheel for one interpreter (PYTHON, default python3) into dist/ and tries both in environments of
# their own: the wheel must be native, pass the kernels' tests (the arguments, as of ci/kernels.sh) and serve the demo;
# without a compiler the sdist must install and work as pure Python. VENV: where the wheel's environment is to be, which is
# otherwise removed. Release wheels for the other versions and machines are cibuildwheel's (pyproject.toml,
# .github/workflows/release.yml).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
native=${VENV:-$work/native}
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

# The answer of the demo through the installed package, away from the sources.
try() {
  local bin=$1/bin log=$work/log answer=$work/answer url=
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
  echo "served the demo, $(grep -c '^event: text.delta' "$answer") text deltas"
}

expect() {
  local found
  found=$("$1/bin/python" -P -c 'import gai_fast; print(gai_fast.IMPLEMENTATION)')
  [ "$found" = "$2" ] || { echo "error: the package is $found, not $2" >&2; exit 1; }
}

echo '== sdist'
ci/tools.sh "$python" "$work/tools"
rm -rf dist
"$work/tools/bin/python" -m build --no-isolation --sdist --outdir dist . >"$work/build.log" 2>&1 ||
  { cat "$work/build.log" >&2; exit 1; }
sdist=$(echo "$PWD"/dist/*.tar.gz)

echo '== the wheel in an environment of its own'
PYTHON=$python TOOLS=$work/tools ci/wheel.sh "$sdist" dist "$native" "$@"
expect "$native" native
try "$native"

echo '== the sdist without a compiler, and without uvloop'
"$python" -m venv --without-pip "$work/pure"
TOOLS=$work/tools GAI_FAST_BUILD=auto CC=/nonexistent CXX=/nonexistent ci/install.sh "$work/pure/bin/python" "$sdist"
"$work/tools/bin/python" -m pip --python "$work/pure/bin/python" uninstall -qq -y uvloop
expect "$work/pure" pure
try "$work/pure"
