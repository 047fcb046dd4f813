"""OpenAI's Chat Completions, as its provider and those that follow it speak it."""
