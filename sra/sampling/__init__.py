"""Sampling: `sample` is the job; `samplers`, `seeding`, `pipeline` (decodes in parallel), `image_grid`."""
