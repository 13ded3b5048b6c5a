"""How `sra-bench evaluate` and its like end when they are stopped."""

import os
import signal
import sys
import threading

import pytest

from benchmark.commands import evaluate
from benchmark.run.runner import STOPPED, StoppedError


def test_an_interrupt_is_a_stop_and_ends_the_job():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(StoppedError):
        evaluate._job("evaluate", [sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_job_that_was_stopped_is_no_failure():
    with pytest.raises(StoppedError):
        evaluate._job("evaluate", [sys.executable, "-c", f"raise SystemExit({STOPPED})"])
