"""Several workers: the supervisor, the bus between processes, and shared totals and limits."""
