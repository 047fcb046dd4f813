"""The streams of a process: how each begins, with its targets and upstreams, is kept, and is taken over."""
