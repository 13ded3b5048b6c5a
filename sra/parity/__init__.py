"""Parity: recompute every number of a golden folder, printed by the reference code, on this machine.

`folder` lists the files; `sit` and `dit` hold the checks, `checks` what they share; `golden` reads the numbers,
`compare` sets tolerances, compares and prints.
"""
