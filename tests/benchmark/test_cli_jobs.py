"""Commands that turn into a job, or convert: exit codes, help and refusals without anything heavy."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmark.cli import jobs
from benchmark.cli.main import main
from sra.common.files import write_json
from sra.parity.compare import ROUNDING

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Runs a command where torch cannot be imported: none of these may want it."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "torch.py").write_text("raise AssertionError('torch was imported')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "COLUMNS": "200"}

    def run(*arguments):
        command = [sys.executable, "-m", "benchmark.cli.main", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)

    return run


def public(folder, count=3):
    for i in range(count):
        path = folder / "vae-sd" / "00000" / f"img-mean-std-{i:08d}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((8, 4, 4), i, np.float32))
    names = [[f"00000/img-mean-std-{i:08d}.npy", i] for i in range(count)]
    write_json(folder / "vae-sd" / "dataset.json", {"labels": names})
    return folder


def test_help_of_every_job(call):
    text = call("--help").stdout
    for name in ("pca", "probe", "export", "latents", "from-sra"):
        assert name in text
    for name in (["pca"], ["probe"], ["export"], ["latents", "convert"]):
        done = call(*name, "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: sra-bench {' '.join(name)}")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["pca", "w.pt", "--image", "x.png"], "--convention: missing"),
        (["pca", "w.pt", "--image", "x.png", "--baseline", "--blocks", "29"], "--blocks"),
        (["probe", "w.pt", "--convention", "sra"], "required: --latents"),
        (["export", "/no/such/stage", "x.pt"], "/no/such/stage/stage.json"),
        (["latents", "convert", "/no/such", "x", "--to", "packed"], "latents.json"),
        (["latents", "convert", "/no/such", "x", "--to", "zip"], "invalid choice: 'zip'"),
        (["from-sra", "--", "python", "sample.py"], "train.py"),
    ],
)
def test_refusals(call, arguments, problem):
    done = call(*arguments)
    assert done.returncode == 2, done.stderr
    assert problem in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_conversion_there_and_back(call, tmp_path):
    public(tmp_path / "a")
    assert call("latents", "convert", tmp_path / "a", tmp_path / "b", "--to", "packed").returncode == 0
    assert call("latents", "convert", tmp_path / "b", tmp_path / "c", "--to", "public").returncode == 0
    for path in (tmp_path / "a").rglob("*.npy"):
        assert path.read_bytes() == (tmp_path / "c" / path.relative_to(tmp_path / "a")).read_bytes()
    assert (tmp_path / "b" / "moments.npy").stat().st_size == 128 + 3 * 8 * 4 * 4 * 4


def test_from_sra_prints_a_manifest_or_the_tables(call):
    done = call("from-sra", "--processes", "2", "--", "train.py", "--model", "SiT-B/2", "--exp-name", "x", "--seed=3")
    document = yaml.safe_load(done.stdout)
    assert (document["name"], document["seed"], document["train"]["global_batch"]) == ("x", 3, 64)
    assert call("from-sra", "--tables").stdout.strip() in (ROOT / "docs" / "from-sra.md").read_text()


@pytest.fixture
def started(monkeypatch):
    """Calls a command and returns the jobs that it starts; `sra.perf` ends with exit code `code`."""

    def call(*arguments, code=0):
        commands = []

        def run(command, **_):
            commands.append(command[2:])
            return subprocess.CompletedProcess(command, code)

        def become(_, command, environment):
            assert environment["PYTHONUNBUFFERED"] == "1"
            commands.append(command[2:])
            raise SystemExit(0)

        monkeypatch.setattr(jobs.subprocess, "run", run)
        monkeypatch.setattr(jobs.os, "execve", become)
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return commands, ended.value.code

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield call
    # A command that becomes a job holds signals back for it.
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_perf_starts_the_jobs_that_measure(started):
    train = ["train", "--compare", "--model", "B/2"]
    assert started("perf", *train) == ([["sra.perf", *train]], 0)
    assert started("perf", "evaluate", "--json", "x.json") == ([["evaluator.dev.perf", "--json", "x.json"]], 0)
    assert started("perf", "all") == ([["sra.perf", "all"], ["evaluator.dev.perf"]], 0)
    assert started("perf", "all", "--json", code=2) == ([["sra.perf", "all", "--json"]], 2)


def test_accept_lists_what_the_machine_can_afford(started, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert started("accept", "machine") == ([["sra.accept", "machine"]], 0)
    assert "GPU hours" not in capsys.readouterr().out
    assert started("accept", "--save", code=1) == ([["sra.accept", "--save"]], 1)
    assert "sit_xl_256.yaml" in capsys.readouterr().out
    assert started("accept", "--save", code=2)[1] == 2
    assert "GPU hours" not in capsys.readouterr().out


def test_parity_passes_its_options_on(started):
    arguments = ["golden", "--precision", "bf16", "--json", "--compile"]
    assert started("parity", *arguments) == ([["sra.parity", *arguments]], 0)
    assert [precision.value for precision in jobs.Precision] == list(ROUNDING)


def test_parity_refuses_a_folder_that_is_not_golden(tmp_path):
    command = [sys.executable, "-m", "benchmark.cli.main", "parity", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}: ")
    assert "config.json" in done.stderr
    assert len(done.stderr.splitlines()) == 1
