"""Batch scripts: their options, and what they do on SIGUSR1, run by bash on a fake Slurm."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.clusters.jobs import REPORT_JOB, Job, jobs_of
from benchmark.clusters.slurm.grace_period import grace_period
from benchmark.clusters.slurm.script import Batch, Cluster, options, script
from benchmark.clusters.slurm.site import Container, Group, SlurmSite
from benchmark.plan.plan import Plan
from benchmark.plan.prepare import prepare
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory, write_json
from sra.config import UserError

ROOT = Path(__file__).parents[2]
GPU = Group(partition="gpu", account="me", nodes=2, gpus_per_node=4, cpus_per_task=8, memory="9G", time="1:00:00")
SITE = SlurmSite(gpu=GPU, cpu=Group(time="30"), command="/opt/sra bench/sra-bench")


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Plan, RunDirectory]:
    plan, directory, _ = prepare(RunRequest(manifest=ROOT / "manifests" / "smoke.yaml", out=tmp_path / "a run"))
    directory.create()
    directory.cluster.mkdir()
    return plan, directory


def batch_of(planned: tuple[Plan, RunDirectory], name: str, site: SlurmSite = SITE) -> Batch:
    plan, directory = planned
    job = next(j for j in [*jobs_of(plan, directory, plan.stages), REPORT_JOB] if j.name == name)
    cluster = Cluster(site=site, path=Path("site.yaml"), processes=8)
    return Batch(job=job, run="smoke", directory=directory, cluster=cluster)


def test_jobs_of_the_smoke_manifest(planned: tuple[Plan, RunDirectory]) -> None:
    plan, directory = planned
    jobs = {job.name: job for job in jobs_of(plan, directory, plan.stages)}
    variants = ("baseline", "sra")
    tools = ("adm", "clean-fid", "torch-fidelity")
    scores = {f"score-{tool}-{variant}" for tool in tools for variant in variants}
    assert set(jobs) == {"images", "latents", *(f"{k}-{v}" for k in ("train", "sample") for v in variants), *scores}
    makers = {name: job.name for job in jobs.values() for name in job.directories}

    def before(job: Job) -> set[str]:
        return {makers[name] for name in job.reads}

    assert before(jobs["images"]) == set()
    assert before(jobs["latents"]) == {"images"}
    assert before(jobs["train-sra"]) == {"latents"}
    assert before(jobs["sample-sra"]) == {"train-sra"}
    assert before(jobs["score-adm-sra"]) == {"sample-sra", "images"}
    assert len(jobs["sample-sra"].stages) == len(jobs["score-adm-sra"].stages) == 2
    part = jobs_of(plan, directory, jobs["sample-sra"].stages[:1])
    assert [job.directories for job in part] == [jobs["sample-sra"].directories[:1]]


def test_what_a_training_job_asks_for(planned: tuple[Plan, RunDirectory], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("NOT_SET", raising=False)
    site = dataclasses.replace(SITE, environment=("WANDB_MODE", "NOT_SET"))
    batch = batch_of(planned, "train-sra", site)
    asked = dict(option.removeprefix("--").partition("=")[::2] for option in options(batch))
    assert asked["export"].endswith(",WANDB_MODE")
    assert asked["signal"] == f"B:USR1@{batch.grace.seconds}"
    expected = {"partition": "gpu", "account": "me", "nodes": "2", "gres": "gpu:4", "cpus-per-task": "8", "mem": "9G"}
    assert expected.items() <= asked.items()
    text = script(batch)
    assert "export SRA_BENCH_ENVIRONMENT=NOT_SET,WANDB_MODE\n" in text
    assert "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=8 --export=ALL" in text
    assert "'/opt/sra bench/sra-bench' work" in text
    assert '--processes 8 --nodes 2 --master-addr "$head" --master-port $((29500 + SLURM_JOB_ID % 1000))' in text


def test_other_jobs_take_one_node(planned: tuple[Plan, RunDirectory]) -> None:
    asked = {name: options(batch_of(planned, name)) for name in ("images", "latents", "report")}
    assert all("--nodes=1" in each for each in asked.values())
    assert "--gres=gpu:1" in asked["latents"]
    assert not any(option.startswith("--gres") for option in asked["images"] + asked["report"])
    kind = dataclasses.replace(SITE, gpu=dataclasses.replace(GPU, gpu_type="a100", gpu_flag="gpus-per-node"))
    assert "--gpus-per-node=a100:1" in options(batch_of(planned, "latents", kind))
    task = dataclasses.replace(SITE, gpu=dataclasses.replace(GPU, gpu_flag="gpus-per-task"))
    assert "--gpus-per-task=4" in options(batch_of(planned, "train-sra", task))
    own = dataclasses.replace(SITE, gpu=dataclasses.replace(GPU, gpu_flag="none", options=("--gpus=8",)))
    asked_for = [option for option in options(batch_of(planned, "train-sra", own)) if "gpu" in option]
    assert asked_for == ["--partition=gpu", "--gpus=8"]


def test_containers(planned: tuple[Plan, RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path))
    monkeypatch.setenv("SRA_BENCH_TENSORFLOW_PYTHON", "/of/this/machine")
    root = planned[1].root
    boxes = {
        kind: Container(kind=kind, image="i.sqsh", mounts=("/data:/data:ro",))  # type: ignore[arg-type]
        for kind in ("pyxis", "apptainer", "singularity")
    }
    texts = {
        kind: script(batch_of(planned, "train-sra", dataclasses.replace(SITE, container=box, command=None)))
        for kind, box in boxes.items()
    }
    mounts = f"{root}:{root},{tmp_path}:{tmp_path}:ro,/data:/data:ro"
    assert not any("TENSORFLOW_PYTHON" in text for text in texts.values())
    assert "TENSORFLOW_PYTHON" in script(batch_of(planned, "train-sra"))
    assert f"--container-image=i.sqsh '--container-mounts={mounts}' sra-bench work" in texts["pyxis"]
    for kind in ("apptainer", "singularity"):
        assert f"{kind} exec --nv --bind '{mounts}' i.sqsh sra-bench work" in texts[kind]


@pytest.mark.parametrize("name", ["images", "train-sra", "sample-baseline", "score-adm-sra", "report"])
def test_scripts_pass_shellcheck(planned: tuple[Plan, RunDirectory], tmp_path: Path, name: str) -> None:
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert checker is not None, "the dev dependencies bring shellcheck"
    path = tmp_path / "job.sh"
    path.write_text(script(batch_of(planned, name)))
    done = subprocess.run([checker, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_grace_period(planned: tuple[Plan, RunDirectory]) -> None:
    batch = batch_of(planned, "train-sra")
    stage = batch.job.stages[0]
    assert grace_period([stage], 1e-4).seconds > grace_period([stage], 1.0).seconds == 60 + 30 + 1
    write_json(stage.directory / "checkpoints.json", {"seconds": 21.0})
    write_json(stage.directory / "heartbeat.json", {"rate": 0.5})
    grace = grace_period([stage], 1e-4)
    assert grace.seconds == 60 + 2 + 2 * 21
    assert grace.how == "60 s + step 2.0 s (measured) + 2 x save 21.0 s (measured)"
    assert grace_period(batch_of(planned, "images").job.stages, 1.0).seconds == 90
    assert grace_period((), 1.0).seconds == 90


def test_a_time_limit_within_the_grace_period_is_refused(planned: tuple[Plan, RunDirectory]) -> None:
    site = dataclasses.replace(SITE, gpu=dataclasses.replace(GPU, time="1"))
    with pytest.raises(UserError, match=r"gpu\.time: .* grace period of train-sra \(60 s \+ step.*got '1'"):
        script(batch_of(planned, "train-sra", site))


WORKER = """#!/bin/bash
trap 'echo saved >>"$FAKE/worker"; sleep 0.2; exit {code}' USR1
echo started >>"$FAKE/worker"
while :; do sleep 0.05; done
"""


class Running:
    """A batch script under bash, whose worker saves and exits with a code on SIGUSR1."""

    def __init__(self, batch: Batch, fake: Any, worker: str) -> None:
        self.fake, self.batch = fake, batch
        command = fake.root / "bin" / "worker"
        command.write_text(worker)
        command.chmod(0o755)
        site = dataclasses.replace(batch.cluster.site, gpu=dataclasses.replace(GPU, nodes=1), command=str(command))
        cluster = dataclasses.replace(batch.cluster, site=site)
        self.path = fake.root / "job.sh"
        self.path.write_text(script(dataclasses.replace(batch, cluster=cluster)))

    def start(self) -> subprocess.Popen[str]:
        before = len(self.fake.asked("worker"))
        environment = {**os.environ, "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n0"}
        process = subprocess.Popen(["bash", self.path], env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while len(self.fake.asked("worker")) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return process

    def signalled(self, times: int = 1) -> tuple[int, str]:
        process = self.start()
        for _ in range(times):
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
        text = process.communicate(timeout=20)[1]
        return process.returncode, text


def test_a_signalled_job_saves_and_is_requeued(planned: tuple[Plan, RunDirectory], fake_slurm: Any) -> None:
    running = Running(batch_of(planned, "train-sra"), fake_slurm, WORKER.format(code=75))
    assert running.signalled(times=2)[0] == 0
    assert fake_slurm.asked("worker") == ["started", "saved"]
    assert fake_slurm.asked("scontrol") == ["requeue 7"]


def test_a_job_is_queued_again_when_the_controller_answers_again(
    planned: tuple[Plan, RunDirectory], fake_slurm: Any
) -> None:
    fake_slurm.replace("scontrol", 'echo "$*" >>"$FAKE/scontrol"; [ $(wc -l <"$FAKE/scontrol") -gt 1 ]')
    running = Running(batch_of(planned, "train-sra"), fake_slurm, WORKER.format(code=75))
    assert running.signalled()[0] == 0
    assert fake_slurm.asked("scontrol") == ["requeue 7"] * 2


def test_a_cancelled_job_saves_and_is_not_requeued(planned: tuple[Plan, RunDirectory], fake_slurm: Any) -> None:
    batch = batch_of(planned, "train-sra")
    batch.file("cancel").touch()
    assert Running(batch, fake_slurm, WORKER.format(code=75)).signalled()[0] == 75
    assert fake_slurm.asked("worker") == ["started", "saved"]
    assert fake_slurm.asked("scontrol") == []


def test_a_job_without_progress_is_requeued_twice(planned: tuple[Plan, RunDirectory], fake_slurm: Any) -> None:
    batch = batch_of(planned, "train-sra")
    running = Running(batch, fake_slurm, WORKER.format(code=75))
    heart = batch.job.stages[0].directory / "heartbeat.json"
    for step in (1, 1, 2, 2):
        write_json(heart, {"step": step})
        assert running.signalled()[0] == 0
    code, text = running.signalled()
    assert (code, len(fake_slurm.asked("scontrol"))) == (2, 4)
    assert "stopped 3 times in a row at the same step" in text


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_other_exit_codes_are_passed_on(planned: tuple[Plan, RunDirectory], fake_slurm: Any, code: int) -> None:
    running = Running(batch_of(planned, "train-sra"), fake_slurm, f"#!/bin/bash\nexit {code}\n")
    process = running.start()
    process.communicate(timeout=20)
    assert process.returncode == code
    assert fake_slurm.asked("scontrol") == []


def test_a_worker_killed_by_the_signal_before_it_has_a_handler_is_requeued(
    planned: tuple[Plan, RunDirectory], fake_slurm: Any
) -> None:
    deaf = '#!/bin/bash\necho started >>"$FAKE/worker"\nexec sleep 30\n'
    assert Running(batch_of(planned, "train-sra"), fake_slurm, deaf).signalled()[0] == 0
    assert fake_slurm.asked("scontrol") == ["requeue 7"]
