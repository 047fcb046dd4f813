"""Cloud identity: tokens that end, in place of keys. See docs/identity.md."""
