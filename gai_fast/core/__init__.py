"""The sans-IO core: one stream's bytes, events and order. It opens nothing and awaits nothing."""
