"""Sizes that follow from settings: parameters, evaluations, images, bytes. FLOPs are counted in `sra.model.flops`."""

from __future__ import annotations

import math
import re
from pathlib import Path

from benchmark.plan.inputs import KAGGLE, Place
from benchmark.plan.run_directory import read_json
from sra.common.archives import open_archive, open_member
from sra.common.listing import DATASET_JSON
from sra.config import SPLITS, CodecConfig, DataConfig, LatentsJob, ModelConfig, SampleConfig, TrainJob
from sra.data.labels import folder_labels
from sra.model.state import POSITIONS, network_shapes

DIGITS_IMAGES, DIGITS_CLASSES = 1797, 10
FLOAT32_BYTES = 4


def parameters(model: ModelConfig, codec: CodecConfig, *, head: bool = False) -> int:
    """Trained parameters (the fixed positions are none).

    Args:
        model: the network.
        codec: for the latent's channels.
        head: with SRA's training head.
    """
    shapes = network_shapes(model, codec, head=head)
    return sum(math.prod(shape) for name, shape in shapes.items() if name != POSITIONS)


def evaluations(sample: SampleConfig) -> int:
    """Network evaluations for one image; guidance doubles those of the steps that start inside its interval.

    An adaptive sampler is counted by its `steps`: SiT's paper states as many.
    """
    n, (low, high) = sample.steps, sample.guidance_interval
    if sample.sampler == "euler-maruyama":
        starts = [1 - (1 - sample.last_step) * k / max(n - 1, 1) for k in range(n)]
    else:
        starts = [1 - k / n for k in range(n)]
    each = [2 if sample.cfg > 1 and low <= t <= high else 1 for t in starts]
    # Heun corrects every step but the last, with the guidance of that step.
    return sum(each) + (sum(each[:-1]) if sample.sampler == "heun" else 0)


def image_count(data: DataConfig, place: Place) -> int | None:
    """Number of images, where it is known before they are read.

    Args:
        data: settings.
        place: of its images or latents.
    """
    counts = {"embedded:digits": DIGITS_IMAGES, **{split: images for split, (images, _) in SPLITS.items()}}
    record = read_json(Path(data.latents or "") / "latents.json") or {}
    known = counts.get(data.images or "") or counts.get(data.split) or record.get("count")
    return known or (len(place.images) if data.images is not None else 0) or None


def class_names(data: DataConfig, place: Place) -> list[str] | None:
    """Class folders in the order of their labels; None where labels do not come from folders, or are not there.

    Args:
        data: settings.
        place: of its images.

    Raises:
        DataError: the folder that is meant is another.
    """
    if data.labels == "dataset.json" or (data.labels == "auto" and place.folder + DATASET_JSON in place.files):
        return None
    return list(folder_labels(place.images, (), Path(place.path))) or None


def class_counts(data: DataConfig, place: Place) -> tuple[int, int] | None:
    """How many classes have images, and the highest label + 1, where they are known before the images are read.

    Args:
        data: settings.
        place: of its images or latents.

    Raises:
        DataError: as in `class_names`; a `dataset.json` that cannot be read.
    """
    if place.path == "embedded:digits":
        return DIGITS_CLASSES, DIGITS_CLASSES
    if data.split in SPLITS:
        return SPLITS[data.split][1], SPLITS[data.split][1]
    if data.images is not None and (names := class_names(data, place)):
        return len(names), len(names)
    listing = next((n for n in (DATASET_JSON, KAGGLE + DATASET_JSON, "vae-sd/dataset.json") if n in place.files), None)
    if listing is not None:
        # Not parsed, which would take seconds for a million images.
        labels = {int(label) for label in re.findall(rb'"\s*,\s*(\d+)\s*\]', _content(place, listing))}
        return (len(labels), max(labels) + 1) if labels else None
    classes = (read_json(Path(place.path) / "latents.json") or {}).get("classes")
    return (classes, classes) if isinstance(classes, int) else None


def _content(place: Place, name: str) -> bytes:
    """Bytes of a file of an input."""
    path = Path(place.path)
    if path.is_dir():
        return (path / name).read_bytes()
    with open_archive(path) as archive, open_member(archive, name, f"{path}: {name}") as member:
        return member.read()


def reference_images(place: Place, resolution: int) -> int | None:
    """Number of images of a reference: of the array of an `.npz`, or of image files; None where it is not known.

    Args:
        place: of the reference.
        resolution: of its images, in pixels.
    """
    array = place.files.get("arr_0.npy")
    return array[0] // image_bytes(resolution) if array else len(place.images) or None


def shards(sample: SampleConfig) -> int:
    """Number of files that samples are stored in at first; each process of the public code has its own."""
    if sample.seeding != "public-code":
        return -(-sample.images // sample.shard)
    processes = sample.ranks or 1
    step = processes * sample.batch
    return -(-sample.images // (step * max(1, sample.shard // step))) * processes


def image_bytes(resolution: int) -> int:
    """One RGB image of 8 bits."""
    return resolution**2 * 3


def latent_bytes(job: LatentsJob, count: int) -> int:
    """All latents: means and deviations of `count` images, and of their mirror images where those are needed."""
    numbers = math.prod(job.codec.moments_shape(job.resolution)) * (2 if job.flipped else 1)
    return count * numbers * (FLOAT32_BYTES // 2 if job.data.latent_dtype == "float16" else FLOAT32_BYTES)


def weights_bytes(job: TrainJob) -> int:
    """Exported weights of a trained network."""
    return parameters(job.model, job.codec, head=job.align is not None) * FLOAT32_BYTES


def checkpoint_bytes(job: TrainJob) -> int:
    """One resumable checkpoint: weights, their average, and AdamW's two moments."""
    return 4 * weights_bytes(job)
