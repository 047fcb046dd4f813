"""The approvals of runs: asked for, waited for, decided."""
