"""The result of an acceptance test: one JSON document, its text and its Markdown tables.

{"schema": 1, "machine": {...}, "stages": [StageResult, ...]}
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from sra.common.errors import DataError
from sra.common.files import write_json
from sra.common.validation import STRICT, one_line
from sra.perf.results import Result, line

SCHEMA = 1
Status = Literal["passed", "failed", "died", "not tested"]
HOLDS = {None: "", True: "yes", False: "no"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One number or fact, or one check."""

    __pydantic_config__ = STRICT

    name: str
    value: float | int | str | None
    unit: str = ""
    ok: bool | None = None
    """Whether a check holds; None: for information."""
    note: str = ""
    """What was expected, or what to do."""

    def text(self) -> str:
        """One line."""
        mark = {None: " ", True: "+", False: "!"}[self.ok]
        value = f"{self.value:.4g}" if isinstance(self.value, float) else "" if self.value is None else str(self.value)
        note = f"({self.note})" if self.note else ""
        return f"  {mark} {self.name}: " + " ".join(part for part in (value, self.unit, note) if part)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Everything that one stage found."""

    __pydantic_config__ = STRICT

    name: str
    status: Status
    seconds: float
    """Wall-clock time."""
    note: str = ""
    """Why it failed, died or could not be tested."""
    findings: tuple[Finding, ...] = ()
    results: tuple[Result, ...] = ()
    """Measured speeds, as `sra-bench perf` records them."""

    def reasons(self) -> list[str]:
        """Why the machine is not ready, a line each."""
        failed = [f"{self.name}: {f.text()[4:]}" for f in self.findings if f.ok is False]
        return failed + ([f"{self.name}: {self.status}: {self.note}"] if self.status == "died" else [])


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The whole test."""

    __pydantic_config__ = STRICT

    schema: Literal[1] = 1
    machine: dict[str, Any] = field(default_factory=dict)
    """Device, versions, cores: see `sra.perf.results.machine`."""
    stages: tuple[StageResult, ...] = ()

    @property
    def reasons(self) -> list[str]:
        """Why the machine is not ready; empty: it is."""
        return [reason for stage in self.stages for reason in stage.reasons()]

    @property
    def results(self) -> list[Result]:
        """Measured speeds of all stages."""
        return [result for stage in self.stages for result in stage.results]

    def last_page(self) -> str:
        """Whether the machine is ready, why not, and what was not tested."""
        untested = [f"{stage.name}: {stage.note}" for stage in self.stages if stage.status == "not tested"]
        lines = [f"{'NOT ready' if self.reasons else 'ready'}: {self.machine.get('device', 'unknown device')}"]
        lines += [f"  because {reason}" for reason in self.reasons]
        return "\n".join(lines + [f"  not tested: {reason}" for reason in untested])

    def as_markdown(self) -> str:
        """Tables of checks and speeds, for a page of measurements."""
        about = self.machine
        rows = [f"Machine: {about.get('device')}, torch {about.get('torch')}, {about.get('cores')} cores.", ""]
        rows += ["| stage | what | value | holds |", "|---|---|---|---|"]
        for stage in self.stages:
            if not stage.findings:
                rows.append(f"| {stage.name} | | {stage.status}: {stage.note} | |")
            for finding in stage.findings:
                name, _, value = finding.text()[4:].partition(": ")
                rows.append(f"| {stage.name} | {name} | {value} | {HOLDS[finding.ok]} |")
        rows += ["", "| what | ms | images/s | MFU | GiB |", "|---|---|---|---|---|"]
        for row in self.results:
            mfu = f"{100 * row.mfu:.1f} %" if row.mfu else ""
            memory = f"{row.memory_bytes / 2**30:.2f}" if row.memory_bytes else ""
            what = line(row).partition(": ")[0]
            rows.append(f"| {what} | {row.milliseconds:.2f} | {row.images_per_second:.1f} | {mfu} | {memory} |")
        return "\n".join(rows)

    def save(self, path: Path) -> None:
        """Write the document."""
        write_json(path, dataclasses.asdict(self))


def load(path: Path) -> Acceptance:
    """Read a document.

    Raises:
        DataError: no such file, or not such a document.
    """
    try:
        return TypeAdapter(Acceptance).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: expected the JSON file of an acceptance test, got {error.strerror}") from error
    except ValidationError as error:
        raise DataError(
            f"{path}: expected the JSON file of an acceptance test: {one_line(Acceptance, error)}"
        ) from error


def read_lines(path: Path) -> tuple[tuple[Finding, ...], tuple[Result, ...], str]:
    """Findings, speeds and the reason `not tested` that a stage's process has written so far, a JSON object a line."""
    findings, results, untested = [], [], ""
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            kind, value = json.loads(text)
        except ValueError:  # the process was killed in the middle of a line
            continue
        if kind == "finding":
            findings.append(Finding(**value))
        elif kind == "result":
            results.append(TypeAdapter(Result).validate_python(value))
        else:
            untested = value
    return tuple(findings), tuple(results), untested
