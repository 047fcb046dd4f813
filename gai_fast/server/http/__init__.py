"""HTTP types of the server: requests, replies, the transport of a response, time limits."""
