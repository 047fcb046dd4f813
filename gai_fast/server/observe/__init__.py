"""The operator's view: metrics, logs, audit lines, spend."""
