"""The sans-IO core: bytes, events and order of one stream. It opens nothing and awaits nothing."""
