"""Writes requests of all dialects: the interface of a provider's API, rules, targets, refusals."""
