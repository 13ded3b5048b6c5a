"""Environment variables and defaults that jobs, executors and clusters share."""

from __future__ import annotations

ASSETS_FOLDER = "SRA_BENCH_ASSETS"
"""Environment variable: folder of checkpoints, weights and references."""
REVISION = "SRA_BENCH_REVISION"
"""Environment variable: commit that an image was built from."""
TENSORFLOW_PYTHON = "SRA_BENCH_TENSORFLOW_PYTHON"
"""Environment variable: interpreter of an environment with TensorFlow, if it is not the suite's own."""
MASTER_PORT = 29500
"""Default port at which the nodes of a job meet."""
GRACE_SECONDS = 300.0
"""Time for a job to save a checkpoint and exit when it is asked to stop."""
PATIENCE_SECONDS = 86400
"""Time that a job waits for the stages that it reads."""
