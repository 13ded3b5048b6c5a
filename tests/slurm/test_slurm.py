"""A run on a real Slurm that is signalled, loses a node and is requeued: its numbers equal those of a local run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "model.size={depth: 4, width: 48, heads: 3}",
    "train.steps=400",
    "train.milestones=[]",
    "train.checkpoint_every=20",
    "train.log_every=5",
    "sample.steps=6",
    "sample.images=100",
    "sample.shard=25",
    "sample.batch=25",
    "score.tools=[adm]",
]
SITE = """\
slurm:
  gpu: {{partition: gpu, nodes: 2, time: "20"}}
  cpu: {{partition: cpu, time: "20"}}
  environment: [PYTHONPATH, OMP_NUM_THREADS]
  command: {command}
"""


def call(slurm, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "benchmark.cli.main", *arguments]
    environment = {**slurm.environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def submit(slurm, out: Path, *extra: str, code: int = 0) -> str:
    site = out.parent / "site.yaml"
    site.write_text(SITE.format(command=Path(sys.executable).parent / "sra-bench"))
    return call(slurm, "submit", *manifest(out), "--executor", "slurm", "--site", str(site), *extra, code=code)


def manifest(out: Path) -> list[str]:
    return ["manifests/smoke.yaml", "--out", str(out), *(part for item in SETTINGS for part in ("--set", item))]


def stage(out: Path, name: str) -> Path:
    return next(out.glob(f"stages/{name}-????????"))


def logged(out: Path, name: str) -> int:
    """Lines of a training log."""
    return sum(len(path.read_text().splitlines()) for path in out.glob(f"stages/{name}-????????/log.jsonl"))


def all_logs(out: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in out.glob("cluster/*.log"))


@pytest.fixture(scope="module")
def local(slurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "run"
    call(slurm, "run", *manifest(out), "--processes", "2")
    return out


def test_a_run_that_is_stopped_and_loses_a_node_equals_a_local_run(slurm, local: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "9 jobs submitted" in submit(slurm, out)
    slurm.wait(lambda: min(logged(out, "train-baseline"), logged(out, "train-sra")) >= 1, 180)
    baseline, sra = (slurm.queue()[f"smoke-train-{variant}"]["id"] for variant in ("baseline", "sra"))
    slurm.run("scancel", "--batch", "--signal=USR1", baseline)
    slurm.wait(lambda: slurm.queue()["smoke-train-baseline"]["restarts"] == "1", 60)
    assert json.loads((stage(out, "train-baseline") / "heartbeat.json").read_text())["state"] == "stopped"

    assert slurm.queue()["smoke-train-sra"]["state"] == "RUNNING", all_logs(out)
    slurm.run("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=test")
    slurm.wait(lambda: slurm.queue()["smoke-train-sra"]["restarts"] == "1", 60)
    slurm.bring_back("n1")
    assert "0 jobs submitted, 7 in the queue before, 2 of 8 stages done" in submit(slurm, out)
    text = call(slurm, "status", str(out))
    assert f"job {baseline} " in text, text
    assert f"job {sra} " in text, text

    def over() -> bool:
        states = {row["state"] for row in slurm.queue().values()}
        assert not states & {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}, all_logs(out)
        return states == {"COMPLETED"}

    slurm.wait(over, 400)
    assert f"{out}: done, 8 of 8 stages done" in call(slurm, "status", str(out))
    assert "continues at step" in (stage(out, "train-baseline") / "log.txt").read_text()
    assert (stage(out, "train-sra") / "log-node1.txt").is_file()
    assert numbers(out) == numbers(local)
    for path in sorted(local.glob("stages/train-*/weights/*")):
        assert path.read_bytes() == (out / path.relative_to(local)).read_bytes(), path
    assert submit(slurm, out).startswith("nothing to submit: 8 of 8 stages done")


def numbers(out: Path) -> dict[str, object]:
    """Results of each variant in the report, without times and machines."""
    rows = json.loads((out / "report" / "report.json").read_text())["rows"]
    found = {row["variant"]: [row[key] for key in ("metrics", "intervals", "errors", "verdict")] for row in rows}
    assert all(metrics["adm"]["fid"] > 0 for metrics, *_ in found.values())
    return found


def test_a_cancelled_run_saves_and_continues_when_submitted_again(slurm, tmp_path: Path) -> None:
    out = tmp_path / "run"
    extra = ("--variant", "sra", "--set", "name=again")
    submit(slurm, out, *extra)
    slurm.wait(lambda: logged(out, "train-sra") >= 5, 180)
    text = call(slurm, "cancel", str(out))
    assert text.count("cancelled: job") == 3, text
    assert "(train-sra)" in text.splitlines()[-1]
    slurm.wait(lambda: slurm.queue()["again-train-sra"]["state"] == "FAILED", 60)
    status = call(slurm, "status", str(out))
    assert "cancelled" in status, status
    assert "stopped by sra-bench cancel; the work is saved" in (out / "cluster" / "train-sra.log").read_text()
    assert submit(slurm, out, *extra).startswith("again: 4 jobs submitted, 0 in the queue before, 2 of 5 stages done")
    slurm.wait(lambda: "continues at step" in (out / "cluster" / "train-sra.log").read_text(), 120)
    call(slurm, "cancel", str(out), "--now")
    slurm.wait(lambda: not slurm.run("squeue", "-h"), 60)
    assert "none of its 6 jobs waits or runs" in call(slurm, "cancel", str(out))


def test_jobs_whose_numbers_were_lost_are_found_again(slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitted from within an allocation, whose variables would make srun and sbatch fail or wait elsewhere."""
    for name, value in {"SLURM_MEM_PER_CPU": "1", "SLURM_MEM_PER_NODE": "2", "SBATCH_PARTITION": "none"}.items():
        monkeypatch.setitem(slurm.environment, name, value)
    out, extra = tmp_path / "run", ("--variant", "sra", "--set", "name=lost")
    assert "6 jobs submitted" in submit(slurm, out, *extra)
    slurm.wait(lambda: slurm.queue()["lost-images"]["state"] == "COMPLETED", 120)
    record = out / "cluster" / "jobs.json"
    document = json.loads(record.read_text())
    for job in document["jobs"]:
        job["number"] = 0
    record.write_text(json.dumps(document))
    # A site's squeue that answers nothing: the controller itself is asked.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setitem(slurm.environment, "PATH", f"{tmp_path / 'bin'}:{slurm.environment['PATH']}")
        text = submit(slurm, out, *extra)
    assert "0 jobs submitted, 5 in the queue before, 1 of 5 stages done" in text, text
    call(slurm, "cancel", str(out), "--now")
    slurm.wait(lambda: not slurm.run("squeue", "-h"), 60)


def test_a_partition_that_is_not_there(slurm, tmp_path: Path) -> None:
    out = tmp_path / "run"
    site = tmp_path / "site.yaml"
    site.write_text("slurm: {gpu: {partition: gpus, time: '9'}, cpu: {time: '9'}, command: x}")
    text = call(slurm, "submit", *manifest(out), "--site", str(site), code=2)
    assert text.startswith(f"error: {site}: slurm: gpu.partition: ")
    assert text.endswith("'gpus' (did you mean 'gpu'?)\n")
    site.write_text("slurm: {gpu: {time: '9'}, cpu: {time: '9', nodes: 1, options: [--constraint=x]}, command: x}")
    text = call(slurm, "submit", *manifest(out), "--site", str(site), code=2)
    assert "would be refused: sbatch: allocation failure: Invalid feature specification" in text
    assert not (out / "cluster" / "jobs.json").exists()
