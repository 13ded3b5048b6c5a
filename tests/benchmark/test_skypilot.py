"""A run as a SkyPilot task: what its machine mounts and runs, and that nothing of it can be a shell's."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.clusters.skypilot import MANIFEST
from benchmark.commands.render import render_skypilot
from benchmark.plan.request import RunRequest
from sra.common.errors import STOPPED, UserError

SMOKE = Path(__file__).parents[2] / "manifests" / "smoke.yaml"


def rendered(folder: Path, overrides: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"skypilot": {"bucket": "runs-of-mine", **changes}}))
    document: dict[str, Any] = yaml.safe_load(
        render_skypilot(RunRequest(manifest=SMOKE, overrides=tuple(overrides or ()), variants=("sra",)), site=path)
    )
    return document


def options(words: list[str], name: str) -> list[str]:
    return [words[n + 1] for n, word in enumerate(words) if word == name]


def test_the_run_is_kept_in_a_bucket_and_continued(tmp_path: Path) -> None:
    task = rendered(tmp_path, store="s3", infra="aws/us-east-1", data={"/data/imagenet": "s3://imagenet"})
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [STOPPED]
    assert task["file_mounts"] == {
        MANIFEST: str(SMOKE),
        "/runs": {"name": "runs-of-mine", "store": "s3", "mode": "MOUNT_CACHED"},
        "/data/imagenet": {"source": "s3://imagenet", "mode": "MOUNT"},
    }
    words = shlex.split(task["run"])
    assert {"/runs:/runs", "/data/imagenet:/data/imagenet:ro"} <= set(options(words, "--volume"))
    assert words[words.index("sra-bench") :] == [
        *("sra-bench", "run", MANIFEST, "--out", "/runs/smoke", "--processes", "8", "--variant", "sra")
    ]


def test_only_the_setup_has_a_network(tmp_path: Path) -> None:
    task = rendered(tmp_path, env={"IMAGENET": "/data/imagenet"})
    fetch = shlex.split(task["setup"].splitlines()[1])
    run = shlex.split(task["run"])
    assert "--network" not in fetch
    assert options(run, "--network") == ["none"]
    assert "HF_HUB_OFFLINE=1" in options(run, "--env")
    for words in (fetch, run):
        wanted = {"IMAGENET=/data/imagenet", "SRA_BENCH_ENVIRONMENT=IMAGENET", "SRA_BENCH_ASSETS=/runs/assets"}
        assert wanted <= set(options(words, "--env"))
        assert {"--read-only", "--init", "--rm"} <= set(words)


def test_what_a_user_writes_is_not_the_shells(tmp_path: Path) -> None:
    task = rendered(tmp_path, ["data.images=$(touch /x)"], env={"IMAGENET": "/a; true"})
    words = shlex.split(task["run"])
    assert "data.images=$(touch /x)" in words
    assert "IMAGENET=/a; true" in words
    assert "'data.images=$(touch /x)'" in task["run"]


@pytest.mark.parametrize(
    ("override", "env", "problem"),
    [
        ("data.images=/home/me/imagenet", {}, "'/home/me/imagenet'"),
        ("data.images=$IMAGENET", {}, "IMAGENET in skypilot.env, got none"),
        ("data.images=$IMAGENET", {"IMAGENET": "/elsewhere"}, "'/elsewhere'"),
        ("data.images=$IMAGENET", {"IMAGENET": "/data/imagenet/train"}, None),
        ("codec.path=stabilityai/sd-vae-ft-ema", {}, "'stabilityai/sd-vae-ft-ema'"),
        ("codec.path=asset:sd-vae-ft-ema", {}, None),
    ],
)
def test_inputs_must_be_on_the_machine(
    override: str, env: dict[str, str], problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGENET", "/home/me/imagenet")
    site = {"data": {"/data/imagenet": "s3://imagenet"}, "env": env}
    if problem is None:
        assert "/home/me" not in str(rendered(tmp_path, [override], **site))
        return
    with pytest.raises(UserError, match=re.escape(problem)):
        rendered(tmp_path, [override], **site)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"accelerators": "H100"}, "accelerators: expected NAME:NUMBER.*'H100'"),
        ({"accelerators": "H100:3"}, "train.global_batch: .*3 processes.*got 32"),
        ({"disk": 1}, "skypilot: expected one of the keys .*, got 'disk' .did you mean 'disk_size'"),
        ({"images": {"tag": "a b"}}, "tag: .*'a b'"),
        ({"mount": "runs"}, "mount.*expected an absolute path.*'runs'"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        rendered(tmp_path, **changes)
