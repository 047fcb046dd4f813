"""The asyncio layer: upstream connections, client writers, sessions. It moves bytes and contains no policy."""
