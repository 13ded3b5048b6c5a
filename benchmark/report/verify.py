"""`sra-bench verify`: recompute a bundle from its files, compare with its report, list what cannot be checked."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.plan.run_directory import PLAN, RunDirectory
from benchmark.plan.saved_plan import load_plan
from benchmark.published.registry import REGISTRY
from benchmark.published.verdict import TOOL, with_allowances_of
from benchmark.report.bundle import CONTENTS, SCHEMA, Contents, classifier_name, features_name, statistics_name
from benchmark.report.collect import collect_report
from benchmark.report.model import SCHEMA as REPORT_SCHEMA
from benchmark.report.model import Report, Row, read_report
from benchmark.run.process import evaluator_job
from evaluator.tools import is_optional
from sra.common.archives import open_archive, open_member
from sra.common.errors import UserError
from sra.common.files import parse_json, sha256_file
from sra.common.validation import validated

DISTANCE_TOLERANCE = 1e-6
"""Relative, of a distance computed again from the same statistics: summation order."""
INCEPTION_SCORE_TOLERANCE = 1e-5
"""Relative: sums in float32."""
ROUNDING_TOLERANCE = 1e-9
"""Of numbers derived from the same scores."""
SHARE_TOLERANCE, IMAGES_TOLERANCE = 5e-4, 2.5
"""Of precision and recall, the larger of: this share, or this many images that rounding moves over a border."""
SOUND, CONTRADICTED, NOT_PROVED = 0, 1, 3
"""Exit codes."""
SAME = ("metrics", "intervals", "errors", "verdict", "curve", "published")
"""Fields of a row that must be the same when it is collected again from the files in the archive."""
PROSE: dict[str, Any] = {"reasons": True, "notes": True, "settings": True, "caution": True}
"""Fields of a verdict in words, and the settings it rests on: another version says and compares them differently."""


@dataclass
class Findings:
    """What was checked."""

    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    computed: set[str] = field(default_factory=set)
    """Variants whose FID and sFID were computed again."""

    def text(self) -> str:
        """A line each."""
        parts = [("ok", self.good), ("WRONG", self.bad), ("not re-derived", self.unknown)]
        return "\n".join(f"{label}: {line}" for label, lines in parts for line in lines)


@dataclass(frozen=True)
class Examined:
    """An archive that was unpacked and checked."""

    contents: Contents
    findings: Findings
    report: Report | None
    """Collected again from its files; None where that is impossible."""

    @property
    def code(self) -> int:
        """0, 1: it contradicts itself, or 3: nothing in it proves a score."""
        if self.findings.bad:
            return CONTRADICTED
        scored = {row.variant for row in self.report.rows if row.metrics} if self.report else set()
        return SOUND if scored and scored <= self.findings.computed else NOT_PROVED


def verify_bundle(bundle: Path) -> tuple[str, int]:
    """Check an archive; returns what to print, and the exit code of `Examined`.

    Raises:
        UserError: not an archive of this suite.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = examine(bundle, Path(folder))
    head = f"{bundle}: {found.contents.name}, SHA-256 of its contents {found.contents.digest}"
    return f"{head}\n{found.findings.text()}", found.code


def examine(bundle: Path, folder: Path) -> Examined:
    """Unpack an archive into a folder and check it.

    Raises:
        UserError: not an archive of this suite.
    """
    contents, findings = _contents(bundle), Findings()
    _unpack(bundle, contents, folder, findings)
    report = _collected_again(folder, contents, findings)
    if report is not None:
        _check_scores(folder, report, findings)
        _check_samples(folder, report, findings)
    findings.unknown.append("training and sampling are not repeated; to redo them, see the commands in the report")
    return Examined(contents, findings, report)


def _contents(bundle: Path) -> Contents:
    where = f"{bundle}: {CONTENTS}"
    with open_archive(bundle) as archive:
        if CONTENTS not in archive.namelist():
            raise UserError(f"{bundle}: expected an archive made by sra-bench bundle, got one without {CONTENTS}")
        with open_member(archive, CONTENTS, where) as member:
            document = parse_json(member.read(), where)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{where}: schema: expected {SCHEMA}, got {schema!r:.40}")
    return validated(Contents, document, where)


def _unpack(bundle: Path, contents: Contents, folder: Path, findings: Findings) -> None:
    """Write the listed files below a folder; finds files that are missing, added or changed."""
    listed = contents.files
    with open_archive(bundle) as archive:
        names = [name for name in archive.namelist() if name != CONTENTS]
        findings.bad += [f"{name}: listed, but not in the archive" for name in listed if name not in names]
        findings.bad += [f"{name}: in the archive, but not listed" for name in names if name not in listed]
        findings.bad += [f"{name}: twice in the archive" for name in sorted(set(names)) if names.count(name) > 1]
        unpacked = []
        for name in set(names) & set(listed):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise UserError(f"{bundle}: {name}: expected a path inside the archive")
            open_member(archive, name, f"{bundle}: {name}").close()
            try:
                archive.extract(name, folder)
                unpacked.append(name)
            except (zipfile.BadZipFile, OSError) as error:
                findings.bad.append(f"{name}: cannot be unpacked: {error}")
    changed = [name for name in sorted(unpacked) if sha256_file(folder / name) != listed[name]]
    findings.bad += [f"{name}: its content does not match its hash" for name in changed]
    if not findings.bad:
        findings.good.append(f"{len(listed)} files match their hashes")


def _collected_again(folder: Path, contents: Contents, findings: Findings) -> Report | None:
    """The report, collected again from scores and manifest and compared with the one inside; None if impossible."""
    directory = RunDirectory(folder / "run")
    try:
        written = read_report(directory.report / "report.json")
        saved = load_plan(directory)
        # Without its plan, a run is shown as its report says; here that would prove nothing.
        for name, found in (("report/report.json", written), (PLAN, saved)):
            if found is None:
                findings.bad.append(f"run/{name}: missing or damaged: nothing can be re-derived")
        if written is None or saved is None:
            return None
        report = collect_report(saved[0], directory, saved[1])
    except UserError as error:
        findings.bad.append(str(error).replace(f"{folder}/", ""))
        return None
    same_registry = sha256_file(REGISTRY) == contents.registry_sha256
    if not same_registry:
        findings.unknown.append(
            "the registry of published rows has changed since: verdicts are compared with the allowances that they "
            "name, not with the present ones"
        )
    rows = {row.variant: row for row in written.rows}
    added = sorted(rows.keys() - {row.variant for row in report.rows})
    findings.bad += [f"{name}: a row of the report that the run does not have" for name in added]
    for row in report.rows:
        before = rows.get(row.variant)
        if before is not None and not same_registry:
            row = row.model_copy(update={"verdict": with_allowances_of(before.verdict, row.verdict)})
        _compare(row, before, findings, prose=same_registry and written.schema_ == REPORT_SCHEMA)
    if same_registry and written.schema_ == REPORT_SCHEMA:
        parts = {"headline", "groups", "claims", "targets", "comparisons"}
        again, inside = (side.model_dump(mode="json", include=parts) for side in (report, written))
        changed = sorted(name for name in parts if not _equal(again[name], inside[name]))
        findings.bad += [f"{name} of the report do not match the other files" for name in changed]
    findings.unknown.append("report.md and report.html are not read: `sra-bench report` renders them again")
    return report


def _equal(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal, numbers up to the rounding of another version of SciPy."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=ROUNDING_TOLERANCE, abs_tol=ROUNDING_TOLERANCE)
    return bool(a == b)


def _compare(row: Row, written: Row | None, findings: Findings, *, prose: bool) -> None:
    """Compare a row that was collected again with the written one; `prose`: including the words of its verdict."""
    options: dict[str, Any] = {"mode": "json", "include": set(SAME), "exclude": None if prose else {"verdict": PROSE}}
    again, before = row.model_dump(**options), written.model_dump(**options) if written else {}
    if differing := [name for name in SAME if again.get(name) != before.get(name)]:
        findings.bad.append(f"{row.variant}: {', '.join(differing)} of the report do not match the other files")
    else:
        findings.good.append(f"{row.variant}: {row.verdict.status}, from its scores and settings")


def _hashes(row: Row) -> tuple[str, str, str] | None:
    """SHA-256 of the samples, the reference and the graph of a scored row."""
    facts = (row.provenance.samples, row.provenance.reference, row.provenance.graph)
    samples, reference, graph = (fact.sha256 if fact else None for fact in facts)
    scored = row.metrics.get(TOOL)
    return (samples, reference, graph) if scored and samples and reference and graph else None


def _check_scores(folder: Path, report: Report, findings: Findings) -> None:
    """FID and sFID of every row from feature statistics; IS, precision and recall from pooled features."""
    unscored = [row.variant for row in report.rows if _hashes(row) is None]
    findings.unknown += [f"{variant}: has no scores" for variant in unscored]
    missing = "FID and sFID: no feature statistics inside"
    for row, metrics in _computed_again("frechet", _statistics_files, folder, report, findings, missing):
        findings.computed.add(row.variant)
        rooms = {metric: DISTANCE_TOLERANCE * abs(value) for metric, value in metrics.items()}
        _check_metrics(row, metrics, rooms, "feature statistics", findings)
    others = sorted({tool for row in report.rows for tool in row.metrics} - {TOOL})
    others += sorted({name for row in report.rows for name in row.metrics.get(TOOL, {}) if is_optional(name)})
    others += ["intervals"] if any(row.intervals for row in report.rows) else []
    others += ["FID at earlier steps"] if any(len(row.curve) > 1 for row in report.rows) else []
    findings.unknown += [f"{', '.join(others)}: as the score records say"] if others else []
    missing = "IS, precision, recall: no features inside"
    for row, metrics in _computed_again("pool-metrics", _feature_files, folder, report, findings, missing):
        share = max(SHARE_TOLERANCE, IMAGES_TOLERANCE / min(metrics.pop("samples"), metrics.pop("reference")))
        rooms = {m: INCEPTION_SCORE_TOLERANCE * abs(value) if m == "is" else share for m, value in metrics.items()}
        _check_metrics(row, metrics, rooms, "features", findings)


def _statistics_files(samples: str, reference: str, graph: str) -> dict[str, str]:
    return {"--samples": statistics_name(samples, graph), "--reference": statistics_name(reference, graph)}


def _feature_files(samples: str, reference: str, graph: str) -> dict[str, str]:
    files = {"--samples": features_name(samples, graph), "--reference": features_name(reference, graph)}
    return {**files, "--classifier": classifier_name(graph)}


def _computed_again(
    command: str,
    files_of: Callable[[str, str, str], dict[str, str]],
    folder: Path,
    report: Report,
    findings: Findings,
    missing: str,
) -> Iterator[tuple[Row, dict[str, float]]]:
    """Rows and their metrics, computed again in one job.

    Args:
        command: of `evaluator.features.feature_files`.
        files_of: its options and their paths in the archive, from the hashes of samples, reference and graph.
        folder: of the unpacked archive.
        report: the rows.
        findings: gets a line for every row whose files are not in the archive.
        missing: that line.
    """
    found = [(row, files_of(*hashes)) for row in report.rows if (hashes := _hashes(row))]
    complete = [(row, files) for row, files in found if all((folder / name).is_file() for name in files.values())]
    findings.unknown += [f"{row.variant}: {missing}" for row, files in found if (row, files) not in complete]
    if complete:
        options = list(complete[0][1])
        arguments = [part for o in options for part in (o, *(str(folder / files[o]) for _, files in complete))]
        results = json.loads(evaluator_job("feature_files", command, *arguments))
        yield from zip([row for row, _ in complete], results, strict=True)


def _check_metrics(
    row: Row, metrics: Mapping[str, float], rooms: Mapping[str, float], source: str, findings: Findings
) -> None:
    """Compare metrics computed again with those of the score record; `rooms`: allowed differences."""
    for metric, value in metrics.items():
        scored, line = row.value(TOOL, metric), f"{row.variant}: {metric} {value:.8g} from {source}"
        if scored is not None and abs(value - scored) <= rooms[metric]:
            findings.good.append(line)
        else:
            findings.bad.append(f"{line}, {scored} in its scores")


def _check_samples(folder: Path, report: Report, findings: Findings) -> None:
    """Whether samples that are inside are those that were scored."""
    files = sorted((folder / "run" / "stages").glob("*/samples.npz"))
    if not files:
        findings.unknown.append("the samples are not inside")
        return
    digests = json.loads(evaluator_job("feature_files", "hash", "--images", *map(str, files)))
    places = {digest: file.parent.name for file, digest in reversed(list(zip(files, digests, strict=True)))}
    scored = (row.provenance.samples.sha256 for row in report.rows if row.provenance.samples)
    for digest in sorted({digest for digest in scored if digest}):
        line = f"{digest[:16]}: the samples that were scored are"
        if digest in places:
            findings.good.append(f"{line} in {places[digest]}")
        else:
            findings.bad.append(f"{line} not inside")
