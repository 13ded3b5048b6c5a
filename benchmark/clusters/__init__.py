"""A run as jobs of a cluster: Slurm, Kubernetes, SkyPilot."""
