"""Attempts at an answer: choice of target and key, retries, hedging, recordings."""
