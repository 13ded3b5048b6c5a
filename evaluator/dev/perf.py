"""Measure time and memory of scoring against the public evaluator's numerics: `python -m evaluator.dev.perf`.

Both sides see the same random features of Inception's widths, each in a process of its own, one after the other: the
ratios are of one machine in one run. Extraction is measured with a graph.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.dev import plain_numerics
from evaluator.features import CHUNK_IMAGES
from evaluator.features.cache import FeatureCache, Rows
from evaluator.images.image_set import open_images
from evaluator.inception.graph import resolve
from evaluator.metrics.frechet import frechet_distance, gaussian
from evaluator.metrics.inception_score import score_of_pool
from evaluator.metrics.intervals import distances_without_each, frechet_interval, recall_interval
from evaluator.metrics.precision_recall import REACH, exact_precision_recall, precision_recall
from sra.common.files import check_place, replacing
from sra.common.npz import write_array
from sra.common.processes import usable_cores
from sra.common.program import program

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]
WIDTHS, CLASSES = (2048, 2023), 1008
"""Of Inception's pooled and spatial features; of its classifier."""
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
HIDDEN = 128
"""Dimensions that the random features share: real ones are far from independent, too."""
SCHEMA = 1
SIDES = ("reference", "samples")
STDOUT = Path("-")


class Stopwatch:
    """Seconds by stage, and the memory that a process has used beyond what it started with."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._start = _peak()

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run and record."""
        started = self.clock()
        result = work()
        self.seconds[stage] = self.clock() - started
        return result

    def gigabytes(self) -> float:
        """Peak so far."""
        return _peak() - self._start


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def make_features(folder: Path, count: int, width: int, shift: float, seed: int) -> None:
    """Random features (count, width) in files as the cache has them: rectified, with a decaying spectrum."""
    mixing = np.random.default_rng(0).normal(size=(HIDDEN, width)).astype(np.float32)
    mixing *= 0.3 * np.arange(1, HIDDEN + 1, dtype=np.float32)[:, None] ** -0.5
    generator = np.random.default_rng(seed)
    folder.mkdir()
    for start in range(0, count, CHUNK_IMAGES):
        rows = min(CHUNK_IMAGES, count - start)
        hidden = generator.standard_normal((rows, HIDDEN), np.float32)
        noise = generator.standard_normal((rows, width), np.float32)
        found = np.maximum(hidden @ mixing + 0.15 * noise + 0.3 + shift, 0)
        write_array(folder / f"{start:08d}.npy", found, durable=False)


def _rows(folder: Path, counts: Pair, widths: Pair) -> list[tuple[Rows, Rows]]:
    """Pooled and spatial features of references and samples."""
    pool, spatial = slice(0, widths[0]), slice(widths[0], sum(widths))
    files = [sorted((folder / side).iterdir()) for side in SIDES]
    return [(Rows(f, count, pool), Rows(f, count, spatial)) for f, count in zip(files, counts, strict=True)]


def _weights(width: int) -> Array:
    return 0.02 * np.random.default_rng(1).standard_normal((width, CLASSES), np.float32)


def measure_ours(folder: Path, counts: Pair, widths: Pair, watch: Stopwatch) -> dict[str, Any]:
    """Stages of the `adm` set, then the exact precision and recall and the intervals."""
    sides = _rows(folder, counts, widths)
    (pool_r, _), (pool, spatial) = sides
    reference, samples = watch.time("statistics", lambda: [[gaussian(rows) for rows in side] for side in sides])
    pairs = list(zip(samples, reference, strict=True))
    fids = watch.time("fid_sfid", lambda: [frechet_distance(*pair) for pair in pairs])
    inception = watch.time("inception_score", lambda: score_of_pool(pool, _weights(widths[0])))
    shares = watch.time("precision_recall", lambda: precision_recall(pool_r, pool, half=True))
    peak = watch.gigabytes()
    _, recall, coverage = watch.time("exact_precision_recall", lambda: exact_precision_recall(pool_r, pool))
    cases = list(zip(fids, (pool, spatial), samples, reference, strict=True))
    watch.time(
        "intervals",
        lambda: (
            [frechet_interval(value, distances_without_each(*sides)) for value, *sides in cases],
            recall_interval(recall, coverage),
        ),
    )
    values = [*fids, inception.value, *shares]
    return {
        "seconds": watch.seconds,
        "gigabytes": peak,
        "gigabytes_with_intervals": watch.gigabytes(),
        "values": values,
    }


def measure_oracle(folder: Path, counts: Pair, widths: Pair, watch: Stopwatch) -> dict[str, Any]:
    """The same stages as the public evaluator computes them."""
    sides = [[rows[0 : len(rows)] for rows in side] for side in _rows(folder, counts, widths)]
    gaussians = plain_numerics.statistics
    reference, samples = watch.time("statistics", lambda: [[gaussians(x) for x in side] for side in sides])
    fids = watch.time(
        "fid_sfid", lambda: [plain_numerics.frechet_distance(*pair) for pair in zip(samples, reference, strict=True)]
    )
    inception = watch.time("inception_score", lambda: plain_numerics.inception_score(sides[1][0], _weights(widths[0])))
    shares = watch.time("precision_recall", lambda: plain_numerics.precision_recall(sides[0][0], sides[1][0]))
    values = [*fids, inception, *shares]
    return {"seconds": watch.seconds, "gigabytes": watch.gigabytes(), "values": values}


def measure_extraction(graph: str, folder: Path, count: int, edge: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Images a second of the public evaluator's loop and of the cache, in turn, three times; the best of each."""
    from evaluator.tools.adm import InceptionGraph

    pixels = np.random.default_rng(0).integers(0, 256, (count, edge, edge, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", arr_0=pixels)
    network = InceptionGraph(resolve(graph))
    network(pixels[:64])
    best = dict.fromkeys(("oracle", "ours"), float("inf"))
    for trial in range(3):
        cache, watch = FeatureCache(folder / f"features-{trial}"), Stopwatch(clock)
        plain = watch.time("oracle", lambda: plain_numerics.features(network.run, folder / "images.npz"))
        images = open_images(folder / "images.npz")
        ours = watch.time("ours", partial(cache.features, images, network, network.widths))
        assert np.array_equal(plain[0], ours.pool[0:count])
        assert np.array_equal(plain[1], ours.spatial[0:count])
        best = {side: min(best[side], seconds) for side, seconds in watch.seconds.items()}
    return {"graph": graph, "images": count, "edge": edge, "images_per_second": {s: count / t for s, t in best.items()}}


PARTS: dict[str, Callable[[Path, Pair, Pair, Stopwatch], dict[str, Any]]] = {
    "oracle": measure_oracle,
    "ours": measure_ours,
}


def compare(counts: Pair, widths: Pair, sides: tuple[str, ...], clock: str) -> dict[str, Any]:
    """Both sides at some number of references and samples, each in its own process; with their ratios."""
    with tempfile.TemporaryDirectory(prefix="sra-bench-perf-") as temporary:
        folder = Path(temporary)
        for seed, (side, count) in enumerate(zip(SIDES, counts, strict=True)):
            make_features(folder / side, count, sum(widths), shift=0.02 * seed, seed=seed + 2)
        row: dict[str, Any] = {"reference": counts[0], "samples": counts[1]}
        for side in sides:
            print(f"{counts[0]} references, {counts[1]} samples: {side}", file=sys.stderr, flush=True)
            sizes = ["--sizes", f"{counts[0]}x{counts[1]}", "--widths", f"{widths[0]}x{widths[1]}"]
            row[side] = _child("--part", side, "--folder", str(folder), "--time", clock, *sizes)
    if len(sides) == len(PARTS):
        row["ratios"] = _ratios(row["oracle"]["seconds"], row["ours"]["seconds"])
        differences = np.subtract(row["ours"]["values"], row["oracle"]["values"])
        row["differences"] = dict(zip(("fid", "sfid", "is", "precision", "recall"), differences.tolist(), strict=True))
    return row


def _ratios(oracle_seconds: dict[str, float], seconds: dict[str, float]) -> dict[str, float]:
    ratios = {stage: taken / seconds[stage] for stage, taken in oracle_seconds.items()}
    total = sum(oracle_seconds.values()) / sum(seconds[stage] for stage in oracle_seconds)
    return {**ratios, "all_after_features": total}


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "evaluator.dev.perf", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(document: dict[str, Any]) -> str:
    """The document as a Markdown table."""
    lines = ["| references / samples | stage | plain, s | ours, s | ratio |", "|---|---|---|---|---|"]
    for row in document["rows"]:
        plain, ours, ratios = row.get("oracle", {}).get("seconds", {}), row["ours"]["seconds"], row.get("ratios", {})
        size = f"{row['reference']:,} / {row['samples']:,}"
        for stage, seconds in ours.items():
            cells = [f"{plain[stage]:.1f}" if stage in plain else "", f"{seconds:.1f}"]
            lines.append(f"| {size} | {stage} | {' | '.join(cells)} | {_times(ratios.get(stage))} |")
        lines.append(f"| {size} | all of the adm set | | | {_times(ratios.get('all_after_features'))} |")
        peaks = [f"{row[side]['gigabytes']:.2f} GB" if side in row else "" for side in PARTS]
        lines.append(f"| {size} | peak memory | {' | '.join(peaks)} | |")
    speed = document["extraction"]["images_per_second"]
    rates = [f"{speed[side]:.0f}/s" for side in PARTS]
    ratio = _times(speed["ours"] / speed["oracle"])
    return "\n".join(
        [*lines, f"| {document['extraction']['images']:,} images | features | {' | '.join(rates)} | {ratio} |"]
    )


def _times(ratio: float | None) -> str:
    return f"{ratio:.1f}x" if ratio else ""


def _pair(text: str) -> Pair:
    try:
        first, second = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: two numbers are needed, such as 10000x50000") from None
    if min(first, second) < REACH:
        raise argparse.ArgumentTypeError(f"{text!r}: both must be at least {REACH}")
    return first, second


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m evaluator.dev.perf", description=__doc__)
    parser.add_argument("--json", type=Path, nargs="?", const=STDOUT, help="the numbers, here or in a file")
    parser.add_argument("--time", choices=CLOCKS, default="wall", help="processor: on a machine that others use, too")
    parser.add_argument("--sizes", type=_pair, nargs="+", default=[(10_000, 10_000)], help="REFERENCESxSAMPLES")
    parser.add_argument("--widths", type=_pair, default=WIDTHS, help="POOLEDxSPATIAL, of the random features")
    parser.add_argument("--ours-only", action="store_true", help="leave the plain numerics out")
    parser.add_argument("--graph", default="embedded:digits", help="for extraction")
    parser.add_argument("--images", type=int, default=10_000, help="for extraction")
    parser.add_argument("--edge", type=int, default=32, help="pixels of those images")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print a table, write the numbers."""
    options = _parse()
    clock = CLOCKS[options.time]
    if options.part:
        print(json.dumps(PARTS[options.part](options.folder, options.sizes[0], options.widths, Stopwatch(clock))))
        return
    resolve(options.graph)
    if options.json and options.json != STDOUT:
        check_place(options.json, "--json")
    sides = ("ours",) if options.ours_only else tuple(PARTS)
    rows = [compare(counts, options.widths, sides, options.time) for counts in options.sizes]
    with tempfile.TemporaryDirectory(prefix="sra-bench-perf-") as temporary:
        extraction = measure_extraction(options.graph, Path(temporary), options.images, options.edge, clock)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "numpy": np.__version__,
    }
    document = {"schema": SCHEMA, "machine": machine, "time": options.time, "rows": rows, "extraction": extraction}
    text = json.dumps(document, indent=2)
    print(text if options.json == STDOUT else table(document))
    if options.json and options.json != STDOUT:
        with replacing(options.json) as temporary_file:
            temporary_file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    with program():
        main()
