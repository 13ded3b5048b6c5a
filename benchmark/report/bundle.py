"""`sra-bench bundle`: pack the evidence for a result into one archive, small enough to publish."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from pydantic import Field

from benchmark.plan.plan import Plan
from benchmark.plan.run_directory import PLAN, RunDirectory, mapped
from benchmark.plan.saved_plan import PROVENANCE, require_plan
from benchmark.plan.stages import SAMPLE, ScoreJob, Stage
from benchmark.published.registry import REGISTRY
from benchmark.published.verdict import TOOL
from benchmark.report.collect import collect_report
from benchmark.report.costs import read_scores
from benchmark.report.model import Record, Report
from benchmark.report.private import TEXTS, Private
from benchmark.report.render import write_report
from benchmark.run.process import evaluator_job
from evaluator.tools.score_record import AdmSettings
from sra.common.files import check_place, replacing, sha256_file
from sra.common.validation import json_text

SCHEMA = 1
CONTENTS = "bundle.json"
STATISTICS, FEATURES = "statistics", "features"
SAMPLES = "samples.npz"
INCOMPLETE = 3
"""Exit code: something that belongs inside is not there."""
RUN_FILES = ("manifest.resolved.yaml", PLAN, PROVENANCE)
STAGE_FILES = (
    *("stage.json", "done.json", "failed.json", "scores.json", "log.txt", "log.jsonl"),
    *("latents.json", "images.json", "labels.npy", "grid.png", "seconds.json"),
    *("speed.json", "samples.json"),
)
STORED_UNCOMPRESSED = (".npz", ".npy", ".png")


class Contents(Record):
    """`bundle.json`: the list of contents."""

    schema_: int = Field(default=SCHEMA, validation_alias="schema", serialization_alias="schema")
    name: str
    created: str
    suite: str
    """Version of sra-bench."""
    registry_sha256: str
    """Of the published rows that the verdicts use."""
    left_out: list[str]
    """What could not be put in, and why."""
    files: dict[str, str]
    """SHA-256 by path."""

    @property
    def digest(self) -> str:
        """One hash of all files: published next to the archive, it reveals any change."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


def make_bundle(run_directory: Path, out: Path | None, *, samples: bool, features: bool = False) -> tuple[str, int]:
    """Write the archive of a run; returns what to print, and the exit code: 3 if something is left out.

    Args:
        run_directory: a finished or failed run.
        out: the archive; None: next to the run directory.
        samples: include the samples.
        features: include pooled features, from which IS, precision and recall can be computed again.

    Raises:
        UserError: no run there, or one without its stages.
    """
    directory = RunDirectory(run_directory.absolute())
    plan, command = require_plan(directory)
    place = out or run_directory.absolute().parent / f"{run_directory.absolute().name}.zip"
    check_place(place, "--out")
    with tempfile.TemporaryDirectory() as folder:
        private = Private(directory, f"runs/{plan.loaded.name}")
        files = _run_files(directory, plan, samples=samples)
        for name, path in files.items():
            if path.suffix in TEXTS:
                files[name] = Path(folder) / name
                files[name].parent.mkdir(parents=True, exist_ok=True)
                files[name].write_text(private.file(path), encoding="utf-8", errors="backslashreplace")
        # The report is made again, so that it matches the files in the archive.
        write_report(_hidden(collect_report(plan, directory, command), private), Path(folder) / "report")
        files |= {f"run/report/{path.name}": path for path in sorted((Path(folder) / "report").iterdir())}
        statistics, left_out = _statistics(directory, plan, Path(folder), features=features)
        files |= statistics
        if samples:
            left_out += [f"without the samples of {stage.name}: not there" for stage in _unsampled(plan)]
        contents = Contents(
            name=plan.loaded.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            suite=metadata.version("sra-bench"),
            registry_sha256=sha256_file(REGISTRY),
            left_out=list(map(private.text, left_out)),
            files={path: sha256_file(file) for path, file in sorted(files.items())},
        )
        _write(place, contents, files)
        large = sum(file.stat().st_size for name, file in statistics.items() if name.startswith(FEATURES))
    size = f"{place.stat().st_size / 1e6:,.1f} MB" + (f", {large / 1e6:,.1f} MB of them features" if features else "")
    lines = [f"{place}: {len(files)} files, {size}", *left_out, f"SHA-256 of its contents: {contents.digest}"]
    return "\n".join(lines), INCOMPLETE if left_out else 0


def _hidden(report: Report, private: Private) -> Report:
    """The report without private places, but for those of its pictures, which are replaced when it is written."""
    hidden = Report.model_validate(mapped(report.model_dump(mode="json", by_alias=True), private.text))
    pictures = [row.model_dump(include={"grid", "nearest"}) for row in report.rows]
    rows = [row.model_copy(update=own) for row, own in zip(hidden.rows, pictures, strict=True)]
    return hidden.model_copy(update={"rows": rows})


def _unsampled(plan: Plan) -> list[Stage]:
    """The sampling stages without samples."""
    return [stage for stage in plan.stages if stage.kind is SAMPLE and not (stage.directory / SAMPLES).is_file()]


def _write(place: Path, contents: Contents, files: dict[str, Path]) -> None:
    with replacing(place) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(CONTENTS, json_text(contents, by_alias=True), zipfile.ZIP_DEFLATED)
        for path, file in sorted(files.items()):
            stored = file.suffix in STORED_UNCOMPRESSED
            archive.write(file, path, zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)


def _run_files(directory: RunDirectory, plan: Plan, *, samples: bool) -> dict[str, Path]:
    """File by path in the archive, of what the run directory holds."""
    found = {f"run/{name}": directory.root / name for name in RUN_FILES}
    for stage in plan.stages:
        names = (*STAGE_FILES, SAMPLES) if samples else STAGE_FILES
        found |= {f"run/stages/{stage.directory.name}/{name}": stage.directory / name for name in names}
    return {name: path for name, path in found.items() if path.is_file()}


# -- feature statistics ---------------------------------------------------------------------------------------------


def statistics_name(images: str, graph: str) -> str:
    """Path in the archive of the feature statistics of images, by SHA-256 of their pixels and of the graph."""
    return f"{STATISTICS}/{images[:32]}-{graph[:32]}.npz"


def features_name(images: str, graph: str) -> str:
    """The same of their pooled features."""
    return f"{FEATURES}/{images[:32]}-{graph[:32]}.npz"


def classifier_name(graph: str) -> str:
    """The same of the weights of a graph's classifier."""
    return f"{FEATURES}/classifier-{graph[:32]}.npy"


@dataclass
class _Scored:
    """The image sets that were scored with one graph, whose features may be in the cache."""

    path: str
    """Of the graph."""
    sha256: str
    widths: list[str]
    """Number of pooled and of spatial features."""
    images: dict[str, Path] = field(default_factory=dict)
    """Sample sets and references by SHA-256 of their pixels."""

    def export(self, directory: RunDirectory, folder: Path, *, features: bool) -> dict[str, Path]:
        """Write what the cache has below `folder`; returns the files by path in the archive."""
        found = {digest: path for digest, path in self.images.items() if path.exists()}
        if not found:
            return {}
        statistics, pools = ([name(d, self.sha256) for d in found] for name in (statistics_name, features_name))
        classifier = classifier_name(self.sha256)
        arguments = ["export", "--graph", self.path, "--widths", *self.widths, "--cache", str(directory.root / "cache")]
        arguments += ["--images", *map(str, found.values()), "--out", *(str(folder / name) for name in statistics)]
        if features:
            arguments += ["--features", *(str(folder / name) for name in pools)]
            arguments += ["--classifier", str(folder / classifier)]
        evaluator_job("feature_files", *arguments)
        return {name: folder / name for name in (*statistics, *pools, classifier) if (folder / name).is_file()}

    def missing(self, files: Iterable[str], *, features: bool) -> list[str]:
        """What is not among `files`, in words."""
        kinds = [("feature statistics", statistics_name)] + ([("features", features_name)] if features else [])
        lines = [
            f"without the {what} of {path}: {'its features are not in the cache' if path.exists() else 'not there'}"
            for what, name in kinds
            for digest, path in self.images.items()
            if name(digest, self.sha256) not in files
        ]
        if features and classifier_name(self.sha256) not in files:
            lines.append(f"without the classifier of {self.path}: it is not in the cache; score once more")
        return lines


def _statistics(
    directory: RunDirectory, plan: Plan, folder: Path, *, features: bool
) -> tuple[dict[str, Path], list[str]]:
    """Feature statistics, and features, of every scored set and its reference; and what is missing, in words."""
    graphs: dict[tuple[str, ...], _Scored] = {}
    for stage in plan.stages:
        job, record = stage.job, read_scores(stage)
        if stage.look:  # at the first images of a set that is scored
            continue
        if record and isinstance(job, ScoreJob) and job.tool == TOOL and isinstance(record.settings, AdmSettings):
            widths = [str(record.settings.widths.pool), str(record.settings.widths.spatial)]
            graph = record.graph.sha256
            scored = graphs.setdefault((job.graph, graph, *widths), _Scored(job.graph, graph, widths))
            scored.images[record.samples.sha256] = Path(str(stage.inputs.samples))
            scored.images[record.reference.sha256] = Path(job.reference)
    files: dict[str, Path] = {}
    for scored in graphs.values():
        files |= scored.export(directory, folder, features=features)
    return files, [line for scored in graphs.values() for line in scored.missing(files, features=features)]
