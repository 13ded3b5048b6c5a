"""Commands without a network, of which every interpreter writes down what it tries to reach."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WATCH = """
import os, socket, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        if event == "socket.connect" and arguments[0].family == socket.AF_UNIX:
            return
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{os.getpid()} {sys.argv} {event} {arguments!r}\\n")

sys.addaudithook(watch)
"""
# Others than root need a user namespace, too.
UNSHARE = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]


class ShutIn:
    """Runs Python with an empty cache of the hub and no assets; without a network, where that is possible."""

    def __init__(self, folder: Path) -> None:
        possible = shutil.which("unshare") and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0
        self.without, self.watched = UNSHARE if possible else [], folder / "watched"
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCH)
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{folder / 'watch'}:{ROOT}",
            "WATCHED": str(self.watched),
            "SRA_BENCH_ENVIRONMENT": "WATCHED",
            "HF_HOME": str(folder / "hub"),
            "SRA_BENCH_ASSETS": str(folder / "assets"),
        }

    def __call__(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`python WORDS` with more environment variables."""
        command, environment = [*self.without, sys.executable, *words], {**self.environment, **more}
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    def require(self) -> None:
        """Skip the test where there is a network."""
        if not self.without:
            pytest.skip("no network namespace can be made here (unshare --net)")

    @property
    def tried(self) -> str:
        """What was tried to be reached, a line each."""
        return self.watched.read_text() if self.watched.exists() else ""
