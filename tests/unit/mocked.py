"""Settings of a gateway whose one model is a mock; `conftest.py` has the fixtures."""

from __future__ import annotations

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import ModelSettings, Settings, UpstreamSettings


def settings_for(mock: Mock) -> Settings:
    upstream = UpstreamSettings("up", "openai-compatible", f"{mock.url}/v1")
    return Settings(upstreams={"up": upstream}, models={"m": ModelSettings("m", upstream, "mock")})
