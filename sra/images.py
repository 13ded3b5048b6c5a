"""Images: `python -m sra.images` centre-crops a data set into numbered PNGs with a `dataset.json`."""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from sra import embedded, job
from sra.config import DataConfig, ImagesJob
from sra.errors import DataError
from sra.files import replacing, write_json

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
IMAGENET_TRAIN = (1_281_167, 1_000)
"""Images and classes of ImageNet-1K's training split."""


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """ADM's crop: halve with BOX while the short side is at least 2 * size, BICUBIC to size, then crop the centre."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), resample=Image.Resampling.BOX)
    scale = size / min(image.size)
    wanted = (round(image.width * scale), round(image.height * scale))
    image = image.resize(wanted, resample=Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class Source:
    """Images of a data set in a fixed order."""

    names: list[str]
    labels: list[int]
    read: Callable[[str], Image.Image]
    """Name to image; raises UnidentifiedImageError or OSError."""


def open_source(data: DataConfig, resolution: int) -> Source:
    """The source that `data.images` names.

    Raises:
        DataError: missing, without labels, without images, or not the split it claims to be.
    """
    assert data.images is not None
    if data.images == "embedded:digits":
        pixels, classes = embedded.digits(resolution)
        names = [str(i) for i in range(len(pixels))]
        return Source(names, [int(c) for c in classes], lambda name: Image.fromarray(pixels[int(name)]))
    path = Path(data.images)
    if not path.exists():
        raise DataError(f"data.images {path}: not found; a folder or a zip of images is needed")
    listed, read = _zip(path) if path.is_file() else _folder(path)
    names = sorted(name for name in listed if PurePosixPath(name).suffix.lower() in SUFFIXES)
    if not names:
        raise DataError(f"data.images {path}: found no images ({', '.join(sorted(SUFFIXES))})")
    labelled = _labels(data, path, names, "dataset.json" in listed, read)
    source = Source([n for n, _ in labelled], [c for _, c in labelled], lambda n: Image.open(io.BytesIO(read(n))))
    found = (len(source.names), len(set(source.labels)))
    if data.split == "imagenet-train" and found != IMAGENET_TRAIN:
        raise DataError(f"data.images {path}: {found} images and classes, imagenet-train has {IMAGENET_TRAIN}")
    return source


def _folder(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
    return names, lambda name: (path / name).read_bytes()


def _zip(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"data.images {path}: neither a folder nor a zip file") from error
    return [n for n in archive.namelist() if not n.endswith("/")], archive.read


def _labels(
    data: DataConfig, path: Path, names: list[str], has_json: bool, read: Callable[[str], bytes]
) -> list[tuple[str, int]]:
    """Labels from `dataset.json`, or from the sorted names of the top folders."""
    if data.labels == "dataset.json" or (data.labels == "auto" and has_json):
        if not has_json:
            raise DataError(f"data.images {path}: data.labels is dataset.json, and there is none")
        listed = json.loads(read("dataset.json"))["labels"]
        table = {str(name): int(label) for name, label in listed}
        missing = [name for name in names if name not in table]
        if missing:
            raise DataError(f"data.images {path}: dataset.json has no label for {missing[0]} ({len(missing)} in all)")
        return [(name, table[name]) for name in names]
    loose = [name for name in names if "/" not in name]
    if loose:
        raise DataError(f"data.images {path}: {loose[0]} lies in no class folder, and there is no dataset.json")
    classes = {c: i for i, c in enumerate(sorted({name.split("/")[0] for name in names}))}
    return [(name, classes[name.split("/")[0]]) for name in names]


def prepare(config: ImagesJob, out: Path) -> None:
    """Write every image as a PNG of the wanted size; `dataset.json` comes last.

    Raises:
        DataError: an image that is not an image, named.
    """
    folder = out / "images"
    if (folder / "dataset.json").is_file():
        print("images are complete", flush=True)
        return
    source = open_source(config.data, config.resolution)
    progress = job.Progress("images", len(source.names), " images")
    converted: Counter[str] = Counter()
    entries = []
    for index, (name, label) in enumerate(zip(source.names, source.labels, strict=True)):
        job.check_stop()
        place = f"{index // 1000:05d}/img{index:08d}.png"
        entries.append([place, label])
        image = _read(source, name, str(config.data.images))
        if image.mode != "RGB":
            converted[image.mode] += 1
        if image.format and PurePosixPath(name).suffix.lower().lstrip(".") not in _suffixes(image.format):
            converted[f"named otherwise, is {image.format}"] += 1
        if not (folder / place).is_file():
            cropped = center_crop(image.convert("RGB"), config.resolution)
            with replacing(folder / place, durable=False) as temporary:
                cropped.save(temporary, format="PNG")
        progress.update()
    write_json(
        out / "images.json",
        {"count": len(entries), "classes": len(set(source.labels)), "converted": dict(converted)},
    )
    write_json(folder / "dataset.json", {"labels": entries})


def _suffixes(format: str) -> tuple[str, ...]:
    return ("jpg", "jpeg") if format == "JPEG" else (format.lower(),)


def _read(source: Source, name: str, where: str) -> Image.Image:
    try:
        image = source.read(name)
        image.load()
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"data.images {where}: {name}: not a whole image ({type(error).__name__})") from error
    return image


def main(arguments: list[str]) -> None:
    """`python -m sra.images --config stage.json --out DIR`."""
    parser = argparse.ArgumentParser(prog="python -m sra.images", description=main.__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    prepare(job.read_config(options.config, ImagesJob), options.out)


if __name__ == "__main__":
    job.run(main)
