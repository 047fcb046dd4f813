"""The pass-through: requests whose bytes go to an upstream and back unchanged (docs/pass-through.md)."""
