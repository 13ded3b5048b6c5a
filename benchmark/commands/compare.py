"""`sra-bench compare`: whether a change of a model, a sampler or a setting changed the metrics."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmark.commands.evaluate import check_images, graph_file
from benchmark.report.tables import ABSENT, around
from benchmark.run.executor import interpreter_of
from benchmark.run.process import run_job
from evaluator.tools import TOOL_MODULES
from evaluator.tools.score_record import DifferenceRecord, MetricDifference
from sra.common.files import read_json
from sra.common.tables import text_table
from sra.common.validation import validated


def compare_samples(
    first: Path, second: Path, reference: Path, graph: str, cache: Path | None
) -> tuple[DifferenceRecord, str]:
    """Differences of every metric of `adm`, second minus first, and a table of them.

    Args:
        first: samples.
        second: other samples; of the same number of images, they are compared image by image.
        reference: real images.
        graph: the Inception graph.
        cache: folder of cached features; None: they are not kept.

    Raises:
        UserError: a file is not there, or `adm` refuses it.
    """
    check_images({"A": first, "B": second, "--reference": reference})
    module = TOOL_MODULES["adm"]
    with tempfile.TemporaryDirectory() as folder:
        place, scores = Path(folder) / "differences.json", [f"{folder}/{name}.json" for name in "ab"]
        command = [interpreter_of(module), "-m", module, "--samples", str(first), str(second), "--json", *scores]
        command += ["--reference", str(reference), "--graph", graph_file(graph), "--differences", str(place)]
        run_job("compare", [*command, *(["--cache", str(cache)] if cache else [])])
        found = validated(DifferenceRecord, read_json(place), str(place))
    header = ["metric", "A", "B", "B minus A", "95 % interval", "p"]
    counts = " and ".join(f"{samples.count:,}" for samples in found.samples)
    how = "image by image" if found.paired else "as independent sets"
    table = text_table(header, [_row(name, metric) for name, metric in found.metrics.items()])
    return found, f"{table}\n{counts} images, compared {how}"


def _row(name: str, metric: MetricDifference) -> list[str]:
    change = f"{metric.difference:+.4g}"
    shown = around(metric.difference, metric.interval) if metric.interval else (change, ABSENT)
    p = ABSENT if metric.p is None else f"{metric.p:.4f}"
    return [name, f"{metric.first:.5g}", f"{metric.second:.5g}", *shown, p]
