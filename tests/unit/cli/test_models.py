"""`gai-fast models`: what a request may name."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run


def test_zero_configuration_offers_the_demo_and_any_model_of_each_upstream(run: Run) -> None:
    assert run("models").output.splitlines() == ["demo  a recording  (default)"]
    result = run("models", env={"OPENAI_API_KEY": "sk"})
    first, *_, demo, others = result.output.splitlines()
    assert first.split() == ["openai/gpt-5-mini", "gpt-5-mini", "of", "openai", "(default)"]
    assert (demo.split(), others.split()[0]) == (["demo", "a", "recording"], "openai/<id>")


def test_the_default_is_marked_and_json_holds_the_same(run: Run, folder: Path) -> None:
    (folder / "c.toml").write_text(
        '[server]\ndefault_model = "big"\ndemo = false\n'
        '[[upstream]]\nname = "main"\nprovider = "openai"\nbase_url = "http://127.0.0.1:9"\n'
        '[[model]]\nname = "fast"\nupstream = "main"\nid = "gpt-mini"\n[[model]]\nname = "big"\nupstream = "main"\n'
    )
    assert run("models", "-c", "c.toml").output.splitlines() == [
        "fast       gpt-mini of main",
        "big        big of main  (default)",
        "main/<id>  any model of main",
    ]
    assert json.loads(run("models", "-c", "c.toml", "--json").output) == {
        "default": "big",
        "models": [
            {"name": "fast", "upstream": "main", "provider": "openai", "id": "gpt-mini"},
            {"name": "big", "upstream": "main", "provider": "openai", "id": "big"},
        ],
        "upstreams": [{"name": "main", "provider": "openai", "base_url": "http://127.0.0.1:9"}],
    }


def test_a_model_is_listed_with_its_targets(run: Run, folder: Path) -> None:
    (folder / "c.toml").write_text(
        "[server]\ndemo = false\n"
        '[[upstream]]\nname = "main"\nprovider = "openai"\nbase_url = "http://127.0.0.1:9"\n'
        '[[model]]\nname = "fast"\ntargets = [{upstream = "main", id = "a"}, {upstream = "main", id = "b"}]\n'
    )
    assert run("models", "-c", "c.toml").output.splitlines()[0] == "fast       a of main, b of main  (default)"
    [model] = json.loads(run("models", "-c", "c.toml", "--json").output)["models"]
    assert model["targets"] == [{"upstream": "main", "id": "a"}, {"upstream": "main", "id": "b"}]


def test_where_nothing_is_offered_nothing_is_listed(run: Run) -> None:
    environ = {"GAI_FAST_SERVER__DEMO": "false"}
    assert run("models", env=environ).output == ""
    assert json.loads(run("models", "--json", env=environ).output) == {"default": None, "models": [], "upstreams": []}
