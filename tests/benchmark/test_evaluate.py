"""`sra-bench evaluate`: options of the tools, and how a short job ends when it is stopped."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from benchmark.commands.evaluate import ToolOptions
from benchmark.run.process import run_job
from sra.common.errors import STOPPED, Stopped


@pytest.fixture
def heeds_interrupts():
    """Ctrl-C as in a terminal: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
def test_an_interrupt_is_a_stop_and_ends_the_job():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Stopped):
        run_job("evaluate", [sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_job_that_was_stopped_is_no_failure():
    with pytest.raises(Stopped):
        run_job("evaluate", [sys.executable, "-c", f"raise SystemExit({STOPPED})"])


def test_defaults_leave_the_tools_alone():
    assert ToolOptions().argv("adm") == []
    assert ToolOptions().argv("clean-fid") == ["--extractor", "own"]


def test_every_option():
    options = ToolOptions(
        cache=Path("c"),
        expect_images=50_000,
        trust_statistics=True,
        allow_other_size=True,
        intervals=False,
        views=Path("v"),
        assets=Path("a"),
        extractor="graph",
        metrics=("kid", "fid@50000"),
    )
    shared = ["--cache", "c", "--expect-images", "50000", "--trust-statistics", "--allow-other-size", "--no-intervals"]
    assert options.argv("adm") == [*shared, "--views", "v/adm", "--metrics", "kid", "fid@50000"]
    assert options.argv("torch-fidelity") == [*shared, "--extractor", "graph", "--assets", "a"]
