"""Parity: recompute every number of a golden folder of the reference code on this machine."""
