"""Whether a request is served: callers, keys, hosts, negotiation, memory and totals."""
