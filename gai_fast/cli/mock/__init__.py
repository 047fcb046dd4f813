"""`gai-fast mock`: an upstream that answers in three dialects, with faults."""
