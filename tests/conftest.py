"""Under CI a skipped test is a failed one, unless it needs hardware that no package can bring."""

import os

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    report = outcome.get_result()
    wanted = os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail")
    if wanted and item.get_closest_marker("gpu") is None:
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
