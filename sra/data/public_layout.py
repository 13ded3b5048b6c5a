"""Latents as the authors' scripts keep them: one file an image. Torch-free.

DIR/vae-sd/<00000>/img-mean-std-<00000000>.npy    (2C, h, w) float32: posterior mean, then standard deviation
DIR/vae-sd/dataset.json                           {"labels": [[relative path, class index], ...]}
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sra.common.errors import DataError
from sra.common.files import replacing, write_json
from sra.data.labels import check_names, read_labels
from sra.data.packed import Array, PackedFolder, PackedWriter
from sra.runtime import job

FOLDER, LISTING = "vae-sd", "dataset.json"
BATCH = 256
"""Files that are read together."""
READERS = 16
"""Threads that read small files: they wait for the disk, not for a core."""


def find_public(path: Path) -> Path | None:
    """The folder with `dataset.json`: `vae-sd` below `path`, or `path` itself."""
    return next((place for place in (path / FOLDER, path) if (place / LISTING).is_file()), None)


def place_of(index: int) -> str:
    """Relative path of an image's latent."""
    return f"{index // 1000:05d}/img-mean-std-{index:08d}.npy"


class PublicLatents:
    """A folder in the public layout; images stand in the order of their sorted names, as the authors read them."""

    def __init__(self, place: Path) -> None:
        """List the folder and its labels.

        Raises:
            DataError: no labels, a file without a label, a label without its file.
        """
        self.place = place
        table = read_labels(place / LISTING)
        present = [p.relative_to(place).as_posix() for p in place.glob("*/*.npy")]
        check_names(table, present, str(place))
        self.names = sorted(present)
        self.labels = [table[name] for name in self.names]
        self.shape = self.read(self.names[0]).shape

    def read(self, name: str) -> Array:
        """(2C, h, w) of one file.

        Raises:
            DataError: truncated, or not an array of numbers.
        """
        try:
            moments: Array = np.load(self.place / name, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{self.place / name}: not a whole array: {reason}") from error
        if moments.ndim != 3 or moments.dtype.kind != "f":
            raise DataError(f"{self.place / name}: found {moments.dtype} {moments.shape}, (2C, h, w) is needed")
        return moments

    def batches(self, start: int) -> Iterator[Array]:
        """(n, 2C, h, w) from image `start` on; every file must have the shape of the first."""
        with ThreadPoolExecutor(READERS) as pool:
            for begin in range(start, len(self.names), BATCH):
                yield np.stack(list(pool.map(self._checked, self.names[begin : begin + BATCH])))

    def _checked(self, name: str) -> Array:
        moments = self.read(name)
        if moments.shape != self.shape:
            raise DataError(f"{self.place / name}: is {moments.shape} (C, H, W), the others are {self.shape}")
        return moments


def pack(source: PublicLatents, out: Path, dtype: str) -> None:
    """Public layout to packed; an interrupted call continues.

    Raises:
        DataError: a file that is truncated or of another shape.
    """
    with PackedWriter(out, (len(source.names), *source.shape), dtype) as writer:
        progress = job.Progress("pack", len(source.names), " latents", done=writer.done)
        for moments in source.batches(writer.done):
            job.check_stop()
            writer.write(moments)
            progress.update(len(moments))
        writer.finish(source.labels, {"packed_from": str(source.place)})


def unpack(source: PackedFolder, out: Path) -> None:
    """Packed to public layout, `dataset.json` last; an interrupted call continues.

    Args:
        source: its mirrored latents have no place in this layout.
        out: the folder that will hold `vae-sd`.
    """
    folder = out / FOLDER
    if (folder / LISTING).is_file():
        print("latents are complete", flush=True)
        return
    progress = job.Progress("unpack", source.count, " latents")
    for index in range(source.count):
        job.check_stop()
        if not (folder / place_of(index)).is_file():
            with replacing(folder / place_of(index), durable=False) as temporary, temporary.open("wb") as handle:
                np.save(handle, np.asarray(source.moments[index], dtype=np.float32))
        progress.update()
    listed = [[place_of(i), int(label)] for i, label in enumerate(source.labels)]
    write_json(folder / LISTING, {"labels": listed})
