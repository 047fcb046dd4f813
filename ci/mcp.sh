#!/usr/bin/env bash
# The public conformance suite of MCP, from npm, against our client: nine scenarios, driven by ci/mcp_client.py.
# PYTHON: an interpreter with the package (default: .venv's). The suite needs Node 22, which comes from npm with it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
suite=@modelcontextprotocol/conformance@0.2.0-alpha.12
folder=build/mcp

if [[ $(cat $folder/installed 2>/dev/null) != "$suite" ]]; then
  npm install --prefix $folder --no-audit --no-fund --loglevel=error "$suite" node@22
  echo "$suite" >$folder/installed
fi
modules=$folder/node_modules

failed=0
run() {  # a protocol and its scenarios
  local version=$1 scenario
  for scenario in "${@:2}"; do
    if "$modules/node/bin/node" $modules/@modelcontextprotocol/conformance/dist/index.js client \
      --command "$python ci/mcp_client.py" --scenario "$scenario" --spec-version "$version" >$folder/log 2>&1; then
      echo "$version $scenario: passed"
    else
      failed=$((failed + 1))
      cat $folder/log
      echo "$version $scenario: FAILED"
    fi
  done
}

export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
run 2026-07-28 tools_call request-metadata http-standard-headers http-custom-headers http-invalid-tool-headers \
  json-schema-ref-no-deref
run 2025-11-25 initialize tools_call sse-retry
exit $((failed > 0))
