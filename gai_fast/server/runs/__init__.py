"""Runs at the gateway's routes."""
