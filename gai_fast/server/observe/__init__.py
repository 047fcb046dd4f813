"""What an operator sees: metrics, logs, audit lines, spend."""
