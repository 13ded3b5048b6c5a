"""Plan, run and report benchmarks. Starts the jobs of `sra` and `evaluator`; imports no framework.

From the ground up: `machine` (GPUs, provenance), `assets` (downloads), `manifest` (what is asked for), `published`
(published numbers, verdicts), `plan` (stages), `run`, `containers`, `report`, `clusters`, `commands` (one file per
command), `cli`.

    from benchmark import load_run
    load_run("runs/smoke").to_dataframe()
"""

from __future__ import annotations

import sra.common.startup  # noqa: F401 - the first of all  # isort: skip

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.report.model import Report

__all__ = ["load_bundle", "load_run"]

try:
    __version__ = version("sra-bench")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"


def load_run(directory: str | Path) -> Report:
    """The report of a run directory, collected from its stages if they exist.

    Raises:
        UserError: no run is there, or this version cannot read it.
    """
    from benchmark.report.collect import load_report

    return load_report(Path(directory))


def load_bundle(archive: str | Path) -> Report:
    """The report of an archive that `sra-bench bundle` made, collected again from the files inside.

    Raises:
        UserError: it is no such archive, or its files contradict each other or its report.
    """
    from benchmark.report.verify import examine
    from sra.common.errors import UserError

    with tempfile.TemporaryDirectory() as folder:
        found = examine(Path(archive), Path(folder))
    if found.report is None or found.findings.bad:
        raise UserError(f"{archive}: expected files that agree, got: {'; '.join(found.findings.bad)}")
    return found.report
