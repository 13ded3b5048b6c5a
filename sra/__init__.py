"""Train and sample diffusion transformers with and without self-representation alignment.

From the ground up: `common` (used by all three packages), `config` (settings), `embedded` (digits), `runtime` (jobs,
processes, random streams), `model`, `objectives`, `alignment`, `data`, `sampling`, `training`, `analysis` (PCA,
probes), `interop` (the authors' files), `parity` (comparison with the reference code), `perf` (speed), `accept`
(acceptance of a machine).
"""

import sra.common.startup  # noqa: F401 - the first of all  # isort: skip
