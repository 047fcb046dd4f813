"""Processors, event → event: their interface, and the chain that runs those of a stream."""
