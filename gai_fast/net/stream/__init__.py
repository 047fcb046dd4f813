"""One stream at run time: its session, and its targets and upstreams."""
