"""`sra-bench bundle`: one archive of what proves a result, small enough to publish."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmark.plan.plan import Plan
from benchmark.plan.run_directory import RunDirectory, read_json
from benchmark.plan.saved_plan import PLAN, PROVENANCE, load_plan
from benchmark.plan.stages import ScoreJob
from benchmark.published.registry import REGISTRY
from benchmark.report import write_report
from benchmark.report.collect import load_report
from benchmark.run.runner import evaluator_job
from sra.common.errors import UserError
from sra.common.files import replacing, sha256_file

SCHEMA = 1
CONTENTS = "bundle.json"
STATISTICS, FEATURES = "statistics", "features"
RUN_FILES = ("manifest.resolved.yaml", PLAN, PROVENANCE)
STAGE_FILES = (
    *("stage.json", "done.json", "failed.json", "scores.json", "log.txt", "log.jsonl"),
    *("latents.json", "images.json", "labels.npy", "grid.png"),
)
LARGE = (".npz", ".npy", ".png")
"""Not worth compressing."""


def make_bundle(run_directory: Path, out: Path | None, *, samples: bool, features: bool = False) -> str:
    """Write the archive of a run; returns what to print.

    Args:
        run_directory: a finished or failed run.
        out: the archive; None: beside the run directory.
        samples: whether to put the samples in.
        features: whether to put pooled features in, of which IS, precision and recall can be made again.

    Raises:
        UserError: no run there, or one without its stages.
    """
    directory = RunDirectory(run_directory)
    saved = load_plan(directory)
    if saved is None:
        raise UserError(f"{run_directory}: no {PLAN}; a bundle is made of a run directory with its stages")
    place = out or run_directory.absolute().parent / f"{run_directory.absolute().name}.zip"
    if place.is_dir():
        raise UserError(f"--out {place}: found a folder, a file is needed")
    with tempfile.TemporaryDirectory() as folder:
        files = _files(directory, saved[0], samples=samples)
        files |= _report(run_directory, Path(folder))
        statistics, left_out = _statistics(directory, saved[0], Path(folder), features=features)
        digest = _write(place, files | statistics, saved[0].loaded.name, left_out)
        large = sum(file.stat().st_size for name, file in statistics.items() if name.startswith(FEATURES))
    size = f"{place.stat().st_size / 1e6:,.1f} MB" + (f", features {large / 1e6:,.1f} MB of them" if features else "")
    lines = [f"{place}: {len(files) + len(statistics)} files, {size}"]
    return "\n".join([*lines, *left_out, f"SHA-256 of its contents: {digest}"])


def _files(directory: RunDirectory, plan: Plan, *, samples: bool) -> dict[str, Path]:
    """Path in the archive to file, of what the run directory holds."""
    found = {f"run/{name}": directory.root / name for name in RUN_FILES}
    for stage in plan.stages:
        names = (*STAGE_FILES, "samples.npz") if samples else STAGE_FILES
        found |= {f"run/stages/{stage.directory.name}/{name}": stage.directory / name for name in names}
    return {name: path for name, path in found.items() if path.is_file()}


def _report(run_directory: Path, folder: Path) -> dict[str, Path]:
    """The report, made anew, so that it is that of the files beside it."""
    write_report(load_report(run_directory), folder / "report")
    return {f"run/report/{path.name}": path for path in sorted((folder / "report").iterdir())}


Images = tuple[str, str]
"""SHA-256 of pixels, and of the graph that looked at them."""


def _statistics(
    directory: RunDirectory, plan: Plan, folder: Path, *, features: bool
) -> tuple[dict[str, Path], list[str]]:
    """Feature statistics, and features, of every scored set and its reference, and what to say of absent ones."""
    wanted: dict[tuple[str, ...], dict[Images, Path]] = {}
    for stage in plan.stages:
        record = read_json(stage.directory / "scores.json")
        if record is not None and isinstance(stage.job, ScoreJob) and stage.tool == "adm" and not record.get("error"):
            widths = record.get("settings", {}).get("widths", {})
            sizes = [str(widths.get(name, 0)) for name in ("pool", "spatial")]
            source = (stage.job.graph, record["graph"]["sha256"], *sizes)
            wanted.setdefault(source, {}).update(_sets(stage.inputs.samples, stage.job.reference, record))
    kept: dict[str, Path] = {}
    for source, sets in wanted.items():
        there = {images: path for images, path in sets.items() if path.exists()}
        kept |= _keep(source, there, directory, folder, features=features)
    names = [("feature statistics", statistics_name), *([("features", features_name)] if features else [])]
    left_out = [
        f"without the {what} of {path}: its features are not in the cache"
        for what, name in names
        for sets in wanted.values()
        for images, path in sets.items()
        if name(*images) not in kept
    ]
    absent = [path for path, graph, *_ in wanted if features and classifier_name(graph) not in kept]
    left_out += [f"without the classifier of {path}: the cache does not have it; score once more" for path in absent]
    return kept, left_out


def _sets(samples: str | None, reference: str, record: dict[str, Any]) -> dict[Images, Path]:
    """The samples and the reference of one score, and where they lie."""
    graph = record["graph"]["sha256"]
    places = {"samples": str(samples), "reference": reference}
    return {(record[side]["sha256"], graph): Path(place) for side, place in places.items()}


def statistics_name(images: str, graph: str) -> str:
    """Where the statistics of pixels of this SHA-256, by a graph of that one, lie in the archive."""
    return f"{STATISTICS}/{images[:32]}-{graph[:32]}.npz"


def features_name(images: str, graph: str) -> str:
    """The same of their pooled features."""
    return f"{FEATURES}/{images[:32]}-{graph[:32]}.npz"


def classifier_name(graph: str) -> str:
    """The same of the weights of a graph's classifier."""
    return f"{FEATURES}/classifier-{graph[:32]}.npy"


def _keep(
    source: tuple[str, ...], sets: dict[Images, Path], directory: RunDirectory, folder: Path, *, features: bool
) -> dict[str, Path]:
    if not sets:
        return {}
    path, graph, *widths = source
    statistics, pools = ([name(*images) for images in sets] for name in (statistics_name, features_name))
    classifier = classifier_name(graph)
    arguments = ["export", "--graph", path, "--widths", *widths, "--cache", str(directory.root / "cache")]
    arguments += ["--images", *map(str, sets.values()), "--out", *(str(folder / name) for name in statistics)]
    if features:
        arguments += ["--features", *(str(folder / name) for name in pools)]
        arguments += ["--classifier", str(folder / classifier)]
    evaluator_job("feature_files", *arguments)
    return {name: folder / name for name in (*statistics, *pools, classifier) if (folder / name).is_file()}


def _write(place: Path, files: dict[str, Path], name: str, left_out: list[str]) -> str:
    """Write the archive atomically; returns the SHA-256 of its list of contents."""
    contents = {
        "schema": SCHEMA,
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "suite": metadata.version("sra-bench"),
        "registry_sha256": sha256_file(REGISTRY),
        "left_out": left_out,
        "files": {path: sha256_file(file) for path, file in sorted(files.items())},
    }
    text = json.dumps(contents, indent=2, ensure_ascii=False)
    with replacing(place) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(CONTENTS, text, zipfile.ZIP_DEFLATED)
        for path, file in sorted(files.items()):
            archive.write(file, path, zipfile.ZIP_STORED if file.suffix in LARGE else zipfile.ZIP_DEFLATED)
    return digest_of(contents)


def digest_of(contents: dict[str, Any]) -> str:
    """One hash for the whole archive: whoever publishes it beside the archive makes any change to it visible."""
    return hashlib.sha256(json.dumps(contents["files"], sort_keys=True).encode()).hexdigest()
