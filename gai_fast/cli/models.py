"""`gai-fast models`: lists the models that a request may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gai_fast.cli import config_option, json_option, load_config, print_json
from gai_fast.model.settings import ModelSettings


@click.command()
@config_option
@json_option
def command(config_path: Path | None, json: bool) -> None:
    """List the models that a request may name."""
    settings = load_config(config_path).settings
    default = settings.model(None)
    models = [_described(model) for model in settings.models.values()]
    if json:
        upstreams = [
            {"name": upstream.name, "provider": upstream.provider, "base_url": upstream.base_url}
            for upstream in settings.upstreams.values()
        ]
        print_json({"default": default and default.name, "models": models, "upstreams": upstreams})
        return
    rows = [
        (name, _places(model) if model.upstream.name in settings.upstreams else "a recording")
        for name, model in settings.models.items()
    ]
    rows += [(f"{name}/<id>", f"any model of {name}") for name in settings.upstreams]
    width = max((len(name) for name, _ in rows), default=0)
    for name, what in rows:
        click.echo(f"{name:{width}}  {what}{'  (default)' if default and name == default.name else ''}")


def _described(model: ModelSettings) -> dict[str, Any]:
    """Returns a model as a JSON object."""
    upstream = model.upstream
    about = {"name": model.name, "upstream": upstream.name, "provider": upstream.provider, "id": model.id}
    if not model.targets:
        return about
    return {**about, "targets": [{"upstream": each.upstream.name, "id": each.id} for each in model.targets]}


def _places(model: ModelSettings) -> str:
    """Returns the upstreams of a model, each with its id of the model."""
    return ", ".join(f"{each.id} of {each.upstream.name}" for each in model.targets or (model,))
