"""Parity: recompute every number of a golden folder, printed by the reference code, on this machine.

`sit`, `dit`, `vanilla` and `files` hold the checks, `checks` what they share; `golden` reads the folder, `randoms`
replays the reference's random numbers, `mode` sets device and precision, `tolerance` compares, `report` prints.
"""
