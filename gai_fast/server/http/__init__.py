"""HTTP as the server speaks it: requests, replies, the transport of an answer, time limits."""
