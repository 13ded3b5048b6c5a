"""For all tests: files with slow tests run first; under CI a skipped test is a failed one."""

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # More threads than cores wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup() -> None:
    """Forget what scikit-learn sets when it is imported: a job of the suite would say that it does not get it."""
    for name in ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, so that two workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    report = outcome.get_result()
    # Hardware is the one thing that no package can bring.
    wanted = os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail")
    if wanted and item.get_closest_marker("gpu") is None:
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
