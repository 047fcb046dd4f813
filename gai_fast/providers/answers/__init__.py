"""Reads answers of all dialects: the adapters' base, events, failures, tool calls, usage."""
