"""Run the smoke forms of all manifests in few processes: `python -m benchmark.commands.rehearsal`.

One after another, each manifest would import torch and TensorFlow four times; here all their stages stand in one run
directory, equal ones are run once, and each kind of stage has one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

from benchmark.manifest.document import SHIPPED
from benchmark.plan.plan import Plan, in_order
from benchmark.plan.prepare import prepare
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.stages import Stage
from benchmark.report.collect import collect_report
from benchmark.report.model import Report
from benchmark.run.runner import Session, run_plan
from sra.common.program import program


def rehearse(manifests: list[Path], out: Path) -> dict[str, Report]:
    """Run the smoke forms; each report is written to `out`/report/NAME.

    Returns:
        The report by the manifest's name.

    Raises:
        UserError: a manifest that cannot be loaded, or a stage that failed.
    """
    directory = RunDirectory(out.absolute())
    directory.create()
    plans = [prepare(RunRequest(manifest=path, out=out, smoke=True)).plan for path in manifests]
    with directory.locked():
        run_plan(merged(plans), Session(directory=directory))
        # matplotlib and jinja2 are imported only for the report.
        from benchmark.report.render import write_report

        reports = {}
        for path, plan in zip(manifests, plans, strict=True):
            reports[path.stem] = collect_report(plan, directory, f"sra-bench run {path} --smoke")
            write_report(reports[path.stem], directory.report / path.stem)
    return reports


def merged(plans: list[Plan]) -> Plan:
    """One plan of all stages, each once."""
    stages: dict[Path, Stage] = {stage.directory: stage for plan in plans for stage in plan.stages}
    absent = tuple(dict.fromkeys(place for plan in plans for place in plan.absent))
    return dataclasses.replace(plans[0], stages=in_order(stages.values()), absent=absent)


def main() -> None:
    """`python -m benchmark.commands.rehearsal --out DIR [MANIFEST...]`; default: all of manifests/."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.commands.rehearsal", description=main.__doc__)
    parser.add_argument("manifests", type=Path, nargs="*", default=sorted(SHIPPED.glob("*.yaml")))
    parser.add_argument("--out", type=Path, default=Path("runs") / "rehearsal")
    options = parser.parse_args()
    started = time.monotonic()
    reports = rehearse(options.manifests, options.out)
    rows = sum(len(report.rows) for report in reports.values())
    print(f"{len(reports)} manifests, {rows} rows, {time.monotonic() - started:.0f} s: {options.out / 'report'}")


if __name__ == "__main__":
    with program():
        main()
