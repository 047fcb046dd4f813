"""The asyncio layer: timers, upstream connections, client writers, sessions. It moves bytes and contains no policy."""
