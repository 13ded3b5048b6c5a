"""`sra-bench verify`: does a bundle agree with itself? Re-derives what can be, and says what cannot."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.bundle import CONTENTS, SCHEMA, digest_of, statistics_name
from benchmark.collect import load_report
from benchmark.published import REGISTRY
from benchmark.runner import job_environment
from benchmark.store import read_json
from sra.errors import UserError
from sra.files import sha256_file

TOLERANCE = 1e-6
"""Relative, of a distance made anew from the same statistics: summation order."""
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
    try:
        made = load_report(folder / "run")
    except UserError as error:
        findings.bad.append(str(error).replace(str(folder), ""))
        return
    if sha256_file(REGISTRY) != contents["registry_sha256"]:
        findings.unknown.append("the registry of published rows has changed since; verdicts are of today's")
    rows = {row["variant"]: row for row in written["rows"]}
    for row in made["rows"]:
        _row(row, rows.get(row["variant"], {}), findings)
    _distances(folder, made, findings)
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
    findings.unknown += [f"{row['variant']}: IS, precision, recall: features are not inside" for row in names]
    if not pairs:
        return
    arguments = ["--samples", *(str(p[0]) for p in pairs), "--reference", *(str(p[1]) for p in pairs)]
    for row, found in zip(names, _evaluator("distance", arguments), strict=True):
        for metric, value in found.items():
            printed = row["metrics"]["adm"][metric]
            same = abs(value - printed) <= TOLERANCE * max(abs(value), abs(printed))
            line = f"{row['variant']}: {metric} {value:.8g} from feature statistics"
            (findings.good if same else findings.bad).append(line if same else f"{line}, {printed:.8g} in its scores")


def _pixels(folder: Path, report: dict[str, Any], findings: Findings) -> None:
    """Whether samples that are inside are those that were scored."""
    scored = {row["provenance"]["samples"]["sha256"] for row in report["rows"] if row["provenance"]["samples"]}
    files = sorted((folder / "run" / "stages").glob("*/samples.npz"))
    if not files:
        findings.unknown.append("the samples are not inside")
        return
    found = dict(zip(files, _evaluator("pixels", ["--images", *map(str, files)]), strict=True))
    for digest in scored:
        places = [file.parent.name for file, value in found.items() if value == digest]
        line = f"{digest[:16]}: the samples that were scored"
        (findings.good if places else findings.bad).append(
            f"{line} are {'in ' + places[0] if places else 'not inside'}"
        )


def _evaluator(command: str, arguments: list[str]) -> list[Any]:
    argv = [sys.executable, "-m", "evaluator.statistics", command, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, env=job_environment(), check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with exit code {done.returncode}"]
        raise UserError(lines[-1].removeprefix("error: "))
    return list(json.loads(done.stdout))
