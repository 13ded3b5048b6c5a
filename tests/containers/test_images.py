"""Every image is built, found sound from inside, does its own work closed up, and counts as this machine does."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmark.containers.build import checkout, reference_of
from benchmark.machine.gpus import NO_GPU

SETTINGS = [
    "train.steps=40",
    "train.milestones=[20]",
    "train.checkpoint_every=20",
    "sample.steps=6",
    "sample.images=150",
    "sample.milestone_images=100",
    "sample.shard=50",
    "sample.batch=50",
]
SET = [part for item in SETTINGS for part in ("--set", item)]
# Of a row of the report: what a clock, a machine or a place says, not a number of the result.
ABOUT_THE_MACHINE = {"commands", "cost", "hours", "provenance"}


def numbers(value):
    """A document without what differs between two machines that count alike."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items() if key not in ABOUT_THE_MACHINE}
    return [numbers(item) for item in value] if isinstance(value, list) else value


def contents(rows) -> list[dict[str, str]]:
    """Hashes of what was sampled and scored against."""
    kinds = ("samples", "reference", "graph")
    return [{kind: row["provenance"][kind]["sha256"] for kind in kinds} for row in rows]


def test_the_images_are_listed_with_labels_and_sizes(built) -> None:
    done = built.bench("images", "list", "--engine", "podman", "--json")
    assert done.returncode == 0, done.stderr
    found = {name: image for image in json.loads(done.stdout)["images"] for name in image["names"]}
    for name, cuda in (("trainer", "cu130"), ("evaluator", "none"), ("all", "cu130")):
        image = found[reference_of(name, "ci")]
        assert (image["revision"], image["version"], image["cuda"]) == (checkout().revision, checkout().version, cuda)
        assert image["bytes"] > 1e8


def test_the_images_are_sound_from_inside(built) -> None:
    done = built.bench("images", "verify", "--engine", "podman", "--tag", "ci")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("holds") == 22
    assert "FAILS" not in done.stdout


def test_a_spoilt_image_is_seen(built) -> None:
    lines = "FROM localhost/sra-bench/evaluator:ci\nUSER 0\nENV SRA_BENCH_REVISION=0\n"
    lines += "RUN cp /bin/true /usr/bin/gcc && rm -r /opt/evaluator/lib/python3.11/site-packages/tqdm-*\n"
    made = built.podman("build", "--tag", "localhost/spoilt/evaluator:ci", "--file", "-", ".", stdin=lines)
    assert made.returncode == 0, made.stderr
    done = built.bench(
        "images", "verify", "evaluator", "--engine", "podman", "--tag=ci", "--repository=localhost/spoilt"
    )
    built.podman("rmi", "localhost/spoilt/evaluator:ci")
    assert done.returncode == 1, done.stderr
    failed = [line for line in done.stdout.splitlines() if "FAILS" in line]
    for part in ("it runs as root", "found gcc", "tqdm absent (locked: ", "SRA_BENCH_REVISION 0"):
        assert sum(part in line for line in failed) == 1, done.stdout
    assert len(failed) == 4, done.stdout


@pytest.mark.parametrize("name", ["trainer", "evaluator"])
def test_doctor_knows_its_environment(built, name: str) -> None:
    done = built.run(name, "sra-bench", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    versions = {line[0]: line[1] for line in reversed(lines) if len(line) == 2}
    devices = {line[0]: " ".join(line[2:]) for line in lines if line[1:2] == ["devices"]}
    own, other = ("torch", "tensorflow") if name == "trainer" else ("tensorflow", "torch")
    assert versions[own] != "absent"
    assert devices[own] == "cpu only"
    assert versions[other] == "absent"
    assert "No module named" in devices[other]
    # Only torch brings CUDA, and no GPU can be seen here.
    assert (f"warning: {NO_GPU}" in done.stdout) == (name == "trainer")


def test_the_trainer_trains_as_any_user(built, mounted) -> None:
    place, volume = mounted(4321)
    command = ["sra-bench", "run", "manifests/smoke.yaml", "--until", "sample", "--variant", "sra", *SET]
    done = built.run("trainer", *command, options=(*volume, "--user", "4321:4321"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert len(list(place.glob("smoke/stages/sample-*/done.json"))) == 2
    assert {path.stat().st_uid for path in place.rglob("*")} == {4321}


def test_the_trainer_compiles(built) -> None:
    """Needs the compiler and Python's headers, and a /tmp whose files may be executed."""
    code = "import torch; f = torch.compile(lambda x: (x.sin() + 1).sum(0)); x = torch.ones(8, 8); "
    code += "print(torch.allclose(f(x), (x.sin() + 1).sum(0)))"
    command = ["run", "--rm", "--network=none", "--read-only", "--tmpfs", "/tmp:exec", "localhost/sra-bench/trainer:ci"]
    done = built.podman(*command, "python", "-c", code)
    assert done.stdout.strip() == "True", done.stderr


def test_the_evaluator_scores_as_this_machine(built, mounted) -> None:
    place, volume = mounted()
    generator = np.random.default_rng(3)
    for name in ("samples", "reference"):
        np.savez(place / f"{name}.npz", arr_0=generator.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8))
    common = ["--graph", "embedded:digits", "--tool", "adm"]
    inside = ["--samples=runs/samples.npz", "--reference=runs/reference.npz", "--json=runs/inside.json"]
    done = built.run("evaluator", "sra-bench", "evaluate", *inside, *common, options=volume)
    assert done.returncode == 0, done.stdout + done.stderr
    here = [f"--{name}={place / name}.npz" for name in ("samples", "reference")]
    done = built.bench("evaluate", *here, f"--json={place / 'here.json'}", *common)
    assert done.returncode == 0, done.stdout + done.stderr
    found, wanted = (json.loads((place / f"{name}.json").read_text()) for name in ("inside", "here"))
    assert found["metrics"]["adm"]["fid"] > 0
    assert (found["metrics"], found["intervals"]) == (wanted["metrics"], wanted["intervals"])


def test_an_image_without_the_tool_says_which_has_it(built) -> None:
    for name, tool, line in (
        ("trainer", "adm", "tensorflow, which sra-bench[evaluate] installs, got none (the images evaluator"),
        ("evaluator", "clean-fid", "torch, which sra-bench[evaluate] installs, got none (the images trainer"),
    ):
        places = ["--samples=manifests", "--reference=manifests", "--graph=embedded:digits"]
        done = built.run(name, "sra-bench", "evaluate", *places, "--tool", tool)
        assert (done.returncode, done.stderr.strip()) == (
            2,
            f"error: sra-bench evaluate: expected package {line} and all have it)",
        )


def test_a_mount_of_another_user_is_refused_in_one_line(built, mounted) -> None:
    _, volume = mounted(4321)
    done = built.run("all", "sra-bench", "run", "manifests/smoke.yaml", options=volume)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: --out /sra-bench/runs/smoke: ")


def test_a_whole_run_counts_as_this_machine(built, mounted, tmp_path: Path) -> None:
    place, volume = mounted()
    command = ["run", "manifests/smoke.yaml", *SET]
    done = built.run("all", "sra-bench", *command, options=volume)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    here = built.bench(*command, "--out", str(tmp_path / "here"))
    assert here.returncode == 0, here.stdout[-3000:] + here.stderr
    found, wanted = (
        json.loads((folder / "report" / "report.json").read_text()) for folder in (place / "smoke", tmp_path / "here")
    )
    assert [row["variant"] for row in found["rows"]] == ["baseline", "sra"]
    for row in found["rows"]:
        assert row["errors"] == {}
        assert set(row["metrics"]) == {"adm", "clean-fid", "torch-fidelity"}
        assert row["provenance"]["tools"]["adm"] == found["provenance"]["versions"]["tensorflow"]
    assert numbers(found["rows"]) == numbers(wanted["rows"])
    assert contents(found["rows"]) == contents(wanted["rows"])
    assert found["provenance"]["source"]["commit"] == checkout().revision
    same = ("torch", "tensorflow", "numpy", "scipy", "pillow")
    assert [found["provenance"]["versions"][n] for n in same] == [wanted["provenance"]["versions"][n] for n in same]
