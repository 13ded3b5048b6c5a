"""Prepare images: `python -m sra.data.images` centre-crops a data set into numbered PNGs with a `dataset.json`.

The work is done in parts of 1,000 images, each with a record of its own: an interrupted job redoes at most the parts
that were under way. Large data sets are spread over all cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sra.common.errors import DataError
from sra.common.files import replacing, write_json
from sra.common.listing import order_note
from sra.common.pixels import kinds, to_rgb
from sra.common.processes import usable_cores
from sra.common.validation import sound_record
from sra.config import IMAGES_PER_FOLDER, ImagesJob
from sra.data.source import Reader, Source, open_source
from sra.runtime import job

POOL_FROM = 10_000
"""Images from which on starting processes costs less than it saves."""


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """ADM's crop: halve with BOX while the short side is at least 2 * size, BICUBIC to size, then crop the centre."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), resample=Image.Resampling.BOX)
    scale = size / min(image.size)
    resized = (round(image.width * scale), round(image.height * scale))
    image = image.resize(resized, resample=Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class Part:
    """Up to 1,000 images of one output folder."""

    number: int
    names: tuple[str, ...]
    reader: Reader
    out: Path

    @property
    def record(self) -> Path:
        """Progress record, written when the part is finished."""
        return self.out / "parts" / f"{self.number:05d}.json"

    @property
    def conversions(self) -> dict[str, int] | None:
        """What was unusual about its images, by kind; None: not finished."""
        return sound_record(dict[str, int], self.record)

    def place(self, index: int) -> str:
        """File of the part's image `index`, relative to the image folder."""
        return f"{self.number:05d}/img{self.number * IMAGES_PER_FOLDER + index:08d}.png"

    def make(self, made: Callable[[], None] = lambda: None) -> int:
        """Crop and write every image, calling `made` after each; returns how many there are.

        Raises:
            DataError: a file that is not a whole image.
            Stopped: on request.
        """
        converted: Counter[str] = Counter()
        for index, name in enumerate(self.names):
            job.check_stop()
            image = self.reader.image(name)
            cropped = center_crop(self._rgb(image, name), self.reader.resolution)
            converted.update(kinds(image, name))
            with replacing(self.out / "images" / self.place(index), durable=False) as temporary:
                # Photographs hardly shrink further with more effort, which would cost as much time as the crop.
                cropped.save(temporary, format="PNG", compress_level=1)
            made()
        write_json(self.record, dict(converted))
        return len(self.names)

    def _rgb(self, image: Image.Image, name: str) -> Image.Image:
        try:
            return to_rgb(image)
        except ValueError as error:
            where = f"data.images {self.reader.place}: {name}"
            raise DataError(f"{where}: expected a mode convertible to RGB, got {image.mode}") from error


def prepare(config: ImagesJob, out: Path) -> None:
    """Write every image as a PNG of the configured size, `dataset.json` last.

    Raises:
        DataError: a file that is not a whole image.
    """
    listing = out / "images" / "dataset.json"
    if listing.is_file():
        print("images are complete", flush=True)
        return
    source = open_source(config.data, config.resolution)
    for note in (source.note, order_note(list(source.class_names.values()))):
        if note:
            print(note, flush=True)
    parts = _parts(source, out)
    missing = [part for part in parts if part.conversions is None]
    count = sum(len(part.names) for part in missing)
    progress = job.Progress("images", len(source.names), " images", done=len(source.names) - count)
    _make_all(missing, progress, usable_cores() if count >= POOL_FROM else 1)
    converted: Counter[str] = Counter()
    for part in parts:
        converted.update(part.conversions)
    if converted:
        shown = "; ".join(f"{number} x {kind}" for kind, number in converted.most_common())
        print(f"images that are not plain 8-bit RGB (docs/data.md has the rules): {shown}", flush=True)
    facts = {"count": len(source.names), "classes": len(set(source.labels)), "class_names": source.class_names}
    write_json(out / "images.json", {"schema": 2, **facts, "converted": dict(converted)})
    places = [part.place(index) for part in parts for index in range(len(part.names))]
    write_json(listing, {"labels": [list(pair) for pair in zip(places, source.labels, strict=True)]})
    shutil.rmtree(out / "parts")


def _parts(source: Source, out: Path) -> list[Part]:
    starts = range(0, len(source.names), IMAGES_PER_FOLDER)
    return [Part(s // IMAGES_PER_FOLDER, *source.part(s, s + IMAGES_PER_FOLDER), out) for s in starts]


def _make_all(parts: list[Part], progress: job.Progress, workers: int) -> None:
    if workers == 1:
        for part in parts:
            part.make(progress.update)
        return
    # Spawned, not forked, because of this process's threads. Signals reach workers too, and they stop by themselves.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=job.catch_signals) as pool:
        futures = [pool.submit(part.make) for part in parts]
        try:
            for future in as_completed(futures):
                progress.update(future.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def main(arguments: list[str]) -> None:
    """`python -m sra.data.images --config stage.json --out DIR`."""
    parser = argparse.ArgumentParser(prog="python -m sra.data.images", description=main.__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    prepare(job.read_config(options.config, ImagesJob), options.out)


if __name__ == "__main__":
    job.run(main)
