"""Plan, run and report benchmarks. Starts the jobs of `sra` and `evaluator`; imports no framework.

From the ground up: `machine` (GPUs, provenance), `assets` (downloads), `manifest` (what is asked for), `published`
(published numbers, verdicts), `plan` (stages), `run`, `containers`, `report`, `clusters`, `commands` (one file per
command), `cli`.
"""

import sra.common.startup  # noqa: F401 - the first of all  # isort: skip

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sra-bench")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"
