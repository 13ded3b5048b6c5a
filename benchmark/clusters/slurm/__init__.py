"""A plan as Slurm batch jobs: script, submission, queue."""
