"""`sra-bench clean`: list or delete checkpoints and shards that nothing needs any more, largest first."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmark.plan.records import DoneRecord
from benchmark.plan.run_directory import RunDirectory, is_done
from sra.common.errors import UserError
from sra.common.tables import text_table
from sra.common.validation import sound_record

RECENT_CHECKPOINTS = 2
"""Newest checkpoints of an unfinished training that are not removed: the last may be damaged."""


def clean(run_directory: Path, *, delete: bool) -> str:
    """List what can be removed, largest first; returns what to print.

    Args:
        run_directory: of the run.
        delete: remove it, too.


    Raises:
        UserError: not a run directory, or one in use.
    """
    directory = RunDirectory(run_directory)
    if not directory.stages.is_dir():
        raise UserError(f"{run_directory}: expected a run directory, got no folder stages/ in it")
    with directory.locked():
        places = [place for stage in sorted(directory.stages.iterdir()) for place in removable(stage)]
        sizes = sorted(((_size(place), place) for place in places), key=lambda pair: -pair[0])
        if not sizes:
            return f"{run_directory}: nothing to remove"
        for _, place in sizes if delete else ():
            _remove(place)
    what = "removed" if delete else f"in all; remove: `sra-bench clean {run_directory} --yes`"
    rows = [(size, str(place.relative_to(run_directory))) for size, place in sizes]
    rows.append((sum(size for size, _ in sizes), what))
    return text_table((), [(f"{size / 1e6:,.1f} MB", text) for size, text in rows], left=(1,))


def removable(stage: Path) -> list[Path]:
    """Files and folders of a stage that nothing needs: no outputs, no logs, nothing to resume from."""
    if not stage.is_dir() or stage.is_symlink():
        return []
    done = sound_record(DoneRecord, stage / "done.json")
    finished = done is not None and is_done(stage, done.key)
    outputs = {stage / name for name in (done.outputs if done else {})}
    checkpoints = sorted(p for p in (stage / "checkpoints").glob("step-????????") if not p.is_symlink())
    shards = stage / "shards"
    found = checkpoints if finished else checkpoints[:-RECENT_CHECKPOINTS]
    if finished and shards.is_dir():
        found = [*found, shards]
    folders = [stage, stage / "checkpoints", stage / "weights", *([] if finished else [shards])]
    # Hidden names are what interrupted writes left.
    found = [*found, *(place for folder in folders for place in folder.glob(".*"))]
    return [place for place in found if not any(output.is_relative_to(place) for output in outputs)]


def _size(place: Path) -> int:
    files = [place] if place.is_file() or place.is_symlink() else [p for p in place.rglob("*") if p.is_file()]
    return sum(path.lstat().st_size for path in files)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
