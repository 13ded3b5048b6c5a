"""Identity of inputs: content and relative names, not places, times or what systems leave beside data."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.plan import inputs
from benchmark.plan.inputs import difference, examine, record_inputs
from sra.common.listing import Listing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(12):
        path = tmp_path / "set" / f"class{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([index]) * (1000 + index))
    return tmp_path / "set"


def linked(folder: Path, target: Path) -> Path:
    """A folder whose classes are links."""
    target.mkdir()
    for place in folder.iterdir():
        (target / place.name).symlink_to(place)
    return target


def with_junk(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    (target / ".DS_Store").touch()
    (target / "class0" / "._0.png").touch()
    (target / "README.txt").write_text("where it came from")
    (target / ".ipynb_checkpoints").mkdir()
    return target


def renamed(folder: Path, target: Path) -> Path:
    return folder.rename(target)


@pytest.mark.parametrize("limit", [inputs.WHOLE_BYTES, 100])
@pytest.mark.parametrize("same", [shutil.copytree, linked, with_junk, renamed])
def test_the_same_files_are_the_same_input(
    folder: Path, tmp_path: Path, same: Callable[[Path, Path], Path], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "WHOLE_BYTES", limit)
    before = examine(str(folder)).now
    place = same(folder, tmp_path / "other")
    for path in place.rglob("*"):
        os.utime(path, (1, 1))
    assert examine(str(place)).now == before


def test_other_content_is_another_input(folder: Path) -> None:
    before = examine(str(folder)).now
    (folder / "class0" / "0.png").write_bytes(b"x" * 1000)
    changed = examine(str(folder)).now
    (folder / "class0" / "0.png").rename(folder / "class1" / "0.png")
    assert len({str(found) for found in (before, changed, examine(str(folder)).now)}) == 3


@pytest.mark.parametrize("size", [10, 2**20])
def test_a_file_is_its_content(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "WHOLE_BYTES", 2**16)
    monkeypatch.setattr(inputs, "BLOCKS", 4)
    one, two = tmp_path / "a.pb", tmp_path / "elsewhere.pb"
    one.write_bytes(b"x" * size)
    shutil.copy(one, two)
    assert examine(str(one)).now == examine(str(two)).now
    two.write_bytes(b"x" * (size - 1) + b"y")
    assert examine(str(one)).now != examine(str(two)).now


def test_a_zip_is_what_its_members_hold(folder: Path, tmp_path: Path) -> None:
    def zipped(name: str, compression: int, names: list[Path]) -> list[str]:
        with zipfile.ZipFile(tmp_path / name, "w", compression) as archive:
            for path in names:
                archive.write(path, path.relative_to(folder))
        return examine(str(tmp_path / name)).now

    files = sorted(path for path in folder.rglob("*.png"))
    before = zipped("a.zip", zipfile.ZIP_STORED, files)
    assert zipped("b.zip", zipfile.ZIP_DEFLATED, files[::-1]) == before
    files[0].write_bytes(b"y" * 1000)
    assert zipped("c.zip", zipfile.ZIP_STORED, files) != before


@pytest.mark.parametrize("folder", ["archive", ".archive.tmp"])
@pytest.mark.parametrize("sums", [True, False])
def test_weights_in_torchs_format_are_their_tensors(tmp_path: Path, folder: str, sums: bool) -> None:
    """Torch names the folder after the file, perhaps a hidden one, and can leave the checksums out."""
    path, found = tmp_path / "w.pt", []
    for content in (b"1", b"2"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{folder}/data.pkl", b"names")
            archive.writestr(f"{folder}/data/0", content)
            for member in archive.infolist() if not sums else ():
                member.CRC = 0  # in the directory at the end, which is written next
        found.append(examine(str(path)).now)
    assert found[0] != found[1]


@pytest.mark.parametrize("name", ["dataset.json", "part/dataset.json", "labels.npy"])
def test_labels_of_a_large_folder_are_read_whole(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in (("WHOLE_BYTES", 100), ("BLOCK_BYTES", 10), ("BLOCKS", 4), ("SAMPLED_FILES", 2)):
        monkeypatch.setattr(inputs, constant, value)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"0" * 10_000)
    before = examine(str(folder)).now
    (folder / name).write_bytes(b"0" * 4_003 + b"1" + b"0" * 5_996)
    assert examine(str(folder)).now != before


def test_changes_are_named(folder: Path, tmp_path: Path) -> None:
    before = examine(str(folder))
    record_inputs(tmp_path / "run", [before])
    for index in range(5):
        (folder / "class2" / f"new{index}.png").write_bytes(b"new")
    (folder / "class0" / "3.png").unlink()
    (folder / "class1" / "1.png").write_bytes(b"z" * 1001)
    assert difference(tmp_path / "run", before.now, examine(str(folder))) == (
        "5 added (class2/new0.png, class2/new1.png, class2/new2.png, ...), "
        "1 removed (class0/3.png), 1 changed (class1/1.png)"
    )
    assert difference(tmp_path / "run", ["folder", "unknown"], before) is None
    next((tmp_path / "run" / "inputs").iterdir()).write_bytes(b"damaged")
    assert difference(tmp_path / "run", before.now, before) is None


def test_a_large_folder_is_listed_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRA_BENCH_INPUTS", str(tmp_path / "cache"))
    for name, value in (("CACHED_FILES", 10), ("WHOLE_BYTES", 100), ("SAMPLED_FILES", 2)):
        monkeypatch.setattr(inputs, name, value)
    listed, list_folder = [], inputs.list_folder
    monkeypatch.setattr(inputs, "list_folder", lambda path: listed.append(path) or list_folder(path))
    before = examine(str(folder)).now
    assert examine(str(folder)).now == before
    assert len(listed) == 1
    (folder / "class0" / "new.png").write_bytes(b"x")
    assert examine(str(folder)).now != before
    (folder / "class0" / "new.png").unlink()
    assert examine(str(folder)).now == before
    assert len(listed) == 3
    # Nowhere to write: it is listed each time.
    monkeypatch.setenv("SRA_BENCH_INPUTS", "/dev/null/cache")
    assert examine(str(folder)).now == before


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_the_files_of_a_large_input_are_not_gone_through_at_every_start(
    form: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRA_BENCH_INPUTS", str(tmp_path / "cache"))
    for name, value in (("CACHED_FILES", 10), ("WHOLE_BYTES", 100), ("SAMPLED_FILES", 12)):
        monkeypatch.setattr(inputs, name, value)
    place = Path(shutil.make_archive(str(folder), "zip", folder)) if form == "zip" else folder
    before = examine(str(place))
    monkeypatch.setattr(inputs, "_listed", lambda path: pytest.fail(f"{path} was listed again"))
    again = examine(str(place))
    monkeypatch.undo()
    assert again.now == before.now
    monkeypatch.setenv("SRA_BENCH_INPUTS", str(tmp_path / "cache"))
    if form == "folder":
        (folder / "class1" / "1.png").write_bytes(b"z" * 1001)
        assert examine(str(place)).now != before.now
    else:
        assert again.files == before.files


def test_what_comes_while_a_large_folder_is_listed_is_seen_next_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRA_BENCH_INPUTS", str(tmp_path / "cache"))
    monkeypatch.setattr(inputs, "CACHED_FILES", 10)
    list_folder = inputs.list_folder

    def slowly(path: Path) -> Listing:
        found = list_folder(path)
        (folder / "class0" / "late.png").write_bytes(b"x")
        return found

    monkeypatch.setattr(inputs, "list_folder", slowly)
    examine(str(folder))
    monkeypatch.setattr(inputs, "list_folder", list_folder)
    assert "class0/late.png" in examine(str(folder)).files
