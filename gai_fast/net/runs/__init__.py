"""Runs: turns of a model, and the calls of the gateway's tools between them."""
