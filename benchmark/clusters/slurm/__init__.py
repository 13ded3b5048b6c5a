"""A plan as Slurm batch jobs: `submit`, the batch `script`, its `grace_period`.

`queue` calls Slurm's commands, `submitted` records the jobs, `site` holds the settings of a cluster.
"""
