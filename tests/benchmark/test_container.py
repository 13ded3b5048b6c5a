"""Stages in containers: the command line, what is refused before a job, and a run through an engine that is a fake."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.commands.plan import show_plan
from benchmark.containers import executor, preflight
from benchmark.containers.build import installed_version
from benchmark.containers.engine import CUDA_LABEL
from benchmark.containers.executor import Container, choose_executor, name_of
from benchmark.containers.settings import EVALUATOR_PYTHON, ContainerSettings, parse_settings
from benchmark.machine.environment import GRACE_SECONDS
from benchmark.plan.prepare import prepare
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import is_done
from benchmark.run.executor import Command, command_of
from sra.common.errors import STOPPED, UserError

ROOT = Path(__file__).parents[2]
VERSION = installed_version()
HEALTHY = {"gpus": 0, "shared_memory": 2**31, "writable": True, "uid": 1000}


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path / "assets"))
    (tmp_path / "assets").mkdir()
    return tmp_path / "assets"


@pytest.fixture
def engine(tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake docker and podman on PATH; their folder."""
    place = tmp_path / "engine"
    (place / "bin").mkdir(parents=True)
    script = f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "running_engine.py"} "$@"\n'
    for name in ("docker", "podman"):
        (place / "bin" / name).write_text(script)
        (place / "bin" / name).chmod(0o755)
    (place / "images.json").write_text(
        json.dumps({f"localhost/sra-bench/{role}:{VERSION}": {} for role in ("trainer", "evaluator", "all")})
    )
    (place / "probe.json").write_text(json.dumps(HEALTHY))
    monkeypatch.setenv("FAKE_ENGINE", str(place))
    monkeypatch.setenv("SRA_BENCH_ENVIRONMENT", "FAKE_ENGINE")
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    preflight.probe.cache_clear()
    return place


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """As on a machine with so many GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count))))
    monkeypatch.setattr(executor, "visible_gpus", lambda: count)


def calls(engine: Path) -> list[list[str]]:
    return [json.loads(line) for line in (engine / "calls.jsonl").read_text().splitlines()]


def make(root: Path, **changes: Any) -> Command:
    facts = {"module": "sra.training.train", "arguments": ("--out", "x"), "processes": 1, "reads": ()}
    (root / "run").mkdir(exist_ok=True)
    return Command(**{**facts, "writes": root / "run", **changes})


def options(argv: list[str], name: str) -> list[str]:
    return [value for option, value in itertools.pairwise(argv) if option == name]


def test_each_stage_runs_in_its_image(tmp_path: Path, assets: Path) -> None:
    plan, directory, _ = prepare(RunRequest(manifest=ROOT / "manifests" / "smoke.yaml", out=tmp_path / "run"))
    first = {stage.tool or stage.kind.name: command_of([stage], directory) for stage in plan.stages}
    apart, one = Container(ContainerSettings(), "docker"), Container(ContainerSettings(one=True), "docker")
    images = {kind: apart.image(command) for kind, command in first.items()}
    assert images.pop("adm") == f"localhost/sra-bench/evaluator:{VERSION}"
    assert set(images.values()) == {f"localhost/sra-bench/trainer:{VERSION}"}
    assert {one.image(command) for command in first.values()} == {f"localhost/sra-bench/all:{VERSION}"}
    # Where both environments lie in one image, TensorFlow's is named.
    assert EVALUATOR_PYTHON in one.argv(first["adm"])
    assert EVALUATOR_PYTHON not in [*one.argv(first["train"]), *apart.argv(first["adm"])]


@pytest.mark.parametrize("engine_name", ["docker", "podman"])
def test_the_container_is_shut_in(
    tmp_path: Path, assets: Path, engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 99)
    argv = Container(ContainerSettings(), engine_name).argv(make(tmp_path))
    assert argv[:3] == [engine_name, "run", "--rm"]
    assert {"--init", "--read-only"} <= set(argv)
    exact = {"--network": "none", "--cap-drop": "all", "--pull": "never", "--user": "1234:99", "--shm-size": "8g"}
    exact |= {"--stop-signal": "SIGTERM", "--stop-timeout": str(int(GRACE_SECONDS)), "--workdir": f"{tmp_path}/run"}
    for name, value in exact.items():
        assert options(argv, name) == [value], name
    assert "no-new-privileges" in options(argv, "--security-opt")
    assert ("--userns=keep-id" in argv) == (engine_name == "podman")
    assert argv[-5:] == ["python", "-m", "sra.training.train", "--out", "x"]


def test_inputs_are_mounted_read_only_and_the_run_writable(tmp_path: Path, assets: Path) -> None:
    data = tmp_path / "data"
    reads = (str(data / "a"), str(data), "embedded:digits", str(tmp_path / "run/stages/x"), str(assets / "graph.pb"))
    argv = Container(ContainerSettings(), "docker").argv(make(tmp_path, reads=reads))
    writable = f"type=bind,source={tmp_path}/run,target={tmp_path}/run"
    read_only = [f"type=bind,source={place},target={place},readonly" for place in (assets, data)]
    assert options(argv, "--mount") == [*read_only, writable]
    apptainer = Container(ContainerSettings(repository="/sif"), "apptainer").argv(make(tmp_path, reads=reads))
    assert options(apptainer, "--bind") == [f"{p}:{p}:ro" for p in (assets, data)] + [
        f"{tmp_path}/run:{tmp_path}/run:rw"
    ]
    assert apptainer[:2] == ["apptainer", "exec"]
    assert f"/sif/trainer-{VERSION}.sif" in apptainer


def test_relative_inputs_keep_their_names(tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    argv = Container(ContainerSettings(), "docker").argv(make(tmp_path, reads=("data",)))
    assert options(argv, "--workdir") == [str(tmp_path / "here")]
    assert f"source={tmp_path}/here/data" in " ".join(argv)
    (tmp_path / "above").mkdir()
    with pytest.raises(UserError, match="needs its absolute path"):
        Container(ContainerSettings(), "docker").argv(make(tmp_path, reads=("../above",)))
    with pytest.raises(UserError, match="cannot be mounted"):
        Container(ContainerSettings(), "docker").argv(make(tmp_path, reads=("/data,set",)))


def test_the_environment_is_a_whitelist(tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("SRA_BENCH_TENSORFLOW_PYTHON", "/outside/python")
    monkeypatch.setenv("SRA_BENCH_PERF", "/perf.json")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    argv = Container(ContainerSettings(), "docker").argv(make(tmp_path))
    given = dict(item.split("=", 1) for item in options(argv, "--env"))
    assert given["HF_HUB_OFFLINE"] == "1"
    assert given["HOME"] == "/tmp"
    assert given["SRA_BENCH_PERF"] == "/perf.json"
    assert not {"SECRET_TOKEN", "SRA_BENCH_TENSORFLOW_PYTHON", "HF_HUB_CACHE", "PATH"} & set(given)
    hub = Container(ContainerSettings(), "docker").argv(make(tmp_path, reads=("stabilityai/sd-vae-ft-ema",)))
    assert f"HF_HUB_CACHE={tmp_path / 'hub'}" in options(hub, "--env")
    assert f"type=bind,source={tmp_path / 'hub'},target={tmp_path / 'hub'},readonly" in options(hub, "--mount")


def test_gpus_are_given_only_where_there_are_some(
    tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"docker": ["--gpus", "all"], "podman": ["--device", "nvidia.com/gpu=all"], "apptainer": ["--nv"]}
    for name, words in wanted.items():
        with_gpus(monkeypatch, 0)
        assert words[0] not in (Container(ContainerSettings(), name).argv(make(tmp_path)))
        with_gpus(monkeypatch, 2)
        argv = Container(ContainerSettings(), name).argv(make(tmp_path))
        assert argv[argv.index(words[0]) : argv.index(words[0]) + len(words)] == words
        assert "CUDA_VISIBLE_DEVICES=0,1" in options(argv, "--env")


def test_several_processes_go_through_the_launcher(tmp_path: Path, assets: Path) -> None:
    argv = Container(ContainerSettings(), "docker").argv(make(tmp_path, processes=8))
    job = argv[argv.index(f"localhost/sra-bench/trainer:{VERSION}") + 1 :]
    assert job[:7] == ["python", "-m", "sra.runtime.launch", "--standalone", "--nproc-per-node", "8", "-m"]


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (["engin=docker"], "--container: expected one of the keys .*, got 'engin' .did you mean 'engine'"),
        (["engine=lxc"], "engine: expected 'auto', .*got 'lxc'"),
        (["engine"], "expected key=value"),
        (["shared_memory=lots"], "expected a number with k, m or g"),
    ],
)
def test_bad_settings_are_one_line(items: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        parse_settings(items)
    assert "\n" not in str(error.value)


def test_settings_without_containers_and_engines_that_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="only with --executor container"):
        choose_executor("local", ["engine=docker"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="docker or podman is not on PATH"):
        choose_executor("container", None)
    (tmp_path / "podman").write_text("#!/bin/sh\n")
    (tmp_path / "podman").chmod(0o755)
    with pytest.raises(UserError, match="docker is not on PATH"):
        choose_executor("container", ["engine=docker"])


def troubled(engine: Path, probe: dict[str, Any]) -> None:
    (engine / "probe.json").write_text(json.dumps({**HEALTHY, **probe}))
    preflight.probe.cache_clear()


def test_what_is_refused_before_a_job(tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Container(ContainerSettings(), "docker")
    docker.ready(make(tmp_path))
    with pytest.raises(UserError, match="trainer:v9: docker has no such image; `sra-bench images build trainer`"):
        Container(ContainerSettings(tag="v9"), "docker").ready(make(tmp_path))
    troubled(engine, {"writable": False})
    with pytest.raises(UserError, match="not writable inside the container by uid 1000"):
        docker.ready(make(tmp_path))
    troubled(engine, {"shared_memory": 64 * 2**20})
    docker.ready(make(tmp_path, processes=4))
    with_gpus(monkeypatch, 2)
    with pytest.raises(UserError, match="2 GPUs on this machine, none inside a container; install the NVIDIA"):
        docker.ready(make(tmp_path))
    troubled(engine, {"shared_memory": 64 * 2**20, "gpus": 2})
    docker.ready(make(tmp_path))
    with pytest.raises(UserError, match="64 MiB inside the container, 2 GPUs need 1024"):
        docker.ready(make(tmp_path, processes=2))
    (engine / "down").touch()
    with pytest.raises(UserError, match="docker image inspect: Cannot connect to the Docker daemon"):
        docker.ready(make(tmp_path))


def test_an_image_of_other_source_is_refused(tmp_path: Path, engine: Path) -> None:
    image, label = f"localhost/sra-bench/trainer:{VERSION}", "org.opencontainers.image.revision"
    docker = Container(ContainerSettings(), "docker")
    (engine / "images.json").write_text(json.dumps({image: {label: preflight.suite_revision()}}))
    docker.ready(make(tmp_path))
    (engine / "images.json").write_text(json.dumps({image: {label: "0" * 40}}))
    with pytest.raises(UserError, match=r"made from revision 000000000000, this suite is .*images build trainer"):
        docker.ready(make(tmp_path))
    Container(parse_settings(["other_revision=true"]), "docker").ready(make(tmp_path))


def test_apptainers_image_is_a_file(tmp_path: Path, assets: Path) -> None:
    with pytest.raises(UserError, match=r"\.sif: no such file; `apptainer build` makes it"):
        Container(ContainerSettings(repository=str(tmp_path)), "apptainer").ready(make(tmp_path))


@pytest.mark.parametrize(
    ("driver", "generation", "fits"),
    [
        ("550.54.15", "cu130", False),
        ("580.65.06", "cu130", True),
        ("525.60.13", "cu128", True),
        ("470.1", "none", True),
    ],
)
def test_the_driver_must_be_new_enough(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch, driver: str, generation: str, fits: bool
) -> None:
    image = f"localhost/sra-bench/trainer:{VERSION}"
    (engine / "images.json").write_text(json.dumps({image: {CUDA_LABEL: generation}}))
    (engine / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\necho NVIDIA H100, {driver}, 81559 MiB\n")
    (engine / "bin" / "nvidia-smi").chmod(0o755)
    with_gpus(monkeypatch, 1)
    troubled(engine, {"gpus": 1})
    docker = Container(ContainerSettings(), "docker")
    if fits:
        docker.ready(make(tmp_path))
        return
    with pytest.raises(UserError, match=r"driver of this machine is 550\.54\.15, CUDA 13 needs 580 or newer"):
        docker.ready(make(tmp_path))


def test_a_container_that_outlived_its_run_is_stopped_first(tmp_path: Path, engine: Path) -> None:
    command = make(tmp_path)
    name = name_of(command.writes)
    (engine / f"{name}.running").touch()
    Container(ContainerSettings(), "docker").ready(command)
    words = [call for call in calls(engine) if call[0] in ("stop", "rm")]
    assert words == [["stop", "-t", f"{GRACE_SECONDS:.0f}", name], ["rm", "-f", name]]
    # Another run's container has another name.
    assert name_of(tmp_path / "other" / "run") != name


def test_the_plan_shows_the_command_lines(tmp_path: Path, engine: Path, small_settings: tuple[str, ...]) -> None:
    executor = choose_executor("container", ["engine=podman", "tag=v1"])
    manifest = ROOT / "manifests" / "smoke.yaml"
    request = RunRequest(manifest=manifest, out=tmp_path / "run", overrides=small_settings, variants=("baseline",))
    text = show_plan(request, executor, as_json=False)
    assert "[train-baseline] podman run --rm" in text
    shown = json.loads(show_plan(request, executor, as_json=True))["commands"]
    assert [c["batch"] for c in shown][:3] == ["images", "latents", "train-baseline"]
    assert "commands" not in json.loads(show_plan(request, as_json=True))
    assert {tuple(call) for call in calls(engine)} == {("version",)}


@pytest.mark.slow
def test_a_run_in_containers_stops_continues_and_ends(
    tmp_path: Path, engine: Path, small_settings: tuple[str, ...]
) -> None:
    """SIGTERM reaches the job in the container, whose exit code 75 comes back; the same command continues."""
    out, settings = tmp_path / "run", [*small_settings, "train.steps=60"]
    command = [sys.executable, "-m", "benchmark.cli.main", "run", "manifests/smoke.yaml", "--variant", "baseline"]
    command += [part for item in settings for part in ("--set", item)]
    command += ["--out", str(out), "--until", "train", "--executor", "container", "--container", "engine=docker"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[train-baseline] speed"):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == STOPPED
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    plan, _, _ = prepare(
        RunRequest(
            manifest=ROOT / "manifests" / "smoke.yaml", out=out, overrides=tuple(settings), variants=("baseline",)
        )
    )
    train = next(stage for stage in plan.stages if stage.kind.name == "train")
    assert is_done(train.directory, train.key)
    assert json.loads((train.directory / "stage.json").read_text())["argv"][:2] == ["docker", "run"]
    assert "continues at step" in (train.directory / "log.txt").read_text()
