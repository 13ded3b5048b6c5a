"""Names and defaults that jobs, executors and clusters share."""

from __future__ import annotations

ASSETS_FOLDER = "SRA_BENCH_ASSETS"
"""Environment variable: where checkpoints, weights and references lie."""
REVISION = "SRA_BENCH_REVISION"
"""Environment variable: commit that an image was built from."""
TENSORFLOW_PYTHON = "SRA_BENCH_TENSORFLOW_PYTHON"
"""Environment variable: interpreter of an environment with TensorFlow, where it is not the suite's own."""
MASTER_PORT = 29500
"""On which the nodes of a job meet, if nothing else is said."""
GRACE_SECONDS = 300.0
"""That a job may take to save when it is asked to stop."""
PATIENCE_SECONDS = 86400
"""How long a job waits for the others that it needs."""
