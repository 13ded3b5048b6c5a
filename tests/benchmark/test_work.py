"""Single stages of a planned run, as a cluster's jobs run them: side by side, on several nodes, in any order."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.commands import work as worker
from benchmark.machine.environment import TENSORFLOW_PYTHON
from benchmark.plan.plan import Plan
from benchmark.plan.prepare import prepare, register
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory, StoreError, is_done, write_json
from benchmark.plan.saved_plan import sessions_of
from benchmark.run.executor import Local, Node, command_of
from sra.config import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("nodes", "rank", "found"), [("1", "3", 0), ("2", "1", 1), ("2", "2", None)])
def test_a_left_over_rank_is_not_that_of_a_job_of_one_node(
    nodes: str, rank: str, found: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ranks: list[int] = []
    monkeypatch.setattr(worker, "work", lambda _root, _names, node, *_: ranks.append(node.rank))
    words = ["work", str(tmp_path), "--stage", "x", "--nodes", nodes]
    result = CliRunner().invoke(app, words, env={"SLURM_NODEID": rank})
    assert ranks == ([] if found is None else [found])
    if found is None:
        assert "--node-rank: expected less than --nodes 2, got 2" in str(result.exception)


@pytest.fixture
def planned(tmp_path: Path, small_settings: tuple[str, ...]) -> tuple[Plan, RunDirectory]:
    plan, directory, _ = prepare(
        RunRequest(
            manifest=ROOT / "manifests" / "smoke.yaml", out=tmp_path, overrides=small_settings, variants=("baseline",)
        )
    )
    directory.create()
    register(plan, directory, "sra-bench submit")
    return plan, directory


def name_of(plan: Plan, kind: str) -> str:
    return next(stage.directory.name for stage in plan.stages if stage.kind.name == kind)


def test_a_planned_stage_is_run_and_recorded(planned: tuple[Plan, RunDirectory]) -> None:
    plan, directory = planned
    assert worker.work(directory.root, [name_of(plan, "images")]) == "done: images"
    assert is_done(plan.stages[0].directory, plan.stages[0].key)
    assert len(sessions_of(directory)) == 1
    worker.work(directory.root, [name_of(plan, "images")])
    assert len(sessions_of(directory)) == 1


def test_an_unknown_stage_and_a_folder_without_a_plan(planned: tuple[Plan, RunDirectory], tmp_path: Path) -> None:
    plan, directory = planned
    wrong = name_of(plan, "images")[:-1]
    with pytest.raises(UserError, match=rf"--stage: .*'{wrong}' .did you mean"):
        worker.work(directory.root, [wrong])
    with pytest.raises(UserError, match=r"plan\.json"):
        worker.work(tmp_path / "none", ["report"])


def test_stages_are_held_one_by_one(planned: tuple[Plan, RunDirectory]) -> None:
    plan, directory = planned
    first, second = plan.stages[0].key, plan.stages[1].key
    with directory.locked([first]):
        with directory.locked([second]):
            pass
        directory.workers.mkdir()
        write_json(directory.workers / "x.json", {"state": "running", "pid": os.getpid(), "host": os.uname().nodename})
        for keys in ([first], [second, first], None):
            with pytest.raises(StoreError, match=rf"process {os.getpid()}"), directory.locked(keys):
                pass
    with directory.locked(), pytest.raises(StoreError), directory.locked([second]):
        pass


def test_a_command_on_one_node_and_on_two(planned: tuple[Plan, RunDirectory]) -> None:
    plan, directory = planned
    train = next(s for s in plan.stages if s.kind.name == "train")
    assert Local().argv(command_of([train], directory))[1:3] == ["-m", "sra.training.train"]
    alone = Local().argv(command_of([train], directory, 8))
    assert alone[1:6] == ["-m", "sra.runtime.launch", "--standalone", "--nproc-per-node", "8"]
    assert alone[6:8] == ["-m", "sra.training.train"]
    assert alone[alone.index("--processes") + 1] == "8"
    shared = Local(Node(count=2, rank=1, address="n0", port=7)).argv(command_of([train], directory, 8))
    options = dict(zip(shared[3:13:2], shared[4:13:2], strict=True))
    assert options == {
        "--nnodes": "2",
        "--node-rank": "1",
        "--master-addr": "n0",
        "--master-port": "7",
        "--nproc-per-node": "4",
    }


def test_tensorflow_may_have_an_environment_of_its_own(
    planned: tuple[Plan, RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, directory = planned
    monkeypatch.setenv(TENSORFLOW_PYTHON, "/opt/tensorflow/bin/python")
    first = {stage.tool or stage.kind.name: Local().argv(command_of([stage], directory))[0] for stage in plan.stages}
    assert first.pop("adm") == "/opt/tensorflow/bin/python"
    assert set(first.values()) == {sys.executable}


@pytest.mark.slow
def test_two_nodes_train_one_stage(planned: tuple[Plan, RunDirectory]) -> None:
    """Two runners on this machine, as on two: the second starts first and waits; only rank 0 writes the records."""
    plan, directory = planned
    for kind in ("images", "latents"):
        worker.work(directory.root, [name_of(plan, kind)])
    command = [sys.executable, "-m", "benchmark.cli.main", "work", str(directory.root)]
    command += ["--stage", name_of(plan, "train")]
    command += ["--nodes", "2", "--processes", "2", "--master-port", "29617"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**environment, "SLURM_NODEID": rank}
        )
        for rank in ("1", "0")
    ]
    texts = [node.communicate(timeout=180)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], texts
    assert "node 1: done" in texts[0]
    train = next(s for s in plan.stages if s.kind.name == "train")
    assert is_done(train.directory, train.key)
    assert (train.directory / "log-node1.txt").is_file()


def test_a_node_that_waits_for_the_first_one_stops_when_it_is_told(planned: tuple[Plan, RunDirectory]) -> None:
    plan, directory = planned
    code = (
        "import sys; from benchmark.cli import main as cli; from benchmark.commands import work; await_ = work._await; "
    )
    code += "work._await = lambda stages: (print('waits', flush=True), await_(stages)); cli.main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "work", str(directory.root), "--stage", name_of(plan, "train")]
    command += ["--nodes", "2", "--node-rank", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 75


def test_a_job_that_starts_again_waits_for_its_predecessor(
    planned: tuple[Plan, RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere, say on a node that Slurm has given up, it may still be saving."""
    plan, directory = planned
    stage = plan.stages[0]
    directory.workers.mkdir()
    write_json(directory.workers / "x.json", {"state": "running", "pid": 1, "host": "another-host"})
    with contextlib.ExitStack() as held:
        held.enter_context(directory.locked([stage.key]))
        threading.Timer(0.5, held.pop_all().close).start()
        assert worker.work(directory.root, [stage.directory.name]) == "done: images"
    assert "process 1 on another-host: waiting for its jobs to end" in capsys.readouterr().out
