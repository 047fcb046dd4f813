"""Portkey's gateway, from npm: reads the stream as text, frame by frame, and writes it as it came. Full run only."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.contenders import CHAT, Contender, Place
from benchmarks.contenders.versions import NPM, NPM_OVERRIDES

PACKAGE = "@portkey-ai/gateway"
MANIFEST = json.dumps({"private": True, "dependencies": NPM, "overrides": NPM_OVERRIDES})
INSTALL_SECONDS = 300
# It would listen on every address, and forwards to any host that a request names.
LOOPBACK = (
    "data:text/javascript,"
    'import net from "node:net";'
    "const listen = net.Server.prototype.listen;"
    'net.Server.prototype.listen = function (port, ...more) { return listen.call(this, port, "127.0.0.1", ...more); };'
)


def _folder(place: Place) -> Path:
    return place.cache / f"npm-{hashlib.sha256(MANIFEST.encode()).hexdigest()[:12]}"


def _prepare(place: Place) -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is not installed")
    folder = _folder(place)
    if folder.exists():
        return
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / "package.json").write_text(MANIFEST)
    command = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    done = subprocess.run(
        command,
        cwd=unfinished,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [str(done.returncode)]
        raise RuntimeError(f"npm install: {errors[0]}")
    unfinished.rename(folder)


def _installed(place: Place) -> Path:
    return _folder(place) / "node_modules" / PACKAGE


def _command(place: Place) -> Sequence[str]:
    program = _installed(place) / "build/start-server.js"
    return "node", "--import", LOOPBACK, str(program), "--headless", f"--port={place.port}"


def _version(place: Place) -> Sequence[str]:
    manifest = json.dumps(str(_installed(place) / "package.json"))
    return "node", "-p", f"`{PACKAGE} ${{require({manifest}).version}}, node ${{process.version}}`"


CONTENDERS = (
    Contender(
        name="Portkey gateway",
        does="passes through",
        note="POST /v1/chat/completions, node, one process; provider and host in headers",
        command=_command,
        route=replace(
            CHAT,
            headers={
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": "{upstream}/v1",
                "authorization": "Bearer none",
            },
        ),
        version=_version,
        prepare=_prepare,
        start_seconds=60.0,
    ),
)
