#!/usr/bin/env bash
# Installs what the tests use beside Python: programs, if they are missing and this is Debian or Ubuntu as root, and
# the npm packages of tests/node, in .node.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
for pair in g++:g++ make:make curl:curl redis-server:redis-server nginx:nginx firefox-esr:firefox-esr \
  chromium-headless-shell:chromium-headless-shell valgrind:valgrind node:nodejs npm:npm \
  promtool:prometheus zsh:zsh fish:fish systemd-analyze:systemd; do
  command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
done
# For NEON (tests/csrc). The compiler does not depend on its C library.
if [ "$(uname -m)" = x86_64 ]; then
  command -v aarch64-linux-gnu-gcc >/dev/null && [ -e /usr/aarch64-linux-gnu/include/stdio.h ] ||
    missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
  command -v qemu-aarch64 >/dev/null || missing+=(qemu-user)
fi

if [ ${#missing[@]} -eq 0 ]; then
  echo 'system-deps: everything is there'
elif [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "system-deps: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # In single-user mode the packages do not start their services: the tests start their own, on their own ports.
  export RUNLEVEL=1
  apt-get update -qq
  # All of Chromium can do what its shell does, with three times the work: where there is no package of the shell.
  if [[ " ${missing[*]} " == *" chromium-headless-shell "* ]] && ! apt-cache show -q chromium-headless-shell >/dev/null 2>&1; then
    missing=("${missing[@]/#chromium-headless-shell/chromium}")
  fi
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "system-deps: not root on a machine with apt-get; missing: ${missing[*]}" >&2
fi

if command -v npm >/dev/null && ! cmp -s tests/node/package-lock.json .node/installed; then
  echo 'system-deps: installing the npm packages of tests/node'
  mkdir -p .node
  cp tests/node/package*.json .node/
  npm ci --prefix .node --no-audit --no-fund --loglevel=error
  cp tests/node/package-lock.json .node/installed
fi
