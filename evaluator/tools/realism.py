"""Class histogram, and the nearest reference images of the least and most realistic samples.

Samples are ordered by realism (Kynkaanniemi et al. 2019, eq. 3): the largest ratio, over references, of the radius of
a reference's ball to the sample's distance from its centre. At least 1: inside a ball, as precision counts. Balls of
more than the median radius are left out, as in the paper. A best sample that equals its reference is memorised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluator.images.image_set import ImageSet
from evaluator.metrics.memorisation import Copies
from evaluator.metrics.precision_recall import NEIGHBOURS
from evaluator.metrics.rows import Array, Rows
from evaluator.tools.score_record import NearestReferences, NearestTraining, Views
from sra.common.errors import printable
from sra.common.files import replacing

CHOSEN = 16
SHOWN = 3
"""References beside each sample."""
TILE, GAP, CAPTION, TITLE = 96, 4, 20, 28
FONT = 15
COLUMNS = 2
BLOCK = 1000


@dataclass(frozen=True)
class Side:
    """Images and their pooled features (N, D), in one order."""

    images: ImageSet
    features: Rows


@dataclass(frozen=True)
class Neighbours:
    """Chosen samples, worst or best first."""

    samples: Array
    """(n,) places in the sample set."""
    scores: Array
    """(n,) realism, or another number by which they were chosen."""
    references: Array
    """(n, 3) places of the nearest references, nearest first."""
    distances: Array
    """(n, 3) to them."""

    def records(self) -> tuple[NearestReferences, ...]:
        """One record a sample."""
        columns = (self.samples, self.scores, self.references, self.distances)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return tuple(
            NearestReferences(sample=s, realism=_finite(r), references=n, distances=tuple(map(_finite, d)))
            for s, r, n, d in rows
        )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def write(reference: Side, samples: Side, weights: Array, folder: Path) -> Views:
    """Write `nearest.png` and `classes.json` into a folder; returns what the record says of them.

    Args:
        reference: real images.
        samples: those that are scored.
        weights: the classifier's (D, classes).
        folder: made where it is not there.

    Raises:
        EvaluatorError: the folder cannot be written.
    """
    scores = realism(reference.features, samples.features)
    order = np.argsort(scores, kind="stable")
    worst, best = (
        nearest(reference.features, samples.features, scores, chosen)
        for chosen in (order[:CHOSEN], order[::-1][:CHOSEN])
    )
    sides = {"samples": samples, "reference": reference}
    counts = {name: histogram(side.features, weights) for name, side in sides.items()}
    parts = {
        f"{name} {{}} samples (framed) and their nearest references, by realism": found
        for name, found in (("worst", worst), ("best", best))
    }
    _save(grid(reference.images, samples.images, parts, "realism"), folder / "nearest.png")
    with replacing(folder / "classes.json") as temporary:
        temporary.write_text(json.dumps(counts) + "\n")
    return Views(
        nearest=str(folder / "nearest.png"),
        classes=str(folder / "classes.json"),
        equal_to_a_reference=int(np.isinf(scores).sum()),
        classes_without_samples=sum(s == 0 < r for s, r in zip(counts["samples"], counts["reference"], strict=True)),
        largest_class_share=max(counts["samples"]) / len(samples.features),
        worst=worst.records(),
        best=best.records(),
    )


def write_copies(training: ImageSet, samples: ImageSet, copies: Copies, place: Path) -> str:
    """Write the picture of the samples nearest to training images; returns its path."""
    chosen = nearest_copies(copies)
    found = Neighbours(chosen, copies.ratios[chosen], copies.places[chosen], np.sqrt(copies.distances[chosen]))
    title = "{} samples (framed) nearest to training images, by ratio of distances"
    _save(grid(training, samples, {title: found}, "ratio"), place)
    return str(place)


def nearest_copies(copies: Copies) -> Array:
    """Places of the samples nearest to training images, by ratio and then by distance."""
    return np.lexsort((copies.distances[:, 0], copies.ratios))[:CHOSEN]


def copy_records(training: ImageSet, copies: Copies) -> tuple[NearestTraining, ...]:
    """One record of each of them."""
    return tuple(
        NearestTraining(
            sample=int(sample),
            training=int(copies.places[sample, 0]),
            name=printable(training.name(copies.places[sample, 0]) or "") or None,
            distance=float(np.sqrt(copies.distances[sample, 0])),
            ratio=_finite(float(copies.ratios[sample])),
        )
        for sample in nearest_copies(copies)
    )


def _save(picture: Image.Image, place: Path) -> None:
    with replacing(place) as temporary:
        picture.save(temporary, "PNG")


def histogram(features: Rows, weights: Array) -> list[int]:
    """Images by their likeliest class: one count a class."""
    counts = np.zeros(weights.shape[1], np.int64)
    for start in range(0, len(features), BLOCK):
        classes = (features[start : start + BLOCK] @ weights).argmax(axis=1)
        counts += np.bincount(classes, minlength=len(counts))
    return [int(count) for count in counts]


def realism(reference: Rows, samples: Rows) -> Array:
    """(N,) realism of samples (N, D) against references (M, D); infinite where a sample equals a reference."""
    last = min(NEIGHBOURS, len(reference) - 1)
    radii = np.concatenate([np.partition(b, last, axis=1)[:, last] for b in _squares(reference, reference)])
    kept = np.where(radii <= np.median(radii), radii, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [np.where(block == 0, np.inf, kept / block).max(axis=1) for block in _squares(samples, reference)]
    return np.asarray(np.sqrt(np.concatenate(ratios)))


def nearest(reference: Rows, samples: Rows, scores: Array, chosen: Array) -> Neighbours:
    """The references that lie nearest to chosen samples."""
    rows = np.concatenate([samples[place : place + 1] for place in chosen])
    squares = np.concatenate(list(_squares(rows, reference)))
    order = np.argsort(squares, axis=1, kind="stable")[:, :SHOWN]
    distances = np.sqrt(np.take_along_axis(squares, order, axis=1))
    return Neighbours(chosen, scores[chosen], order, distances)


def _squares(a: Rows, b: Rows) -> Iterator[Array]:
    """Squared distances (rows, len(b)), a block of rows at a time; exactly zero for equal rows."""
    columns = np.asarray(b[:], np.float64)
    norms = (columns * columns).sum(axis=1)
    for start in range(0, len(a), BLOCK):
        rows = np.asarray(a[start : start + BLOCK], np.float64)
        own = (rows * rows).sum(axis=1)[:, None]
        squares = own - 2 * (rows @ columns.T) + norms
        # Below the rounding of the sum the two are one image.
        yield np.where(squares <= 1e-12 * (own + norms), 0, squares)


def grid(reference: ImageSet, samples: ImageSet, parts: dict[str, Neighbours], score: str) -> Image.Image:
    """Each chosen sample (framed) beside its nearest references, in parts below each other.

    Args:
        reference: or training images.
        samples: those that are scored.
        parts: by title, with a place for the number of samples.
        score: name of the number by which they were chosen.
    """
    shown = pick(samples, {int(i) for found in parts.values() for i in found.samples})
    beside = pick(reference, {int(i) for found in parts.values() for i in found.references.ravel()})
    width = (SHOWN + 1) * (TILE + GAP) + 3 * GAP
    heights = [TITLE + -(-len(found.samples) // COLUMNS) * (CAPTION + TILE + GAP) for found in parts.values()]
    canvas = Image.new("RGB", (COLUMNS * width + GAP, sum(heights)), "white")
    for top, (title, found) in zip(accumulate(heights, initial=0), parts.items(), strict=False):
        text = title.format(len(found.samples))
        ImageDraw.Draw(canvas).text((GAP, top + GAP), text, fill="black", font=ImageFont.load_default(FONT))
        for row in range(len(found.samples)):
            corner = (GAP + row % COLUMNS * width, top + TITLE + row // COLUMNS * (CAPTION + TILE + GAP))
            _group(canvas, corner, found, row, shown, beside, score)
    return canvas


def _group(
    canvas: Image.Image,
    corner: tuple[int, int],
    found: Neighbours,
    row: int,
    shown: dict[int, Array],
    beside: dict[int, Array],
    score: str,
) -> None:
    """One sample and its references, with a line of text above."""
    x, y = corner
    sample, drawing = int(found.samples[row]), ImageDraw.Draw(canvas)
    text = f"#{sample}  {score} {found.scores[row]:.3f}  distance {found.distances[row, 0]:.3g}"
    drawing.text((x, y), text, fill="black", font=ImageFont.load_default(FONT))
    tiles = [shown[sample], *(beside[int(place)] for place in found.references[row])]
    for place, tile in enumerate(tiles):
        left = x + place * (TILE + GAP) + (GAP if place else 0)
        canvas.paste(_tile(tile), (left, y + CAPTION))
    drawing.rectangle((x - 2, y + CAPTION - 2, x + TILE + 1, y + CAPTION + TILE + 1), outline=(200, 30, 30), width=2)


def _tile(pixels: Array) -> Image.Image:
    """Whole multiples for small images, so that a pixel stays a pixel."""
    image = Image.fromarray(pixels)
    small = max(image.size) <= TILE
    scale = TILE // max(image.size) if small else TILE / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    resized = image.resize((width, height), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (TILE, TILE), (235, 235, 235))
    tile.paste(resized, ((TILE - width) // 2, (TILE - height) // 2))
    return tile


def pick(images: ImageSet, wanted: set[int]) -> dict[int, Array]:
    """Some images by their places, in one pass."""
    found: dict[int, Array] = {}
    start = 0
    for batch in images.batches():
        for place in wanted & set(range(start, start + len(batch))):
            found[place] = batch[place - start].copy()
        start += len(batch)
        if len(found) == len(wanted):
            break
    return found
