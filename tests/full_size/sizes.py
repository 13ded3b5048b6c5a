"""Real sizes with stand-ins for content: a million small images; and what a command uses."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmark.plan.cost import Estimate, load_table
from benchmark.plan.stages import Disk, Job, Stage

ROOT = Path(__file__).parents[2]
IMAGES = 1_281_167
"""Of ImageNet's training set, in 1,000 classes."""
CLASSES = (ROOT / "sra/data/imagenet_classes.txt").read_text().split()
RUNNERS_FILES = 3
"""The folder of a stage itself, `log.txt` and `done.json`: these tests start jobs without a runner."""
PICTURES = 300
"""Different files; a file system allows some ten thousand hard links to one."""


@dataclass(frozen=True)
class Used:
    """What a command used."""

    code: int
    seconds: float
    peak_bytes: int
    """Most memory of one of its processes, without pages of files that the kernel may drop."""
    processes: int
    """Most processes at a time."""
    text: str


def own_bytes(process: int) -> int:
    """Memory of a process that is not a file's."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem", "VmSwap")))
    return 0


def held(folder: Path) -> Disk:
    """Bytes, files and folders below a folder, which another process writes."""
    total, paths = 0, list(folder.rglob("*"))
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return Disk(total, len(paths))


class Most:
    """The most bytes and files that a folder held whenever it was looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, Disk(0, 0)

    def look(self, _: object = None) -> bool:
        """Look at it, as the `stop` of a command, which is not to stop."""
        self.seen = Disk(*map(max, self.seen[:2], held(self.folder)[:2]))
        return False

    def check(self, name: str, planned: Disk) -> None:
        """Compare with a plan, after a last look: bytes and files may differ by a tenth."""
        self.look()
        found = self.seen.bytes, self.seen.files + RUNNERS_FILES
        shown = [f"{size / 1e9:.2f} GB in {files:,} files" for size, files in (found, planned[:2])]
        say(name, f"{shown[0]} on disk at most, {shown[1]} planned")
        assert found == pytest.approx(planned[:2], rel=0.1)


def planned(job: Job, step: int | None = None, images: int | None = None) -> tuple[Disk, Estimate]:
    """Disk and cost that `sra-bench plan` counts for a stage in one process."""
    stage = Stage(name="stage", key="", directory=Path("/nowhere"), job=job, step=step, images=images)
    return stage.disk, stage.kind.cost(job, stage, load_table(), 1)


def run(*arguments: object, stop: Callable[[float], bool] = lambda _: False, name: str = "") -> Used:
    """Run `python ARGUMENTS`, kill it and its children as soon as `stop` (of the seconds so far) says so.

    Args:
        arguments: of Python.
        stop: called every twentieth of a second.
        name: printed with what was used.
    """
    with tempfile.TemporaryFile("w+") as output:
        began, peak, most = time.monotonic(), 0, 0
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
        )
        while process.poll() is None:
            members = [process.pid]
            with contextlib.suppress(psutil.Error):
                members += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
            peak, most = max(peak, *map(own_bytes, members)), max(most, len(members))
            if stop(time.monotonic() - began):
                for member in members:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(member, signal.SIGKILL)
            time.sleep(0.05)
        output.seek(0)
        used = Used(process.returncode, time.monotonic() - began, peak, most, output.read())
    say(name, f"{used.seconds:.1f} s, {peak / 1e6:.0f} MB in one of {most} processes, exit code {used.code}")
    return used


def say(name: str, what: str) -> None:
    """Print a measurement: `pytest -m full_size -s` shows it."""
    print(f"\n{name}: {what}", flush=True)


def pictures() -> Iterator[bytes]:
    """Small image files of the kinds that ImageNet has."""
    generator = np.random.default_rng(0)
    for number in range(PICTURES):
        size = (int(generator.integers(40, 80)), int(generator.integers(40, 80)))
        image = Image.fromarray(generator.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)).resize(size)
        file, kind = io.BytesIO(), {0: "CMYK", 1: "L", 2: "PNG", 3: "turned"}.get(number % 50, "plain")
        exif = Image.Exif()
        exif[0x0112] = 6 if kind == "turned" else 1
        image = image.convert(kind) if kind in ("CMYK", "L") else image
        image.save(file, "PNG" if kind == "PNG" else "JPEG", **({"exif": exif} if kind == "turned" else {}))
        yield file.getvalue()


def names() -> Iterator[str]:
    """Names of all images, as ImageNet's are: 1,281 or 1,282 in each class."""
    for label, folder in enumerate(CLASSES):
        for number in range(IMAGES // len(CLASSES) + (label < IMAGES % len(CLASSES))):
            yield f"{folder}/{folder}_{number}.JPEG"


def make_folder(root: Path) -> Path:
    """A folder of all images in class folders, hard links to a few hundred files."""
    sources = root / "pictures"
    sources.mkdir()
    for number, content in enumerate(pictures()):
        (sources / str(number)).write_bytes(content)
    folder = root / "imagenet"
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number, name in enumerate(names()):
        os.link(f"{sources}/{number % PICTURES}", f"{folder}/{name}")
    return folder
