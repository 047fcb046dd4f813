"""Anthropic's Messages: its rules and its answers. `anthropic.py` writes the requests."""
