"""`gai-fast version`: prints the versions that a bug report needs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from gai_fast.cli import json_option, print_json
from gai_fast.kernels import IMPLEMENTATION, MODULES, SIMD
from gai_fast.model.version import __version__

DEPENDENCIES = ("aiohttp", "click", "httptools", "msgspec", "orjson", "uvloop")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@click.command()
@json_option
def command(json: bool) -> None:
    """Print versions, and which parts of the package are compiled.

    The native kernels, the modules around them and the vector instructions in use are listed separately.
    """
    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}"
    dependencies = {name: _version(name) for name in DEPENDENCIES}
    if json:
        print_json(
            {
                "version": __version__,
                "implementation": IMPLEMENTATION,
                "modules": MODULES,
                "simd": SIMD,
                "python": python,
                "platform": system,
                "dependencies": dependencies,
            }
        )
        return
    click.echo(f"gai-fast {__version__} ({IMPLEMENTATION}, {python}, {system})")
    click.echo(f"modules {MODULES}")
    click.echo(f"simd {SIMD or 'none'}")
    for name, installed in dependencies.items():
        click.echo(f"{name} {installed or 'not installed'}")
