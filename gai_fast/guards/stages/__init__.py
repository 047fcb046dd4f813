"""What the output of a stream passes: the guards of one text, the texts of a stream, and its judges."""
