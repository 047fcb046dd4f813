"""Writes requests, whatever dialect they are in: the interface of a provider's API, rules, targets, refusals."""
