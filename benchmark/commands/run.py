"""`sra-bench run`: prepare, run the stages that are not done, report."""

from __future__ import annotations

import contextlib
import sys

from benchmark.machine.extras import require
from benchmark.plan.plan import Plan, state_of
from benchmark.plan.prepare import check_inputs, prepare, register
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.saved_plan import record_session
from benchmark.plan.stages import REPORT
from benchmark.report.collect import collect_report
from benchmark.run.executor import LOCAL, Executor, Local, interpreter_of
from benchmark.run.runner import Session, run_plan
from sra.common.errors import UserError


def execute(request: RunRequest, executor: Executor = LOCAL) -> str:
    """Run a manifest up to a kind of stage; returns what to print at the end.

    Raises:
        UserError: bad input, in one line.
        Stopped: on SIGINT, SIGTERM or SIGUSR1.
    """
    plan, directory, processes = prepare(request)
    if isinstance(executor, Local):
        # Before hours are spent, what the last job would be refused for.
        for module in (stage.kind.module(stage.job) for stage in plan.until(request.until) if not stage.is_done):
            if interpreter_of(module) == sys.executable:
                require(module)
    directory.create()
    with directory.locked() as lock:
        register(plan, directory, request.command)
        check_inputs(plan, request.until)
        if any(state_of(stage, directory)[0] != "done" for stage in plan.stages):
            record_session(plan, directory, executor.facts())
        try:
            session = Session(directory=directory, executor=executor, processes=processes, lock=lock)
            run_plan(plan, session, request.until)
        except UserError:
            # A failed stage is a result: the report shows it. Without a started stage there is nothing to report.
            if any((stage.directory / "failed.json").is_file() for stage in plan.stages):
                # A full disk has no room for a report either, and must not hide the first error.
                with contextlib.suppress(OSError):
                    write_reports(plan, directory, request.command)
            raise
        if request.until != REPORT:
            return f"done until {request.until}: {directory.root}"
        return write_reports(plan, directory, request.command)


def write_reports(plan: Plan, directory: RunDirectory, command: str) -> str:
    """Write the report; returns its table and where it is."""
    # Imported here for the time of `plan` and of refusals: matplotlib and jinja2.
    from benchmark.report.render import write_report
    from benchmark.report.tables import terminal_summary

    report = collect_report(plan, directory, command)
    write_report(report, directory.report)
    return f"{terminal_summary(report)}\nreport: {directory.report / 'report.html'}"
