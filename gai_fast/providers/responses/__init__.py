"""OpenAI's Responses, as its provider and those that follow it speak it."""
