"""Submitting to a fake Slurm (all jobs or none, nothing twice), cancelling, and status."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmark.clusters.slurm.submitted import load_submitted
from benchmark.commands import status
from benchmark.commands.submit import cancel, submit
from benchmark.plan.prepare import prepare
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory, write_json
from benchmark.plan.stages import Stage
from benchmark.run.heartbeat import RunnerHeartbeat
from sra.config import UserError

ROOT = Path(__file__).parents[2]
SITE = "slurm: {gpu: {partition: gpu, nodes: 2, time: '30'}, cpu: {partition: cpu, time: '30'}, command: x}"
JOBS = ("images", "latents", "train-sra", "sample-sra", "score-adm-sra", "report")
NUMBERS = {name: 101 + place for place, name in enumerate(JOBS)}


class Submission:
    """The smoke manifest with one variant and one tool."""

    def __init__(self, tmp_path: Path) -> None:
        self.out, self.site = tmp_path / "run", tmp_path / "site.yaml"
        self.site.write_text(SITE)

    def submit(self, *settings: str, variants: tuple[str, ...] = ("sra",), **options: Any) -> str:
        request = self.request(*settings, variants=variants, processes=options.pop("processes", None))
        return submit(request, **{"executor": "slurm", "site": self.site, **options})

    def request(self, *settings: str, **options: Any) -> RunRequest:
        manifest, overrides = ROOT / "manifests" / "smoke.yaml", ("score.tools=[adm]", *settings)
        return RunRequest(
            **{"manifest": manifest, "out": self.out, "overrides": overrides, "variants": ("sra",), **options}
        )

    def stages(self) -> list[Stage]:
        return list(prepare(self.request()).plan.stages)

    def finish(self, *kinds: str) -> None:
        for stage in self.stages():
            if stage.kind.name in kinds:
                for name in stage.outputs:
                    (stage.directory / name).parent.mkdir(parents=True, exist_ok=True)
                    (stage.directory / name).touch()
                outputs = dict.fromkeys(stage.outputs, 0)
                write_json(stage.directory / "done.json", {"key": stage.key, "outputs": outputs})

    def numbers(self) -> dict[str, int]:
        return {job.name: job.number for job in load_submitted(RunDirectory(self.out))}


@pytest.fixture
def run(tmp_path: Path, fake_slurm: Any) -> Submission:
    return Submission(tmp_path)


def entry(name: str, state: str, why: str = "None") -> tuple[int, str, str, str]:
    return NUMBERS[name], state, why, f"smoke-{name}"


def waiting() -> list[tuple[int, str, str, str]]:
    return [entry(name, "PENDING", "Dependency") for name in JOBS]


def dependencies(fake_slurm: Any) -> dict[str, str]:
    lines = [line.split() for line in fake_slurm.asked("sbatch")]
    return {Path(line[-1]).stem: line[1] if len(line) > 2 else "" for line in lines}


def test_one_job_a_batch_with_what_it_waits_for(run: Submission, fake_slurm: Any) -> None:
    text = run.submit()
    assert text.startswith("smoke: 6 jobs submitted, 0 in the queue before, 0 of 7 stages done")
    assert run.numbers() == NUMBERS
    assert dependencies(fake_slurm) == {
        "images": "",
        "latents": "--dependency=afterok:101",
        "train-sra": "--dependency=afterok:102",
        "sample-sra": "--dependency=afterok:103",
        "score-adm-sra": "--dependency=afterok:101:104",
        "report": "--dependency=afterany:101:102:103:104:105",
    }
    waits = [line for line in fake_slurm.asked("sbatch") if "--dependency" in line]
    assert all("--parsable" in line and "--kill-on-invalid-dep=yes" in line for line in waits)
    assert (run.out / "plan.json").is_file()


def test_what_is_done_is_not_submitted(run: Submission, fake_slurm: Any) -> None:
    run.finish("images", "latents", "train")
    run.submit()
    assert list(dependencies(fake_slurm).items())[:2] == [
        ("sample-sra", ""),
        ("score-adm-sra", "--dependency=afterok:101"),
    ]


def test_the_same_command_again_adds_nothing_to_a_queue_that_has_it_all(run: Submission, fake_slurm: Any) -> None:
    run.submit()
    fake_slurm.queue(*waiting())
    assert "0 jobs submitted, 6 in the queue before" in run.submit()
    assert len(fake_slurm.asked("sbatch")) == 6
    assert fake_slurm.asked("scancel") == []


def test_the_same_command_again_replaces_what_died_and_what_waits_for_it(run: Submission, fake_slurm: Any) -> None:
    run.submit()
    run.finish("images")
    rows = [entry("images", "COMPLETED"), entry("latents", "RUNNING"), entry("train-sra", "FAILED", "NonZeroExitCode")]
    fake_slurm.queue(*rows, *waiting()[3:])
    run.submit()
    assert fake_slurm.asked("scancel") == ["104 105 106"]
    assert fake_slurm.asked("sbatch")[6:] == [
        f"--parsable --dependency={waits} --kill-on-invalid-dep=yes {run.out}/cluster/{name}.sh"
        for name, waits in [
            ("train-sra", "afterok:102"),
            ("sample-sra", "afterok:107"),
            ("score-adm-sra", "afterok:108"),
            ("report", "afterany:102:107:108:109"),
        ]
    ]
    assert run.numbers()["latents"] == 102


def test_jobs_of_other_users_with_the_same_ids_are_ignored(run: Submission, fake_slurm: Any) -> None:
    run.submit()
    fake_slurm.queue(*((number, "RUNNING", "None", "somebody-else") for number in NUMBERS.values()))
    assert run.submit().startswith("smoke: 6 jobs submitted")


def test_all_done_and_reported(run: Submission, fake_slurm: Any) -> None:
    run.finish("images", "latents", "train", "sample", "score")
    assert "1 jobs submitted" in run.submit()
    assert fake_slurm.asked("sbatch") == [f"--parsable {run.out}/cluster/report.sh"]
    write_json(run.out / "report" / "report.json", {})
    assert run.submit().startswith("nothing to submit: 7 of 7 stages done; report: ")


@pytest.mark.parametrize(
    ("settings", "variants"), [(["train.lr=1e-3"], ("sra",)), ([], ("baseline",)), (["sample.steps=7"], ("sra",))]
)
def test_a_queue_with_jobs_of_another_plan_is_refused(
    run: Submission, fake_slurm: Any, settings: list[str], variants: tuple[str, ...]
) -> None:
    run.submit()
    before = (run.out / "plan.json").read_text()
    fake_slurm.queue(*waiting())
    with pytest.raises(UserError, match=r"job 10\d .* of other settings or variants is in the queue; .* first"):
        run.submit(*settings, variants=variants)
    assert (run.out / "plan.json").read_text() == before


@pytest.mark.parametrize("refused", [1, 3, 6])
def test_a_refusal_takes_back_those_before_it(run: Submission, fake_slurm: Any, refused: int) -> None:
    (fake_slurm.root / "refused").write_text(str(refused))
    with pytest.raises(UserError, match=r"^sbatch: Batch job submission failed: too many$"):
        run.submit()
    taken = " ".join(str(101 + place) for place in range(refused - 1))
    assert fake_slurm.asked("scancel") == ([taken] if taken else [])
    assert load_submitted(RunDirectory(run.out)) == []


def test_what_slurm_would_refuse_is_said_before_anything_is_submitted(run: Submission, fake_slurm: Any) -> None:
    (fake_slurm.root / "lint").write_text("allocation failure: Invalid account\n")
    with pytest.raises(UserError, match=rf"^{run.site}: images would be refused: .*Invalid account$"):
        run.submit()
    run.site.write_text(SITE.replace("partition: gpu", "partition: gpux"))
    with pytest.raises(UserError, match=r"slurm: gpu.partition: .*'gpux'.*did you mean 'gpu'"):
        run.submit()
    run.site.write_text(SITE.replace("'30'", "'1'"))
    with pytest.raises(UserError, match=rf"^{run.site}: slurm: cpu.time: .*90 s.*images.*got '1'"):
        run.submit()
    assert fake_slurm.asked("sbatch") == []


def test_no_slurm_and_no_site(run: Submission, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sinfo on this machine; a login node"):
        run.submit()
    run.site.unlink()
    with pytest.raises(UserError, match="No such file"):
        run.submit()


def test_processes_come_from_the_site(run: Submission) -> None:
    assert "--processes 2 " in run.submit(dry_run=True)
    assert "--processes 4 " in run.submit(dry_run=True, processes=4)
    with pytest.raises(UserError, match=r"--processes 3: .*multiple of 2 .*gpu\.nodes"):
        run.submit(processes=3)
    run.site.write_text(SITE.replace("nodes: 2", "nodes: 2, gpus_per_node: 3"))
    with pytest.raises(UserError, match=r"train\.global_batch: .*6 processes"):
        run.submit()


def test_a_dry_run_writes_nothing(run: Submission, fake_slurm: Any) -> None:
    text = run.submit(dry_run=True)
    assert "6 jobs to submit" in text
    assert "==> " in text
    assert not run.out.exists()
    assert fake_slurm.asked("sbatch") == []


def test_a_run_on_this_machine_and_absent_inputs_are_refused(run: Submission, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"input not found: /none/x\.npz"):
        run.submit("score.reference=/none/x.npz")
    directory = RunDirectory(run.out)
    directory.create()
    with directory.locked(), pytest.raises(UserError, match=rf"in use by another run \(process {os.getpid()}"):
        run.submit()


def test_cancel_asks_those_that_run_to_save(run: Submission, fake_slurm: Any) -> None:
    run.submit()
    fake_slurm.queue(entry("images", "COMPLETED"), entry("latents", "RUNNING"), *waiting()[2:])
    text = cancel(run.out)
    assert fake_slurm.asked("scancel") == ["103 104 105 106", "--batch --signal=USR1 102"]
    assert "saves its work and ends: job 102 (latents)" in text
    assert (run.out / "cluster" / "latents.cancel").exists()
    fake_slurm.queue(entry("latents", "RUNNING"))
    assert "saves its work" in cancel(run.out)
    assert len(fake_slurm.asked("scancel")) == 2, "a second signal would end it while it saves"
    with pytest.raises(UserError, match=r"job 102 \(latents\) still saves its work"):
        run.submit()
    assert fake_slurm.asked("sbatch")[6:] == []
    fake_slurm.queue(entry("latents", "FAILED", "NonZeroExitCode"))
    rows = {stage.stage: stage.state for stage in status.examine(run.out, 0.0).stages}
    assert rows["latents"] == "cancelled"
    assert "6 jobs submitted" in run.submit()
    assert not (run.out / "cluster" / "latents.cancel").exists()


def test_cancel_at_once_and_with_nothing_to_cancel(run: Submission, fake_slurm: Any) -> None:
    with pytest.raises(UserError, match=r"no cluster/jobs\.json: nothing was submitted"):
        cancel(run.out)
    run.submit()
    fake_slurm.queue(entry("images", "RUNNING"), *waiting()[1:])
    cancel(run.out, now=True)
    assert fake_slurm.asked("scancel") == ["101 102 103 104 105 106"]
    fake_slurm.queue(entry("images", "CANCELLED"))
    assert cancel(run.out).endswith("none of its 6 jobs waits or runs")


def test_jobs_of_a_moved_run_are_cancelled_and_those_of_the_original_of_a_copy_are_not(
    run: Submission, fake_slurm: Any
) -> None:
    run.submit()
    script = run.out.resolve() / "cluster" / "latents.sh"
    (fake_slurm.root / "queue").write_text(f"102|RUNNING|n0|None|smoke-latents|{script}\n")
    copy = run.out.with_name("copy")
    shutil.copytree(run.out, copy)
    assert "none of its" in cancel(copy)
    assert fake_slurm.asked("scancel") == []
    shutil.rmtree(run.out)
    run.out = copy
    with pytest.raises(UserError, match=r"job 102 in the queue works where the run was before \(.*/run/cluster/"):
        run.submit()
    assert cancel(copy) == "cancelled: job 102 (latents)"
    assert fake_slurm.asked("scancel") == ["102"]


def test_a_damaged_record_of_jobs_is_one_line(run: Submission, fake_slurm: Any) -> None:
    """Without it, jobs in the queue would be submitted twice."""
    run.submit()
    commands = [run.submit, lambda: cancel(run.out), lambda: status.show(run.out, as_json=False)]
    for text in ("", "{", "[]", '{"jobs": 3}', '{"jobs": [{"name": "x", "number": "many"}]}'):
        (run.out / "cluster" / "jobs.json").write_text(text)
        for command in commands:
            with pytest.raises(UserError, match=r"cluster/jobs\.json: expected a list of jobs.*[^\n]$"):
                command()
        commands = commands[1:] or commands
    assert len(fake_slurm.asked("sbatch")) == 6


def test_status_tells_queue_and_workers(run: Submission, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run.submit()
    run.finish("images")
    latents = next(s for s in run.stages() if s.kind.name == "latents")
    pulse = RunnerHeartbeat(run.out / "workers" / "x.json", [latents])
    pulse.start([latents])
    rows = [entry("latents", "RUNNING"), entry("train-sra", "PENDING", "Priority"), entry("sample-sra", "CANCELLED")]
    fake_slurm.queue(*rows)
    document = status.examine(run.out, pulse.since)
    found = {stage.stage: (stage.state, stage.job) for stage in document.stages}
    assert found["images"] == ("done", None)
    assert found["latents"] == ("running", "job 102 RUNNING on n0")
    assert found["train-sra"] == ("queued", "job 103 PENDING (Priority)")
    assert found["sample-sra"] == ("cancelled", "job 104 CANCELLED")
    assert found["score-adm-sra"] == ("waiting", "job 105 has left the queue")
    assert found["report"] == ("waiting", "job 106 has left the queue")
    assert document.state == "cancelled"
    monkeypatch.setenv("PATH", str(run.out))
    row = json.loads(status.show(run.out, as_json=True))["stages"][2]
    assert (row["state"], row["job"]) == ("waiting", "job 103, no squeue on this machine")


def test_status_says_why_a_worker_failed(run: Submission, fake_slurm: Any) -> None:
    run.submit()
    images = run.stages()[0]
    pulse = RunnerHeartbeat(run.out / "workers" / "x.json", [images])
    pulse.start([images])
    pulse.write("failed", "stage images: no such folder")
    fake_slurm.queue(entry("images", "FAILED", "NonZeroExitCode"))
    text = status.show(run.out, as_json=False)
    assert "failed, 0 of 7 stages done\n  stage images: no such folder" in text
    assert f"job 101 FAILED (NonZeroExitCode); see {run.out}/cluster/images.log" in text
