#!/usr/bin/env bash
# The kernels' tests on each form of the vector loops, forced by GAI_FAST_SIMD, and what this machine does not run. FORMS:
# some of them (default: those of this machine). PYTHON: an interpreter with the tests' packages (default: .venv's).
# Arguments go to pytest, as of ci/kernels.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
forms=$("${PYTHON:-.venv/bin/python}" -c 'from gai_fast.kernels._native import encoders; print(*encoders.forms())')

for form in ${FORMS:-$forms}; do
  echo "== $form"
  GAI_FAST_SIMD=$form ci/kernels.sh "$@"
done
for form in sse avx2 avx512 neon; do
  [[ " $forms " == *" $form "* ]] || echo "simd: $form is not run here: no form of this $(uname -m)"
done
if [ "$(uname -m)" = x86_64 ]; then
  echo 'simd: neon is run by tests/csrc, in C under qemu-aarch64; the Cython kernels are not run on it'
  echo 'simd: avx512 is not run under valgrind, which lacks it; instructions are counted with sse'
fi
