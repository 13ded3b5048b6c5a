"""Slurm's commands as sites alter them: banners, wrappers, controllers without an answer, jobs whose number is lost."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from benchmark.clusters.slurm import queue
from benchmark.clusters.slurm.queue import JobId, SlurmError, UncertainError
from benchmark.clusters.slurm.submitted import load_submitted
from benchmark.commands import submit as submit_command
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory
from sra.common.errors import UserError

ROOT = Path(__file__).parents[2]
SITE = "slurm: {gpu: {time: '30'}, cpu: {time: '30'}, command: x}"
ACCEPT = """\
[ "$1" = --test-only ] && exit 0
echo "$*" >>"$FAKE/sbatch"
number=$((100 + $(wc -l <"$FAKE/sbatch")))
script=${*: -1}
name=${script##*/}
echo "$number|PENDING||Priority|smoke-${name%.sh}|$script" >>"$FAKE/queue"
"""
"""A job that is accepted; what sbatch says of it comes after this."""
TALK = 'if [ "$number" = 103 ]; then %s; fi; echo "$number"'
JOBS = ["images", "latents", "train-sra", "sample-sra", "score-adm-sra", "report"]


@pytest.fixture
def out(tmp_path: Path, fake_slurm: Any) -> Path:
    (tmp_path / "site.yaml").write_text(SITE)
    return tmp_path / "run"


def submit(out: Path) -> str:
    manifest = ROOT / "manifests" / "smoke.yaml"
    request = RunRequest(manifest=manifest, out=out, overrides=("score.tools=[adm]",), variants=("sra",))
    return submit_command.submit(request, executor="slurm", site=out.parent / "site.yaml")


def recorded(out: Path) -> dict[str, int]:
    return {job.name: job.number for job in load_submitted(RunDirectory(out))}


def names(fake_slurm: Any) -> list[str]:
    """Of the jobs that sbatch was given, in order."""
    return [Path(line.split()[-1]).stem for line in fake_slurm.asked("sbatch")]


@pytest.mark.parametrize(
    ("answer", "job"),
    [
        ("101", JobId(101)),
        ("  101\r", JobId(101)),
        ("101;gamma", JobId(101, "gamma")),
        ("Submitted batch job 101", JobId(101)),
        ("Submitted batch job 101 on cluster gamma", JobId(101, "gamma")),
        ("*** Maintenance on 2026-12-24, 08:00 ***\n\n101", JobId(101)),
        ("Job 5 of your project this month\n101\nYou have used 17 of 500 hours.", JobId(101)),
        ("-----\nWelcome 7\nSubmitted batch job 101\nRemaining: 12", JobId(101)),
    ],
)
def test_the_job_id_is_found_in_what_sbatch_prints(answer: str, job: JobId, fake_slurm: Any) -> None:
    (fake_slurm.root / "answer").write_text(answer)
    fake_slurm.replace("sbatch", 'cat "$FAKE/answer"')
    assert queue.submit(Path("x.sh"), [], "afterok") == job


def test_other_lines_of_squeue_and_sinfo_are_skipped(fake_slurm: Any) -> None:
    text = "CLUSTER: gamma\n\nNote: 3|2|1\n12_3|PENDING||None|array|/x\n"
    text += "7|RUNNING|n0|None|mine|/a b/c|d.sh\n8|PENDING||None|old\n"
    (fake_slurm.root / "queue").write_text(text)
    jobs = queue.list_jobs()
    assert {number: (job.name, job.script) for number, job in jobs.items()} == {
        7: ("mine", "/a b/c|d.sh"),
        8: ("old", ""),
    }
    fake_slurm.replace("sinfo", 'printf "Down on Monday, sorry\\ngpu\\ncpu\\n"')
    assert queue.partitions() == ["gpu", "cpu"]


def test_the_line_with_the_error_is_shown(fake_slurm: Any) -> None:
    lines = "echo 'Welcome to gamma'; echo 'sbatch: error: Invalid qos'; echo 'See the manual.'"
    fake_slurm.replace("sbatch", f"({lines}) >&2; exit 1")
    with pytest.raises(SlurmError, match=r"^sbatch: Invalid qos$"):
        queue.submit(Path("x.sh"), [], "afterok")
    fake_slurm.replace("squeue", "printf '\\xff' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"^squeue: "):
        queue.list_jobs()


@pytest.mark.parametrize(("command", "times"), [("squeue", 2), ("squeue", 99), ("scontrol", 99)])
def test_a_queue_that_does_not_answer(command: str, times: int, out: Path, fake_slurm: Any) -> None:
    """It is asked again, a few times; then nothing is submitted."""
    fake_slurm.replace("sbatch", f"{ACCEPT} echo $number")
    submit(out)
    trouble = "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1"
    fake_slurm.replace("squeue", "exit 0")
    fake_slurm.replace(
        command, f'echo >>"$FAKE/tries"; [ $(wc -l <"$FAKE/tries") -gt {times} ] || {{ {trouble}; }}; cat "$FAKE/queue"'
    )
    if times == 2:
        assert "0 jobs submitted, 6 in the queue before" in submit(out)
    else:
        with pytest.raises(SlurmError, match=rf"^{command}: slurm_load_jobs error: Unable to contact"):
            submit(out)
    assert len(fake_slurm.asked("sbatch")) == 6
    assert len(fake_slurm.asked("tries")) == min(times + 1, 4)


SHOWN = (
    "JobId={number} JobName={name} UserId=me({user}) GroupId=me(7) MCS_label=N/A Priority=1 Nice=0 Account=a QOS=b "
    "JobState=PENDING Reason=Priority Dependency=(null) Requeue=1 Restarts=0 ReqNodeList=(null) ExcNodeList=(null) "
    "NodeList=(null) NumNodes=1 Command={script} WorkDir=/x y StdErr=/x TresPerTask=cpu=1"
)
"""As Slurm 22.05 and 23.11 write it, without some fields."""


@pytest.mark.parametrize("numbered", [True, False])
def test_jobs_that_the_queue_does_not_show_are_adopted_and_cancelled(
    numbered: bool, out: Path, fake_slurm: Any
) -> None:
    """The controller knows them; those of others with the same name, and an older one that has ended, do not count."""
    fake_slurm.replace("sbatch", f"{ACCEPT} echo $number")
    submit(out)
    if not numbered:
        record = out / "cluster" / "jobs.json"
        record.write_text(re.sub(r'"number": \d+', '"number": 0', record.read_text()))
    rows = [row.split("|") for row in fake_slurm.asked("queue")]
    lines = [SHOWN.format(number=int(n), name=name, user=os.getuid(), script=s) for n, *_, name, s in rows]
    name, script = rows[0][-2:]
    lines += [SHOWN.format(number=7, name=name, user=os.getuid() + 1, script=script)]
    lines += [SHOWN.format(number=8, name=name, user=os.getuid(), script=script).replace("=PENDING", "=COMPLETED")]
    (fake_slurm.root / "shown").write_text("\n".join(["Welcome to gamma", *lines]))
    fake_slurm.replace("squeue", "exit 0")
    fake_slurm.replace("scontrol", 'case "$*" in *show*) cat "$FAKE/shown" ;; esac')
    assert "0 jobs submitted, 6 in the queue before" in submit(out)
    assert len(fake_slurm.asked("sbatch")) == 6
    assert submit_command.cancel(out).count("cancelled: job 10") == 6


def test_jobs_that_the_controller_does_not_know_have_ended(out: Path, fake_slurm: Any) -> None:
    fake_slurm.replace("sbatch", f"{ACCEPT} echo $number")
    submit(out)
    (fake_slurm.root / "queue").unlink()
    fake_slurm.replace("scontrol", "echo No jobs in the system")
    assert "6 jobs submitted" in submit(out)


@pytest.mark.parametrize(
    "talk",
    [
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1",
        "echo 'accepted, see https://x'; exit 0",
    ],
)
def test_a_job_that_was_accepted_without_a_word_is_adopted(talk: str, out: Path, fake_slurm: Any) -> None:
    fake_slurm.replace("sbatch", ACCEPT + TALK % talk)
    assert "6 jobs submitted" in submit(out)
    assert (names(fake_slurm), recorded(out)["train-sra"]) == (JOBS, 103)
    assert fake_slurm.asked("scancel") == []


def test_a_job_that_shows_up_later_is_adopted_by_the_next_submission(out: Path, fake_slurm: Any) -> None:
    late = "echo 'Socket timed out' >&2; tail -n 1 $FAKE/queue >$FAKE/late; sed -i '$d' $FAKE/queue; exit 1"
    fake_slurm.replace("sbatch", ACCEPT + TALK % late)
    with pytest.raises(UncertainError, match=r"^sbatch: Socket timed out$"):
        submit(out)
    assert fake_slurm.asked("scancel") == ["101 102"]
    assert recorded(out) == {"train-sra": 0}
    (fake_slurm.root / "queue").write_text((fake_slurm.root / "late").read_text())
    fake_slurm.replace("sbatch", f"{ACCEPT} echo $number")
    # What it waits for was cancelled: it is replaced, not doubled.
    assert "6 jobs submitted, 0 in the queue before" in submit(out)
    assert fake_slurm.asked("scancel")[1:] == ["103"]
    assert names(fake_slurm)[3:] == JOBS


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_cut_short_is_adopted(
    error: type[BaseException], out: Path, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after sbatch accepted the first job: neither doubled nor forgotten."""
    fake_slurm.replace("sbatch", f"{ACCEPT} echo $number")
    accept = queue.submit

    def cut_short(script: Path, after: list[int], condition: str) -> JobId:
        accept(script, after, condition)
        raise error

    monkeypatch.setattr(queue, "submit", cut_short)
    with pytest.raises(error):
        submit(out)
    monkeypatch.setattr(queue, "submit", accept)
    assert recorded(out) == {"images": 0}
    assert "5 jobs submitted, 1 in the queue before" in submit(out)
    assert (names(fake_slurm), recorded(out)["images"]) == (JOBS, 101)
    assert submit_command.cancel(out).count("cancelled: job") == 6


def test_jobs_that_cannot_be_cancelled_stay_recorded(out: Path, fake_slurm: Any) -> None:
    fake_slurm.replace(
        "sbatch", ACCEPT + TALK % "sed -i '$d' $FAKE/queue; echo 'error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1"
    )
    fake_slurm.replace("scancel", "echo 'scancel: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(
        UserError, match=r"QOSMax\w+; still in the queue: 101, 102 \(scancel: Unable .*same command continues$"
    ):
        submit(out)
    fake_slurm.replace("sbatch", f"{ACCEPT} echo $number")
    assert "4 jobs submitted, 2 in the queue before" in submit(out)
    assert names(fake_slurm)[3:] == JOBS[2:]


def test_a_job_that_ends_while_it_is_cancelled_is_no_error(fake_slurm: Any) -> None:
    fake_slurm.replace(
        "scancel", "echo 'scancel: error: Kill job error on job id 7: Job already completed' >&2; exit 1"
    )
    fake_slurm.queue((7, "COMPLETED", "None", "x"))
    queue.cancel([7])
    fake_slurm.queue((7, "RUNNING", "None", "x"))
    with pytest.raises(SlurmError, match="Kill job error"):
        queue.cancel([7])


def test_another_cluster_is_asked_for_its_jobs(out: Path, fake_slurm: Any) -> None:
    fake_slurm.replace("sbatch", f'{ACCEPT} echo "$number;gamma"')
    submit(out)
    fake_slurm.replace("squeue", 'case "$*" in *--clusters=gamma*) cat "$FAKE/queue" ;; esac')
    assert "0 jobs submitted, 6 in the queue before" in submit(out)
    submit_command.cancel(out)
    assert fake_slurm.asked("scancel") == ["--clusters=gamma 101 102 103 104 105 106"]


def test_left_over_variables_change_nothing(out: Path, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From within an allocation, or a shell with options of Slurm's commands."""
    left = ("SLURM_JOB_ID", "SLURM_CPU_BIND", "SLURM_MEM_PER_CPU", "SBATCH_TIMELIMIT", "SQUEUE_STATES", "SCANCEL_STATE")
    for name in left:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    monkeypatch.setenv("SBATCH_QOS", "fast")
    (out.parent / "site.yaml").write_text(SITE.replace("time: '30'", "time: '30', qos: slow", 1))
    listing = 'env | grep -o "^S[A-Z]*_[A-Z_]*" | sort -u | tr "\\n" " " >>"$FAKE/environment"\n'
    for name, body in {"sbatch": f"{ACCEPT} echo $number", "squeue": 'cat "$FAKE/queue"', "sinfo": ":"}.items():
        fake_slurm.replace(name, listing + body)
    submit(out)
    submit(out)
    (text,) = fake_slurm.asked("environment")
    assert not set(text.split()) & set(left)
    assert "SLURM_CONF" in text.split()
    train, score = ((out / "cluster" / f"{name}.sh").read_text() for name in ("train-sra", "score-adm-sra"))
    assert ("--account=mine" in train, "--qos=slow" in train, "--qos=fast" in train) == (True, True, False)
    assert ("--account=mine" in score, "--qos=fast" in score) == (True, True)
    assert os.environ["SLURM_JOB_ID"] == "7"
