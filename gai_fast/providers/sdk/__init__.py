"""The stream objects of the official SDKs, which a program gives in place of an upstream's bytes."""
