"""The runner on small real processes: order, logs, finishing, refusals, interruption."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmark.commands.run import execute
from benchmark.machine.environment import ignored_variables, job_environment, recorded
from benchmark.manifest.schema import load
from benchmark.plan import prepare
from benchmark.plan.plan import Plan, make_plan
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory, StoreError, is_done, read_json, write_json
from benchmark.plan.saved_plan import record_session, sessions_of
from benchmark.plan.stages import Stage
from benchmark.run import process as job_process
from benchmark.run import runner
from benchmark.run.executor import LOCAL, Command
from sra.common.errors import Stopped
from sra.config import CodecConfig, ModelConfig, StandInJob, UserError

WORK = "import sys, pathlib; print('working'); pathlib.Path(sys.argv[1], 'samples.npz').write_text('x')"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(
        name="train-x",
        key="0123456789abcdef",
        directory=tmp_path / "stages" / "train-x-01234567",
        job=StandInJob(seed=0, codec=CodecConfig(), model=ModelConfig(convention="sra"), images=1),
    )


@dataclass(frozen=True)
class Script:
    """An executor whose job is always the same script, with the stage's directory as its argument."""

    code: str
    stage: Stage

    def argv(self, command: Command) -> list[str]:
        return [sys.executable, "-c", self.code, str(self.stage.directory)]

    def ready(self, _command: Command) -> None:
        pass


def run_with(code: str, stage: Stage, tmp_path: Path) -> None:
    runner.run_batch([stage], runner.Session(directory=RunDirectory(tmp_path), executor=Script(code, stage)))


def test_what_only_later_stages_read_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run --until sample` without the graph and with a reference that is no archive; with them, it is refused."""
    broken = tmp_path / "reference.npz"
    broken.write_bytes(b"half a download")
    started: list[str] = []
    monkeypatch.setattr(runner, "run_batch", lambda stages, *_: started.extend(stage.name for stage in stages))
    manifest = Path(__file__).parents[2] / "manifests" / "smoke.yaml"
    overrides = ("score.graph=/none/graph.pb", f"score.reference={broken}")

    def run_until(kind: str, *overrides: str) -> str:
        out = tmp_path / kind
        return execute(RunRequest(manifest=manifest, out=out, overrides=overrides, until=kind))

    assert run_until("sample", *overrides).startswith("done until sample")
    assert "sample-sra" in started
    assert not any(name.startswith("score") for name in started)
    with pytest.raises(UserError, match=r"score\.reference: expected a \.npz"):
        run_until("score", *overrides)
    with pytest.raises(UserError, match=r"input not found: /none/graph\.pb"):
        run_until("report", overrides[0])
    with pytest.raises(UserError, match=r"input not found: /none/images"):
        run_until("train", "data.images=/none/images")


def test_finished_stage_has_a_log_and_done(stage: Stage, tmp_path: Path) -> None:
    run_with(WORK, stage, tmp_path)
    assert is_done(stage.directory, stage.key)
    assert (stage.directory / "log.txt").read_text() == "working\n"
    document = read_json(stage.directory / "stage.json")
    assert document is not None
    assert document["key"] == stage.key


def test_weights_of_a_shorter_training_are_outputs_too(stage: Stage, tmp_path: Path) -> None:
    shorter = stage.directory / "weights" / "step-00000005.safetensors"
    shorter.parent.mkdir(parents=True)
    shorter.write_text("weights")
    run_with(WORK, stage, tmp_path)
    assert is_done(stage.directory, stage.key, ["weights/step-00000005.safetensors"])
    shorter.write_text("other")
    assert not is_done(stage.directory, stage.key, ["weights/step-00000005.safetensors"])


def test_the_jobs_error_line_is_the_runs(stage: Stage, tmp_path: Path) -> None:
    code = "import sys; print('error: x.png: not an image', file=sys.stderr); sys.exit(2)"
    with pytest.raises(runner.StageError, match=r"stage train-x: x\.png: not an image"):
        run_with(code, stage, tmp_path)
    assert not is_done(stage.directory, stage.key)


def test_missing_output_is_not_done(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(runner.StageError, match=r"without its output .*samples\.npz"):
        run_with("pass", stage, tmp_path)
    assert not (stage.directory / "done.json").exists()


def test_a_crash_names_the_log(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(runner.StageError, match=r"exit code 1; see .*log\.txt"):
        run_with("raise RuntimeError('bug')", stage, tmp_path)
    assert "RuntimeError: bug" in (stage.directory / "log.txt").read_text()


def test_exit_75_means_stopped(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_with("import sys; sys.exit(75)", stage, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_stop_reaches_the_job_and_no_process_is_left(tmp_path: Path, number: signal.Signals) -> None:
    job = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(75))); "
        "print('pid', os.getpid()); time.sleep(60)"
    )
    code = f"""
import sys
from pathlib import Path
from benchmark.run import process
from sra.common.errors import Stopped
try:
    process.stream([sys.executable, "-u", "-c", {job!r}], [Path({str(tmp_path / "log.txt")!r})], "job")
except Stopped:
    sys.exit(75)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[-1])
    process.send_signal(number)
    assert process.wait(timeout=30) == 75
    assert "saved" in (tmp_path / "log.txt").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(("pause", "saved"), [(0.0, True), (2.5, False)])
def test_signals_in_quick_succession_are_one_request(tmp_path: Path, pause: float, saved: bool) -> None:
    """`timeout` signals `uv run` and its process group: the job must still have the time to save."""
    seconds = 0.5 if saved else 60
    job = (
        "import signal, sys, time; "
        f"signal.signal(signal.SIGTERM, lambda *_: (time.sleep({seconds}), print('saved'), sys.exit(75))); "
        "print('ready'); time.sleep(60)"
    )
    code = f"""
import sys
from pathlib import Path
from benchmark.run import process
from sra.common.errors import Stopped
try:
    process.stream([sys.executable, "-u", "-c", {job!r}], [Path({str(tmp_path / "log.txt")!r})], "job")
except Stopped:
    sys.exit(75)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(pause or 0.1)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=30)
    assert process.returncode == 75
    assert ("saved" in (tmp_path / "log.txt").read_text()) is saved
    assert ("lost" in messages) is not saved


def test_a_log_that_cannot_be_written_gives_the_job_the_time_to_save(tmp_path: Path) -> None:
    job = (
        "import pathlib, signal, sys, time; "
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(tmp_path / 'saved')!r}).touch(), sys.exit(75))); "
        "print('ready', flush=True); time.sleep(60)"
    )
    with pytest.raises(OSError, match="No space left") as failed:
        job_process.stream([sys.executable, "-c", job], [Path("/dev/full")], "job")
    assert failed.value.filename == "/dev/full"
    assert (tmp_path / "saved").exists()


def test_jobs_die_with_a_killed_runner(tmp_path: Path) -> None:
    job = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = f"""
import sys
from pathlib import Path
from benchmark.run import process
process.stream([sys.executable, "-c", {job!r}], [Path({str(tmp_path / "log.txt")!r})], "job")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[-1])
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if status == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()


def test_all_descendants_are_killed_where_other_users_processes_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(process: psutil.Process, **_: bool) -> list[psutil.Process]:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "children", refused)
    # Like torchrun, whose workers have sessions of their own.
    worker = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = psutil.Process(int(process.stdout.readline()))
        job_process.kill_tree(process.pid)
        assert process.wait(timeout=30) == -signal.SIGKILL
    psutil.wait_procs([grandchild], timeout=30)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_killed_job_is_named_by_its_signal(stage: Stage, tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGBUS)"
    with pytest.raises(
        runner.StageError, match=r"was killed by SIGBUS \(the disk or /dev/shm is full, or a file was cut short"
    ):
        run_with(code, stage, tmp_path)
    # Through an engine or a shell.
    with pytest.raises(
        runner.StageError, match=r"was killed by SIGKILL \(out of memory\?\); the same command continues"
    ):
        run_with("raise SystemExit(137)", stage, tmp_path)
    with pytest.raises(runner.StageError, match="ended with exit code 128"):
        run_with("raise SystemExit(128)", stage, tmp_path)


def test_a_damaged_output_is_made_anew(stage: Stage, tmp_path: Path) -> None:
    """A job that takes what is there for whole must not bless a truncated file."""
    run_with(WORK, stage, tmp_path)
    (stage.directory / "samples.npz").write_text("")
    (stage.directory / ".samples.npz.ab12cd_9").write_text("left by a killed process")
    assert not is_done(stage.directory, stage.key)
    lazy = "import sys, pathlib; p = pathlib.Path(sys.argv[1], 'samples.npz'); p.exists() or p.write_text('x')"
    run_with(lazy, stage, tmp_path)
    assert (stage.directory / "samples.npz").read_text() == "x"
    assert sorted(p.name for p in stage.directory.iterdir()) == ["done.json", "log.txt", "samples.npz", "stage.json"]


def test_an_extended_stage_keeps_what_is_there(stage: Stage, tmp_path: Path) -> None:
    run_with(WORK, stage, tmp_path)
    write_json(stage.directory / "done.json", {"key": stage.key, "outputs": {}})
    (stage.directory / "samples.npz").rename(stage.directory / "kept.npz")
    assert not stage.is_done
    code = "import sys, pathlib; pathlib.Path(sys.argv[1], 'kept.npz').rename(sys.argv[1] + '/samples.npz')"
    run_with(code, stage, tmp_path)
    assert stage.is_done
    # Other nodes wait until the record is that of the extended job, not only of its key.
    assert stage.is_recorded()
    assert not dataclasses.replace(stage, job=dataclasses.replace(stage.job, seed=1)).is_recorded()


def test_a_new_run_waits_for_the_jobs_of_one_that_was_killed(tmp_path: Path, capsys) -> None:
    """The job inherits the lock, so that two jobs never write to one directory."""
    job = (
        "import signal, time, pathlib; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); "
        "print('ready', flush=True); signal.sigwait([signal.SIGTERM]); "
        f"time.sleep(1); pathlib.Path({str(tmp_path / 'saved')!r}).touch()"
    )
    code = f"""
import sys
from pathlib import Path
from benchmark.run import process
from benchmark.plan.run_directory import RunDirectory
with RunDirectory(Path({str(tmp_path)!r})).locked() as lock:
    process.stream([sys.executable, "-c", {job!r}], [Path({str(tmp_path / "log.txt")!r})], "job", lock)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    with (
        pytest.raises(StoreError, match=rf"in use by another run \(process {process.pid} on "),
        RunDirectory(tmp_path).locked(),
    ):
        pass
    process.kill()
    process.wait()
    with RunDirectory(tmp_path).locked():
        assert (tmp_path / "saved").exists()
    assert f"the run before (process {process.pid}) has died" in capsys.readouterr().out


def test_processes_are_one_a_gpu_or_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "visible_gpus", lambda: 0)
    assert [prepare.processes_for(asked) for asked in (None, 1, 3)] == [1, 1, 3]
    with pytest.raises(UserError, match=r"--processes.*1 or more"):
        prepare.processes_for(0)
    monkeypatch.setattr(prepare, "visible_gpus", lambda: 2)
    assert [prepare.processes_for(asked) for asked in (None, 1)] == [2, 1]
    with pytest.raises(UserError, match=r"--processes.*1 to 2"):
        prepare.processes_for(3)


def test_a_disk_too_full_for_a_report_does_not_hide_the_stages_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark.commands import run

    def fail(plan: Plan, *_: object) -> None:
        write_json(plan.stages[0].directory / "failed.json", {})
        raise runner.StageError("stage score-adm: no space left on the disk")

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr(run, "run_plan", fail)
    monkeypatch.setattr(run, "write_reports", full)
    with pytest.raises(runner.StageError, match="stage score-adm: no space left"):
        run.execute(RunRequest(manifest=Path("manifests/smoke.yaml"), out=tmp_path / "out"))


def test_jobs_see_neither_left_over_launchers_nor_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left_over = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "OMPI_COMM_WORLD_SIZE", "SLURM_PROCID")
    for name in (*left_over, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "3")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text("raise ImportError('from the current folder')")
    monkeypatch.chdir(tmp_path)
    code = "import json, os, runpy; runpy.run_module('json.tool', run_name='other'); print(*sorted(os.environ))"
    names = job_process.run_job("job", [sys.executable, "-c", code], capture=True).split()
    assert not set(left_over) & set(names)
    assert "OMP_NUM_THREADS" in names


CHANGES_NUMBERS = (
    *("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE", "XLA_FLAGS"),
    *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCHDYNAMO_DISABLE", "TORCHINDUCTOR_MAX_AUTOTUNE", "TF_ENABLE_ONEDNN_OPTS"),
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "OMP_DYNAMIC", "PYTHONOPTIMIZE"),
    *("CUDNN_CONV_WSCAP_DBG", "PYTORCH_TENSOREXPR", "CUBLAS_WORKSPACE_CONFIG", "MKL_ENABLE_INSTRUCTIONS"),
)


def test_what_changes_a_number_reaches_no_job_and_what_matters_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (*CHANGES_NUMBERS, "OF_A_LIBRARY_OF_TOMORROW", "MKL_DYNAMIC", "OF_THIS_SITE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SRA_BENCH_ENVIRONMENT", "MKL_DYNAMIC, OF_THIS_SITE")
    passed = {"OMP_NUM_THREADS": "3", "TORCH_HOME": "/models", "MKL_DYNAMIC": "1", "OF_THIS_SITE": "1"}
    for name, value in {**passed, "SRA_BENCH_TOKEN": "secret", "PYTHONPATH": f":{tmp_path}"}.items():
        monkeypatch.setenv(name, value)
    environment = job_environment()
    assert not {*CHANGES_NUMBERS, "OF_A_LIBRARY_OF_TOMORROW"} & environment.keys()
    line = ignored_variables()
    assert line is not None
    assert set(CHANGES_NUMBERS) <= set(line.removeprefix("jobs do not get ").partition(";")[0].split(", "))
    assert environment["PYTHONPATH"] == str(tmp_path)  # the empty part is the current folder
    assert {**passed, "PYTHONPATH": str(tmp_path)}.items() <= recorded(environment).items()
    assert "secret" not in recorded(environment).values()
    directory = RunDirectory(tmp_path)
    record_session(make_plan(load(Path("manifests/smoke.yaml")), directory), directory, LOCAL.facts())
    assert sessions_of(directory)[0].variables == recorded(environment)
