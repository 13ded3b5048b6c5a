"""The command line as its user sees it: exit codes, one line for bad input, nothing half-written."""

import contextlib
import errno
import io
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import typer

from benchmark.cli.main import app, main

ROOT = Path(__file__).parents[2]
SMOKE = "manifests/smoke.yaml"
GRAPH = "tests/golden/adm/classify_image_graph_def.pb"


def call(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command line, in this process."""
    output, errors = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors)
    with contextlib.chdir(cwd), streams[0], streams[1], pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["sra-bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
    code = int(ended.value.code or 0)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def refused(*arguments: str) -> str:
    done = call(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("words", "found"),
    [("pub", ["publish", "published"]), ("run manifests/sit_b_256_4", ["manifests/sit_b_256_400k.yaml"])],
    ids=["command", "manifest"],
)
def test_a_shell_completes_commands_and_manifests(tmp_path: Path, words: str, found: list[str]) -> None:
    environment = {"_SRA_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": f"sra-bench {words}"}
    environment |= {"COMP_CWORD": str(len(words.split())), "PATH": os.environ["PATH"]}
    command = [Path(sys.executable).with_name("sra-bench")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == found


def test_the_page_lists_the_commands() -> None:
    table = (ROOT / "docs" / "commands.md").read_text().partition("Exit codes")[0]
    described = " ".join(re.findall(r"^\| (`.*?`) \| ", table, flags=re.M))
    listed = {name.split()[0] for name in re.findall(r"`([^`]+)`", described)}
    assert listed == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_missing_manifest() -> None:
    assert "did you mean 'smoke.yaml'" in refused("run", "manifests/smoked.yaml")


def test_unknown_key() -> None:
    assert "did you mean 'lr'" in refused("run", SMOKE, "--set", "train.lrr=1")


def test_missing_dataset_is_refused_by_run_and_marked_by_plan(tmp_path: Path) -> None:
    arguments = [SMOKE, "--out", str(tmp_path / "out"), "--set", "data.images=/no/such/images"]
    assert "/no/such/images" in refused("run", *arguments)
    assert not any((tmp_path / "out" / "stages").iterdir())
    done = call("plan", *arguments, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["absent"] == ["/no/such/images"]


def test_a_codec_that_is_none_is_refused_before_anything_runs(tmp_path: Path) -> None:
    codec, out = tmp_path / "vae", tmp_path / "out"
    assert "codec.factor: expected 4 of embedded:digits, got 8" in refused("plan", SMOKE, "--set", "codec.factor=8")
    for make in (codec.mkdir, (codec / "config.json").touch):
        make()
        line = refused("run", SMOKE, "--out", str(out), "--set", f"codec.path={codec}")
        assert f"{SMOKE}: codec.path {codec}: expected " in line
        assert "diffusion_pytorch_model.safetensors" in line
        assert not out.exists()
    assert "a file" in refused("plan", SMOKE, "--set", f"codec.path={codec / 'config.json'}")
    # What is not there may still come, and a smoke run brings its own.
    assert str(tmp_path / "none") in call("plan", SMOKE, "--set", f"codec.path={tmp_path / 'none'}").stdout
    assert call("plan", SMOKE, "--smoke", "--set", f"codec.path={codec}").returncode == 0


def test_an_asset_that_was_fetched_in_part_is_refused_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path))
    (tmp_path / "sd-vae-ft-ema").mkdir()
    line = refused("plan", "manifests/sit_xl_256.yaml")
    assert "config.json" in line
    assert "(`sra-bench fetch sd-vae-ft-ema`)" in line


def test_out_that_is_a_file(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("keep me")
    assert str(place) in refused("run", SMOKE, "--out", str(place))
    assert place.read_text() == "keep me"


def test_out_in_use_by_another_run(tmp_path: Path) -> None:
    from benchmark.plan.run_directory import RunDirectory

    directory = RunDirectory(tmp_path / "out")
    directory.create()
    with directory.locked():
        assert f"process {os.getpid()}" in refused("run", SMOKE, "--out", str(tmp_path / "out"))


def test_dry_run_and_plan_write_nothing(tmp_path: Path) -> None:
    for arguments in (["run", SMOKE, "--dry-run"], ["plan", SMOKE]):
        done = call(*arguments, "--out", str(tmp_path / "out"))
        assert done.returncode == 0
        assert "train-sra" in done.stdout
    assert not (tmp_path / "out").exists()


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.manifest.schema import load
    from benchmark.plan.plan import make_plan
    from benchmark.plan.run_directory import RunDirectory
    from benchmark.run import runner

    directory = RunDirectory(tmp_path)
    plan = make_plan(load(ROOT / SMOKE), directory)
    usage = type("usage", (), {"free": 10_000_000})
    monkeypatch.setattr(runner.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(runner.StageError, match=r"--out .*GB free"):
        runner.run_plan(plan, runner.Session(directory=directory))


def test_report_of_a_folder_without_one(tmp_path: Path) -> None:
    assert "report/report.json" in refused("report", str(tmp_path))


def test_check_and_friends_refuse_a_folder_without_a_run(tmp_path: Path) -> None:
    for command in (["check"], ["diff", str(tmp_path)], ["bundle"]):
        refused(*command, str(tmp_path))
    assert "none.zip: not found" in refused("verify", str(tmp_path / "none.zip"))


@pytest.mark.parametrize(
    ("item", "key"),
    [
        ("train.global_batch=2000", "train.global_batch"),
        ("codec.path=embedded:digit", "codec.path"),
        ("data.images=embedded:mnist", "data.images"),
        ("model.classes=17", "model.classes"),
        ("model.classes=3", "model.classes"),
    ],
)
def test_plan_refuses_what_a_stage_would(item: str, key: str, tmp_path: Path) -> None:
    assert f"{key}: expected" in refused("plan", SMOKE, "--out", str(tmp_path / "out"), "--set", item)


def test_fp16_without_a_gpu_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = tmp_path / "out"
    line = refused("run", SMOKE, "--out", str(out), "--set", "train.precision=fp16")
    assert "train.precision: expected fp32, tf32 or bf16 on a machine without a GPU" in line
    assert not list((out / "stages").iterdir())


@pytest.mark.parametrize(
    ("key", "place", "allowed"),
    [
        ("graph", "embedded:digitz", "embedded:digits"),
        ("graph", "README.md", ".pb or .safetensors"),
        ("reference", "README.md", ".npz, .zip"),
    ],
)
def test_what_scoring_reads_is_refused_before_anything_runs(key: str, place: str, allowed: str, tmp_path: Path) -> None:
    line = refused("run", SMOKE, "--out", str(tmp_path / "out"), "--set", f"score.{key}={place}")
    assert f"score.{key}: expected" in line
    assert allowed in line
    assert place in line
    assert not (tmp_path / "out").exists()


def test_what_scoring_reads_may_have_any_name(tmp_path: Path) -> None:
    for name, source in (("graph", GRAPH), ("reference", "tests/golden/adm/reference.npz")):
        (tmp_path / name).write_bytes((ROOT / source).read_bytes())
    named = [word for key in ("graph", "reference") for word in ("--set", f"score.{key}={tmp_path / key}")]
    done = call("plan", SMOKE, *named)
    assert done.returncode == 0, done.stderr


def test_scores_without_a_place_or_without_a_tool_that_was_asked_for(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", arr_0=images)
    both = ["--samples", str(tmp_path / "x.npz"), "--reference", str(tmp_path / "x.npz"), "--graph", GRAPH]
    assert "expected a file, got a folder" in refused("evaluate", *both, "--json", str(tmp_path))
    done = call("evaluate", *both, "--tool", "clean-fid", "--assets", str(tmp_path), "--json", str(tmp_path / "s.json"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == "error: --tool: could not run: clean_fid"
    assert json.loads((tmp_path / "s.json").read_text())["errors"].keys() == {"clean_fid"}


def test_published_lists_and_refuses() -> None:
    done = call("published", "--model", "SiT-B/2")
    assert done.returncode == 0
    assert "SRA paper, Table 1" in done.stdout
    assert json.loads(call("published", "--json").stdout)["rows"]
    assert "did you mean" in refused("published", "--model", "SiT-B2")
    assert "--json, --markdown: expected one" in refused("published", "--json", "--markdown")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("published=sit-b2-sra-256-400", "variants.sra.published: expected .*did you mean 'sit-b2-sra-256-400k'"),
        ("checkpoint=asset:sit-xl2-256-7n", "variants.sra.checkpoint: asset: expected .*did you mean 'sit-xl2-256-7m'"),
    ],
)
def test_unknown_rows_and_assets_are_refused_before_anything_runs(setting: str, problem: str, tmp_path: Path) -> None:
    arguments = ["run", SMOKE, "--out", str(tmp_path / "out"), "--set", f"variants.sra.{setting}"]
    assert re.search(problem, refused(*arguments))
    assert not (tmp_path / "out").exists()


def test_evaluate_without_samples(tmp_path: Path) -> None:
    arguments = ["--samples", str(tmp_path / "no.npz"), "--reference", str(tmp_path), "--graph", GRAPH]
    assert "--samples" in refused("evaluate", *arguments)


def test_schema_is_json() -> None:
    done = call("schema")
    assert done.returncode == 0
    assert json.loads(done.stdout)["title"] == "Manifest"


def test_smoke_has_a_folder_of_its_own(tmp_path: Path) -> None:
    done = call("plan", str(ROOT / SMOKE), "--smoke", "--json", cwd=tmp_path)
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["name"] == "smoke-smoke"
    assert all(str(tmp_path / "runs" / "smoke-smoke") in stage["directory"] for stage in document["stages"])


def test_clean_refuses_what_is_no_run(tmp_path: Path) -> None:
    assert "expected a run directory" in refused("clean", str(tmp_path), "--yes")


def test_evaluate_without_a_graph_says_how_to_get_it(tmp_path: Path) -> None:
    line = refused("evaluate", "--samples", str(tmp_path), "--reference", str(tmp_path))
    assert "--graph asset:inception-graph: expected" in line
    assert "sra-bench fetch inception-graph" in line


def test_a_read_only_file_system_is_one_line() -> None:
    from sra.common.errors import system_trouble

    line = system_trouble(OSError(errno.EROFS, "Read-only file system", "/ro/b.zip"))
    assert line is not None
    assert line.startswith("/ro/b.zip: the file system is read-only")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run"], "error: sra-bench run: Missing argument 'MANIFEST'."),
        (["run", SMOKE, "--ot", "x"], "error: sra-bench run: No such option: --ot (Possible options: --out, --set)"),
        (["rn"], "error: sra-bench: No such command 'rn'. Did you mean 'run'?"),
        (["report", "x", "--format", "pdf"], "'pdf' is not one of 'md', 'html', 'json', 'latex'."),
        (["run", SMOKE, "--out", ""], "error: sra-bench run: Invalid value for '--out': expected a folder, got ''"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], line: str) -> None:
    assert refused(*arguments).endswith(line)


def test_no_command_shows_the_help() -> None:
    done = call("images")
    assert (done.returncode, done.stderr) == (2, "")
    assert "build" in done.stdout


def test_the_version_is_that_of_the_package() -> None:
    done = call("--version")
    assert (done.returncode, done.stdout.strip()) == (0, metadata.version("sra-bench"))
