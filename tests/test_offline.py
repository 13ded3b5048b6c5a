"""Machines without a network: a run reaches for nothing, and what lies at the hub is asked for in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = ["train.steps=4", "train.milestones=[]", "train.checkpoint_every=2", "sample.steps=2", "sample.images=60"]
SETTINGS += ["sample.batch=30", "sample.shard=30", "train.global_batch=8"]
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
"""Every interpreter that finds this on its path writes down what it tries to reach."""


@pytest.fixture
def shut_in(tmp_path: Path):
    """Runs a command without a network, the hub told to be offline; returns it and what it tried to reach."""
    # Others than root need a user namespace, too.
    unshare = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], check=False).returncode != 0:
        pytest.skip("no network namespace can be made here (unshare --net)")
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    watched = tmp_path / "watched"

    def call(*words: str, offline: bool = True) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'watch'}:{ROOT}", "WATCHED": str(watched)}
        environment |= {"HF_HOME": str(tmp_path / "hub"), "SRA_BENCH_ASSETS": str(tmp_path / "assets")}
        environment |= {
            "OMP_NUM_THREADS": "1",
            "SRA_BENCH_ENVIRONMENT": "WATCHED",
            **({"HF_HUB_OFFLINE": "1"} if offline else {}),
        }
        command = [*unshare, sys.executable, *words]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        return done, watched.read_text().splitlines() if watched.exists() else []

    return call


def test_what_is_reached_for_is_seen(shut_in) -> None:
    done, tried = shut_in("-c", "import urllib.request as u; u.urlopen('http://example.invalid')")
    assert done.returncode == 1
    assert "example.invalid" in "".join(tried)


@pytest.mark.slow
def test_a_whole_run_reaches_for_nothing(shut_in, tmp_path: Path) -> None:
    settings = [word for item in SETTINGS for word in ("--set", item)]
    out = tmp_path / "run"
    done, tried = shut_in(
        "-m",
        "benchmark.cli.main",
        "run",
        "manifests/smoke.yaml",
        "--variant",
        "sra",
        "--out",
        str(out),
        *settings,
        offline=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "report" / "report.html").is_file()
    assert len(list(out.glob("stages/score-*/done.json"))) == 3
    assert tried == []


def test_a_model_that_is_not_in_the_hubs_cache(shut_in, tmp_path: Path) -> None:
    code = "from sra.model.vae import load_codec; from sra.config import CodecConfig\n"
    code += "from sra.common.errors import DataError\n"
    code += "try: load_codec(CodecConfig(path='nobody/nothing'))\nexcept DataError as error: print(error)"
    done, tried = shut_in("-c", code)
    where = tmp_path / "hub" / "hub"
    (line,) = done.stdout.splitlines()
    assert line.startswith("codec.path nobody/nothing: ")
    assert all(part in line for part in (str(where), "HF_HUB_OFFLINE is set", "asset:sd-vae-ft-ema"))
    assert tried == []


def test_fetch_says_that_it_may_not(shut_in) -> None:
    done, tried = shut_in("-m", "benchmark.cli.main", "fetch", "sd-vae-ft-ema")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "without a network place the file at" in line
    assert "offline" in line.lower()
    assert tried == []
