"""`sra-bench verify`: does a bundle agree with itself? Re-derives what can be, and says what cannot."""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.plan.run_directory import RunDirectory, read_json
from benchmark.plan.saved_plan import PLAN, load_plan
from benchmark.published.registry import REGISTRY
from benchmark.report.bundle import CONTENTS, SCHEMA, classifier_name, digest_of, features_name, statistics_name
from benchmark.report.collect import collect_report
from benchmark.run.runner import evaluator_job
from sra.common.errors import UserError
from sra.common.files import sha256_file

TOLERANCE = 1e-6
"""Relative, of a distance made anew from the same statistics: summation order."""
SOFTMAX = 1e-5
"""Relative, of an Inception score: sums in float32."""
COUNTED, FEW = 5e-4, 2.5
"""Absolute, of precision and recall: this share of images, or so many images, that rounding moves over a border."""
SAME = ("metrics", "intervals", "errors", "verdict", "curve", "published")
"""What a row's report must say again when it is made from the files beside it."""


@dataclass
class Findings:
    """What was checked."""

    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def text(self) -> str:
        """A line each."""
        parts = [("ok", self.good), ("WRONG", self.bad), ("not re-derived", self.unknown)]
        return "\n".join(f"{label}: {line}" for label, lines in parts for line in lines)


def verify_bundle(bundle: Path) -> tuple[str, bool]:
    """Check an archive; returns (what to print, whether nothing was wrong).

    Raises:
        UserError: not an archive of this suite.
    """
    contents = _contents(bundle)
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        _unpack(bundle, contents, Path(folder), findings)
        _reports(Path(folder), contents, findings)
    findings.unknown.append("training and sampling are not repeated; to redo them, see the commands in the report")
    head = f"{bundle}: {contents['name']}, SHA-256 of its contents {digest_of(contents)}"
    return f"{head}\n{findings.text()}", not findings.bad


def _contents(bundle: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(bundle) as archive:
            contents = json.loads(archive.read(CONTENTS))
    except FileNotFoundError as error:
        raise UserError(f"{bundle}: no such file") from error
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"{bundle}: not an archive made by sra-bench bundle") from error
    found = contents.get("schema") if isinstance(contents, dict) else None
    if found != SCHEMA or not isinstance(contents.get("files"), dict):
        raise UserError(f"{bundle}: schema {found}, this version reads {SCHEMA}")
    return dict(contents)


def _unpack(bundle: Path, contents: dict[str, Any], folder: Path, findings: Findings) -> None:
    """Write the listed files below a folder; files that are missing, added or changed are found out."""
    listed: dict[str, str] = contents["files"]
    with zipfile.ZipFile(bundle) as archive:
        names = [name for name in archive.namelist() if name != CONTENTS]
        findings.bad += [f"{name}: listed, and not in the archive" for name in listed if name not in names]
        findings.bad += [f"{name}: in the archive, and not listed" for name in names if name not in listed]
        findings.bad += [f"{name}: twice in the archive" for name in sorted(set(names)) if names.count(name) > 1]
        for name in set(names) & set(listed):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise UserError(f"{bundle}: {name}: a path that leaves the archive")
            try:
                archive.extract(name, folder)
            except (zipfile.BadZipFile, OSError) as error:
                findings.bad.append(f"{name}: cannot be unpacked: {error}")
    changed = [n for n, digest in listed.items() if (folder / n).is_file() and sha256_file(folder / n) != digest]
    findings.bad += [f"{name}: its content is not that of its hash" for name in changed]
    if not findings.bad:
        findings.good.append(f"{len(listed)} files have the content of their hashes")


def _reports(folder: Path, contents: dict[str, Any], findings: Findings) -> None:
    """Make the report anew from scores and manifest, and hold it against the one inside."""
    written = read_json(folder / "run" / "report" / "report.json")
    if written is None:
        findings.bad.append("run/report/report.json: not there, or damaged")
        return
    directory = RunDirectory(folder / "run")
    try:
        saved = load_plan(directory)
        if saved is None:
            # Without its plan a run is shown as its report says; here that would prove nothing.
            findings.bad.append(f"run/{PLAN}: not there, or damaged: nothing can be re-derived")
            return
        made = collect_report(saved[0], directory, saved[1])
    except UserError as error:
        findings.bad.append(str(error).replace(f"{folder}/", ""))
        return
    if sha256_file(REGISTRY) != contents["registry_sha256"]:
        findings.unknown.append("the registry of published rows has changed since; verdicts are of today's")
    rows = {row["variant"]: row for row in written["rows"]}
    added = sorted(rows.keys() - {row["variant"] for row in made["rows"]})
    findings.bad += [f"{name}: a row of the report that the run does not have" for name in added]
    for row in made["rows"]:
        _row(row, rows.get(row["variant"], {}), findings)
    _distances(folder, made, findings)
    _features(folder, made, findings)
    _pixels(folder, made, findings)


def _row(made: dict[str, Any], written: dict[str, Any], findings: Findings) -> None:
    # Through JSON: tuples and lists are one thing in a file.
    plain = json.loads(json.dumps(made))
    differing = [name for name in SAME if plain.get(name) != written.get(name)]
    name = made["variant"]
    if differing:
        findings.bad.append(f"{name}: the report's {', '.join(differing)} are not those of the files beside it")
    else:
        findings.good.append(f"{name}: {made['verdict']['status']}, from its scores and settings")


def _distances(folder: Path, report: dict[str, Any], findings: Findings) -> None:
    """FID and sFID of every row from feature statistics."""
    pairs, names = [], []
    for row in report["rows"]:
        facts = [row["provenance"][side] for side in ("samples", "reference", "graph")]
        if not all(facts) or not row["metrics"].get("adm"):
            findings.unknown.append(f"{row['variant']}: has no scores")
            continue
        samples, reference, graph = (fact["sha256"] for fact in facts)
        files = [folder / statistics_name(images, graph) for images in (samples, reference)]
        if not all(file.is_file() for file in files):
            findings.unknown.append(f"{row['variant']}: FID and sFID: no feature statistics inside")
            continue
        pairs.append(files)
        names.append(row)
    if not pairs:
        return
    arguments = ["--samples", *(str(p[0]) for p in pairs), "--reference", *(str(p[1]) for p in pairs)]
    for row, found in zip(names, json.loads(evaluator_job("feature_files", "frechet", *arguments)), strict=True):
        for metric, value in found.items():
            _number(row, metric, value, TOLERANCE * abs(value), "feature statistics", findings)


def _number(row: dict[str, Any], metric: str, value: float, room: float, source: str, findings: Findings) -> None:
    """One metric made anew beside the one in the scores."""
    printed, line = row["metrics"]["adm"].get(metric), f"{row['variant']}: {metric} {value:.8g} from {source}"
    if isinstance(printed, (int, float)) and abs(value - printed) <= room:
        findings.good.append(line)
    else:
        findings.bad.append(f"{line}, {printed} in its scores")


def _features(folder: Path, report: dict[str, Any], findings: Findings) -> None:
    """IS, precision and recall of every row from pooled features."""
    rows, files = [], []
    for row in report["rows"]:
        facts = [row["provenance"][side] for side in ("samples", "reference", "graph")]
        if not all(facts) or not row["metrics"].get("adm"):
            continue
        samples, reference, graph = (fact["sha256"] for fact in facts)
        names = features_name(samples, graph), features_name(reference, graph), classifier_name(graph)
        if all((folder / name).is_file() for name in names):
            rows.append(row)
            files.append([str(folder / name) for name in names])
        else:
            findings.unknown.append(f"{row['variant']}: IS, precision, recall: features are not inside")
    if not rows:
        return
    options = zip(("--samples", "--reference", "--classifier"), zip(*files, strict=True), strict=True)
    arguments = [part for option, paths in options for part in (option, *paths)]
    for row, found in zip(rows, json.loads(evaluator_job("feature_files", "pool-metrics", *arguments)), strict=True):
        few = FEW / min(found.pop("samples"), found.pop("reference"))
        for metric, value in found.items():
            room = SOFTMAX * abs(value) if metric == "is" else max(COUNTED, few)
            _number(row, metric, value, room, "features", findings)


def _pixels(folder: Path, report: dict[str, Any], findings: Findings) -> None:
    """Whether samples that are inside are those that were scored."""
    scored = {row["provenance"]["samples"]["sha256"] for row in report["rows"] if row["provenance"]["samples"]}
    files = sorted((folder / "run" / "stages").glob("*/samples.npz"))
    if not files:
        findings.unknown.append("the samples are not inside")
        return
    digests = json.loads(evaluator_job("feature_files", "hash", "--images", *map(str, files)))
    found = dict(zip(files, digests, strict=True))
    for digest in scored:
        places = [file.parent.name for file, value in found.items() if value == digest]
        line = f"{digest[:16]}: the samples that were scored"
        (findings.good if places else findings.bad).append(
            f"{line} are {'in ' + places[0] if places else 'not inside'}"
        )
