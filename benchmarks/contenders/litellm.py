"""The LiteLLM proxy: parses every chunk and writes it again in the same dialect. Heavy to install; full run only."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.contenders import CHAT, Contender, Place

CONFIG = """\
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: {upstream}/v1
      api_key: none
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""


def _command(place: Place) -> Sequence[str]:
    config = place.folder / "litellm.yaml"
    config.write_text(CONFIG.format(upstream=place.upstream))
    program = place.python.with_name("litellm")
    return str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"


CONTENDERS = (
    Contender(
        name="LiteLLM proxy",
        does="passes through",
        note="POST /v1/chat/completions, one worker, defaults",
        command=_command,
        route=CHAT,
        requirements=("litellm[proxy]",),
        distributions=("litellm", "uvicorn", "openai"),
        # Without it the first seconds go into looking for a price list on the network.
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
        most_streams=100,
        start_seconds=120.0,
    ),
)
