"""Parity: recompute every number of a golden folder of the reference code on this machine.

`folder`, `sit`, `dit` and `siblings` hold the checks, `checks` their common parts; `wide` checks what has no golden
numbers; `golden` reads the folder, `compare` judges and reports.
"""
