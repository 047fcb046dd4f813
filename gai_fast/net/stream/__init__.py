"""One stream at run time: its session, and the targets and upstreams that it can ask."""
