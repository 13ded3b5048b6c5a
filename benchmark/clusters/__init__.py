"""Runs as jobs of a cluster: `slurm`, `kubernetes`, `skypilot`.

`jobs` divides a plan into jobs; `site_file` reads the settings of a cluster.
"""
