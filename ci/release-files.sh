#!/usr/bin/env bash
# Fails unless a folder has all files of a release: the sdist, and a wheel for each version of Python, system and machine.
set -euo pipefail
folder=${1:?usage: ci/release-files.sh FOLDER}
missing=0

want() {
  local found
  found=$(find "$folder" -name "$1")
  [ -n "$found" ] || { echo "error: no $1 in $folder" >&2; missing=1; }
}

want 'gai_fast-*.tar.gz'
for python in cp311 cp312 cp313 cp314; do
  for machine in x86_64 aarch64; do
    want "gai_fast-*-$python-$python-*manylinux*_$machine.whl"
    want "gai_fast-*-$python-$python-musllinux*_$machine.whl"
  done
  for machine in x86_64 arm64; do
    want "gai_fast-*-$python-$python-macosx_*_$machine.whl"
  done
done
exit $missing
