"""Parity: every number of a golden folder, computed again by this implementation on this machine."""
