"""Guards: which text of a request or an answer may pass. Sans-IO; `net/judges/` asks for verdicts."""
