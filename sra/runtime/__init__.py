"""What jobs run on.

`job` (settings, progress, stopping), `launch` (torchrun), `distributed` (processes of a job), `device` (precision,
transfer), `random_streams` (counter-based random numbers), `speed` (switches),
`cuda_graph` (the switch `graph`).
"""
