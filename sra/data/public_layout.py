"""Latents in the layout of the authors' scripts, one file per image; conversion to and from packed latents.

`python -m sra.data.public_layout SRC DST --to packed|public`. Torch-free.

DIR/vae-sd/<00000>/img-mean-std-<00000000>.npy    (2C, h, w) float32: posterior mean, then standard deviation
DIR/vae-sd/dataset.json                           {"labels": [[relative path, class index], ...]}
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sra.common.errors import DataError
from sra.common.files import write_json
from sra.common.npz import write_array
from sra.common.validation import ArgumentParser
from sra.data.labels import check_names, read_labels
from sra.data.packed import FACTS, Array, PackedFolder, PackedWriter, is_packed
from sra.runtime import job

FOLDER, LISTING = "vae-sd", "dataset.json"
BATCH = 256
"""Files per batch."""
READERS = 16
"""Threads that read small files; they wait for the disk, not for a core."""


def find_public(path: Path) -> Path | None:
    """The folder with `dataset.json`: `vae-sd` below `path`, or `path` itself."""
    return next((place for place in (path / FOLDER, path) if (place / LISTING).is_file()), None)


def place_of(index: int) -> str:
    """Relative path of an image's latent."""
    return f"{index // 1000:05d}/img-mean-std-{index:08d}.npy"


class PublicLatents:
    """A folder in the public layout; images are in the order of their sorted names, as the authors read them."""

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
            raise DataError(f"{self.place / name}: expected a whole array, got: {reason}") from error
        if moments.ndim != 3 or moments.dtype.kind != "f":
            raise DataError(f"{self.place / name}: expected floats (2C, h, w), got {moments.dtype} {moments.shape}")
        return moments

    def batches(self, start: int) -> Iterator[Array]:
        """(n, 2C, h, w) from image `start` on; every file must have the shape of the first."""
        with ThreadPoolExecutor(READERS) as pool:
            for begin in range(start, len(self.names), BATCH):
                yield np.stack(list(pool.map(self._checked, self.names[begin : begin + BATCH])))

    def _checked(self, name: str) -> Array:
        moments = self.read(name)
        if moments.shape != self.shape:
            raise DataError(f"{self.place / name}: expected shape {self.shape} as the others, got {moments.shape}")
        return moments


def pack(source: PublicLatents, out: Path, dtype: str) -> None:
    """Convert the public layout to packed latents; an interrupted call continues.

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
    """Convert packed latents to the public layout, `dataset.json` last; an interrupted call continues.

    Args:
        source: mirrored latents are left out, as the layout has no place for them.
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
            write_array(folder / place_of(index), np.asarray(source.moments[index], dtype=np.float32), durable=False)
        progress.update()
    listed = [[place_of(i), int(label)] for i, label in enumerate(source.labels)]
    write_json(folder / LISTING, {"labels": listed})


def convert(source: Path, target: Path, to: str, dtype: str = "float32") -> str:
    """Convert latents to the other layout; an interrupted call continues.

    Args:
        source: packed, or in the public layout.
        target: a folder that is new, empty or left by an interrupted call.
        to: `packed` or `public`.
        dtype: storage of packed latents; the public layout is float32.

    Raises:
        DataError: a source that is neither or has that layout already, a target that holds something else, a fault in
            the data.
    """
    public = find_public(source)
    if not is_packed(source) and public is None:
        raise DataError(f"{source}: expected {FACTS} (packed) or {FOLDER}/{LISTING} (public layout), got neither")
    if to == ("packed" if is_packed(source) else "public"):
        raise DataError(f"{source}: expected another layout than {to!r}, got the same")
    if target.is_file():
        raise DataError(f"{target}: expected a folder, got a file")
    if to == "public":
        unpack(PackedFolder(source), target)
    elif not is_packed(target):
        assert public is not None
        pack(PublicLatents(public), target, dtype)
    return f"{target}: {to} layout"


def main(arguments: list[str]) -> None:
    """Convert latents between the packed format and the authors' layout (vae-sd/, one file an image)."""
    parser = ArgumentParser(prog="sra-bench latents convert", description=main.__doc__)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of latents in either layout")
    parser.add_argument("target", type=Path, metavar="DST", help="folder to write")
    parser.add_argument("--to", required=True, choices=("packed", "public"), help="layout of DST")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="storage of packed latents")
    options = parser.parse_args(arguments)
    print(convert(options.source, options.target, options.to, options.dtype), flush=True)


if __name__ == "__main__":
    job.run(main)
