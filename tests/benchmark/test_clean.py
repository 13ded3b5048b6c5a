"""Cleaning: what may go, what must stay, and nothing without being told."""

from pathlib import Path

import pytest

from benchmark.commands.clean import clean, removable
from benchmark.plan.run_directory import RunDirectory, write_json
from sra.common.errors import UserError


def put(path: Path, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def stage(root: Path, name: str, outputs: tuple[str, ...], *, finished: bool) -> Path:
    folder = root / "stages" / name
    for output in outputs:
        put(folder / output)
    put(folder / "log.txt")
    if finished:
        write_json(folder / "done.json", {"key": name, "outputs": dict.fromkeys(outputs, 10)})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    done = stage(tmp_path, "train-a", ("weights/step-3.safetensors",), finished=True)
    for step, size in ((1, 100), (2, 200), (3, 300)):
        put(done / "checkpoints" / f"step-{step:08d}" / "state.pt", size)
    going = stage(tmp_path, "train-b", (), finished=False)
    for step in (1, 2, 3):
        put(going / "checkpoints" / f"step-{step:08d}" / "state.pt")
    put(going / "checkpoints" / ".step-00000004.77" / "state.pt")
    sampled = stage(tmp_path, "sample-a", ("samples.npz",), finished=True)
    put(sampled / "shards" / "00000000.npz", 50)
    sampling = stage(tmp_path, "sample-b", (), finished=False)
    put(sampling / "shards" / "00000000.npz")
    put(sampling / "shards" / ".00000050.npz.abc")
    return tmp_path


def left(root: Path) -> set[str]:
    return {str(p.relative_to(root / "stages")) for p in (root / "stages").rglob("*") if p.is_file()}


def test_lists_the_largest_first_and_removes_nothing_unasked(run: Path) -> None:
    before = left(run)
    lines = clean(run, delete=False).splitlines()
    assert "step-00000003" in lines[0]
    assert "--yes" in lines[-1]
    assert left(run) == before


def test_removes_what_nothing_needs_and_keeps_the_rest(run: Path) -> None:
    clean(run, delete=True)
    assert left(run) == {
        "train-a/weights/step-3.safetensors",
        "train-a/log.txt",
        "train-a/done.json",
        "train-b/log.txt",
        "train-b/checkpoints/step-00000002/state.pt",
        "train-b/checkpoints/step-00000003/state.pt",
        "sample-a/samples.npz",
        "sample-a/log.txt",
        "sample-a/done.json",
        "sample-b/log.txt",
        "sample-b/shards/00000000.npz",
    }
    assert "nothing to remove" in clean(run, delete=True)


def test_a_stage_whose_outputs_are_damaged_counts_as_unfinished(run: Path) -> None:
    put(run / "stages" / "train-a" / "weights" / "step-3.safetensors", 3)
    assert [p.name for p in removable(run / "stages" / "train-a")] == ["step-00000001"]


def test_a_declared_output_stays_even_among_checkpoints(tmp_path: Path) -> None:
    folder = stage(tmp_path, "train-c", ("checkpoints/step-00000001/state.pt",), finished=True)
    assert removable(folder) == []


def test_links_are_not_followed(run: Path, tmp_path: Path) -> None:
    outside = put(tmp_path / "elsewhere" / "state.pt")
    (run / "stages" / "train-a" / "checkpoints" / "step-00000009").symlink_to(outside.parent)
    clean(run, delete=True)
    assert outside.is_file()


def test_refuses_another_folder_and_a_run_at_work(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a run directory"):
        clean(tmp_path / "nothing", delete=True)
    with RunDirectory(run).locked(), pytest.raises(UserError, match="in use by another run"):
        clean(run, delete=True)
