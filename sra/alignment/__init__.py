"""What is aligned to what: one file a method, listed in `registry`."""
