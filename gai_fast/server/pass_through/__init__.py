"""The pass-through: requests whose bytes go to an upstream and back as they are (docs/pass-through.md)."""
