#!/usr/bin/env bash
# The site of the pages, without a network: any warning, such as a link that leads nowhere, is a failure. The argument is
# the folder that is written (default: build/site). PYTHON: an interpreter with the docs extra (default: .venv's).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
site=${1:-build/site}

# What Sphinx keeps between builds is not kept, so that the warnings of every page are seen each time.
kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
"$python" -m sphinx -q -W --keep-going -c docs -d "$kept" . "$site"
