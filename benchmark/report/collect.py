"""Collect the report of a run from the files of its directory."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import known_hashes
from benchmark.machine.provenance import Hardware, Session
from benchmark.manifest.schema import Run
from benchmark.plan.plan import Plan, state_of
from benchmark.plan.records import FailedRecord, StageRecord
from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.saved_plan import load_plan, resolved_manifest, sessions_of
from benchmark.plan.stages import IMAGES, LATENTS, SAMPLE, SCORE, TRAIN, Stage, StageKind
from benchmark.published.comparability import Evidence
from benchmark.published.early import EarlyVerdict, early_verdict, stops
from benchmark.published.registry import load_registry
from benchmark.published.schema import Registry
from benchmark.published.verdict import TOOL, RowVerdict, Status, judge
from benchmark.report.claims import claims_of
from benchmark.report.comparisons import base_name, comparisons_of, groups_of, variants_of
from benchmark.report.costs import cost_of, curve_of, losses_of, probe_of, read_log, read_scores
from benchmark.report.crosscheck import disagreements
from benchmark.report.model import (
    Dataset,
    Execution,
    Paper,
    PublishedRow,
    Report,
    Row,
    RowProvenance,
    StageState,
    read_report,
)
from benchmark.report.targets import times_to_targets
from evaluator.tools.score_record import ScoreRecord
from sra.common.errors import UserError
from sra.common.files import EMBEDDED, is_embedded, load_json
from sra.common.validation import read_record, validated
from sra.config import SampleJob, to_plain

NOT_RECORDED = {"created": "not recorded", "source": {}, "hardware": {}}
"""Session of a run without a record of any: the machine that makes the report need not be the one that ran."""


def load_report(run_directory: Path) -> Report:
    """The report of a run directory: collected from its stages if they exist, otherwise report.json as written.

    Raises:
        UserError: neither is there, or this version cannot read them.
    """
    directory = RunDirectory(run_directory)
    saved = load_plan(directory)
    if saved is not None:
        return collect_report(saved[0], directory, saved[1])
    report = read_report(directory.report / "report.json")
    if report is None:
        raise UserError(f"{run_directory}: expected a run directory with plan.json or report/report.json")
    return report


def collect_report(plan: Plan, directory: RunDirectory, command: str) -> Report:
    """The report of a run.

    Args:
        plan: the plan whose stages were run.
        directory: where they were run.
        command: the command line that redoes it.

    Raises:
        UserError: a variant names a published row that does not exist.
    """
    registry = load_registry()
    sessions = sessions_of(directory) or [Session.model_validate(NOT_RECORDED)]
    results = [_Results.read(plan, directory, run) for run in plan.loaded.runs]
    rows = [_row(registry, result, sessions[-1]) for result in results]
    variants = variants_of(plan.loaded.runs, rows)
    comparisons = comparisons_of(registry, variants)
    evidence = {r.run.variant: r.evidence(sessions[-1].assets) for r in results if r.no_scores is None}
    return Report(
        name=plan.loaded.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        headline=_headline(rows),
        rows=rows,
        groups=groups_of(registry, variants),
        claims=claims_of(registry, variants, evidence, comparisons),
        targets=times_to_targets(variants, comparisons, plan.loaded.targets),
        comparisons=comparisons,
        papers=_papers(registry, rows),
        manifest=resolved_manifest(plan.loaded),
        commands=[command],
        provenance=sessions[-1],
        sessions=len(sessions),
        machines=list(dict.fromkeys(_machine(session.hardware) for session in sessions)),
        notes=list(plan.loaded.notes),
    )


def _machine(hardware: Hardware) -> str:
    return ", ".join(hardware.gpus) or (f"{hardware.cpu}, no GPU" if hardware.cpu else "machine not recorded")


def _headline(rows: Sequence[Row]) -> str | None:
    graphs = sorted(row.provenance.graph.name or "" for row in rows if row.provenance.graph)
    embedded = next((graph.removeprefix(EMBEDDED) for graph in graphs if is_embedded(graph)), None)
    return f"{embedded} features: compare the variants with each other, not with ImageNet numbers" if embedded else None


def _papers(registry: Registry, rows: Sequence[Row]) -> dict[str, Paper]:
    """The papers of the published rows that are named."""
    used = dict.fromkeys(key for row in rows if row.published for key in row.published.papers)
    papers = {key: registry.papers[key] for key in used}
    return {
        key: Paper(title=paper.title, url=paper.url, code=paper.code, bibtex=paper.bibtex(key))
        for key, paper in papers.items()
    }


@dataclass(frozen=True)
class _Results:
    """Outputs of the stages of one run."""

    run: Run
    directory: RunDirectory
    stages: Sequence[Stage]
    last: int | None
    """Optimizer step of the weights that are compared; None: a checkpoint's."""
    scores: dict[str, ScoreRecord]
    """Of these weights, by tool."""
    looks: tuple[EarlyVerdict, ...]

    @classmethod
    def read(cls, plan: Plan, directory: RunDirectory, run: Run) -> _Results:
        planned = [stage for stage in plan.stages if run.variant in stage.variants]
        stages, looks = ([s for s in planned if bool(s.look) is look] for look in (False, True))
        last = max((s.step for s in stages if s.kind is SAMPLE and s.step is not None), default=None)
        scores = {
            stage.tool: record
            for stage in stages
            if stage.tool and stage.step == last and (record := read_scores(stage))
        }
        early = (early_verdict(load_registry(), run, found) for s in looks if (found := read_scores(s)))
        return cls(run, directory, stages, last, scores, tuple(verdict for verdict in early if verdict))

    @property
    def sample(self) -> Stage | None:
        """The stage that made the samples that are compared."""
        return next((s for s in self.stages if s.kind is SAMPLE and s.step == self.last), None)

    def dataset(self, kind: StageKind[Any]) -> Dataset | None:
        """What the images or latents stage wrote about its data."""
        stage = next((stage for stage in self.stages if stage.kind is kind), None)
        return read_record(Dataset, stage.directory / f"{kind.name}.json") if stage else None

    def execution(self, kind: StageKind[Any], name: str) -> Execution | None:
        """What the training or sampling stage wrote about its device."""
        stages = [stage for stage in self.stages if stage.kind is kind and (kind is TRAIN or stage is self.sample)]
        path = stages[0].directory / name if stages else None
        found = load_json(path) if path else None
        return validated(Execution, found, str(path)) if found and "device" in found else None

    @property
    def training(self) -> Execution | None:
        """On what it was trained."""
        return self.execution(TRAIN, "speed.json")

    @property
    def sampling(self) -> Execution | None:
        """On what it was sampled."""
        return self.execution(SAMPLE, "samples.json")

    @property
    def no_scores(self) -> tuple[Status, str] | None:
        """`failed` or `not finished`, and where; None if the ADM scores are there."""
        if adm := self.scores.get(TOOL):
            return ("failed", f"score-{TOOL}: {adm.error}") if adm.error else None
        for stage in self.stages:
            failed = read_record(FailedRecord, stage.directory / "failed.json")
            if failed is not None and failed.key == stage.key:
                return "failed", f"{stage.name}: {failed.message}"
        scored = (s for s in self.stages if s.step == self.last and s.tool == TOOL)
        if (score := next(scored, None)) is None:
            return "failed", f"score.tools: expected {TOOL} among them, whose metrics the papers print"
        sample, look = self.sample, next((look for look in self.looks if stops(self.run, look)), None)
        if look and sample and not sample.is_done:
            return "not finished", f"{sample.name}: {look.text}; sampling stopped"
        before = (s for s in self.stages if s.kind is not SCORE and not (s.directory / "done.json").is_file())
        return "not finished", f"{next(before, score).name} has not ended"

    @property
    def commands(self) -> list[str]:
        """The command line of each stage that has started; shared ones once."""
        found = {
            stage.directory.name: read_record(StageRecord, stage.directory / "stage.json") for stage in self.stages
        }
        started = [self.directory.relocated(list(r.argv), [n]) for n, r in found.items() if r and r.argv]
        return list(dict.fromkeys(map(shlex.join, started)))

    def verdict(self, registry: Registry, assets: dict[str, str]) -> RowVerdict:
        """The verdict; `assets`: SHA-256 of the downloaded files that were used."""
        if self.no_scores:
            status, reason = self.no_scores
            return RowVerdict(status=status, reasons=[reason], row=self.run.published)
        return judge(registry, self.run, self.evidence(assets))

    def evidence(self, assets: dict[str, str]) -> Evidence:
        """What the files of a run with scores say about it; `assets` as for `verdict`."""
        data = self.dataset(LATENTS) or self.dataset(IMAGES) or Dataset()
        sample = self.sample.job if self.sample and isinstance(self.sample.job, SampleJob) else None
        return Evidence(
            record=self.scores[TOOL],
            codec=sample.codec.path if sample else None,
            checkpoint=sample.checkpoint if sample and self.last is None else None,
            images=data.count,
            classes=data.classes,
            pins=known_hashes(),
            files=assets,
            train_precision=self.training.precision if self.training else None,
            sample_precision=self.sampling.precision if self.sampling else None,
        )

    def provenance(self) -> RowProvenance:
        record = self.scores.get(TOOL) or next(iter(self.scores.values()), None)
        return RowProvenance(
            settings=to_plain(self.run),
            stages={s.name: StageState(key=s.key, state=state_of(s, self.directory)[0]) for s in self.stages},
            images=self.dataset(IMAGES),
            latents=self.dataset(LATENTS),
            samples=record.samples if record else None,
            reference=record.reference if record else None,
            graph=record.graph if record else None,
            tools={tool: found.version for tool, found in self.scores.items()},
            training=self.training,
            sampling=self.sampling,
        )


def _row(registry: Registry, results: _Results, session: Session) -> Row:
    run, scores, log = results.run, results.scores, read_log(results.stages, results.last)
    grid = results.sample.directory / "grid.png" if results.sample else None
    views = [s.directory / "views" / "nearest.png" for s in results.stages if s.tool and s.step == results.last]
    return Row(
        variant=run.variant,
        group=base_name(run),
        what=_what(run),
        metrics={tool: dict(record.metrics) for tool, record in scores.items()},
        errors={tool: record.error for tool, record in scores.items() if record.error},
        absent={tool: record.absent for tool, record in scores.items() if record.absent},
        intervals={tool: record.intervals for tool, record in scores.items() if record.intervals},
        warnings=_warnings(scores),
        verdict=results.verdict(registry, session.assets),
        looks=results.looks,
        cost=cost_of(results.stages, results.last, log),
        provenance=results.provenance(),
        curve=curve_of(results.stages, log),
        losses=losses_of(log),
        probe=probe_of(results.directory.root, run.variant),
        grid=str(grid) if grid and grid.is_file() else None,
        nearest=next((str(path) for path in views if path.is_file()), None),
        published=_published(registry, run),
        commands=results.commands,
    )


def _what(run: Run) -> str:
    """What was trained and sampled, in one line."""
    if run.samples is not None:
        return f"samples of {run.samples}"
    sample = run.sample
    guided = f"guidance {sample.cfg:g}" if sample.cfg > 1 else "no guidance"
    made = f"weights of {run.checkpoint}"
    if train := run.train:
        length = f"{train.epochs:,} epochs in" if train.steps is None else f"{train.steps:,}"
        made = f"{length} steps of {train.global_batch} images"
    parts = [
        f"{run.model.name} at {run.model.resolution} px",
        run.align.kind if run.align else "no alignment",
        made,
        f"{sample.images:,} samples: {sample.sampler}, {sample.steps} steps, {guided}",
    ]
    return "; ".join(parts)


def _warnings(scores: dict[str, ScoreRecord]) -> dict[str, list[str]]:
    """By tool, and of all of them together."""
    found = {tool: list(record.warnings) for tool, record in scores.items() if record.warnings}
    between = disagreements(scores)
    return {**found, "cross-check": between} if between else found


def _published(registry: Registry, run: Run) -> PublishedRow | None:
    if run.published is None:
        return None
    row = registry.row(run.published)
    same = row.model_dump(include={"id", "model", "source", "kind", "papers"})
    return PublishedRow(**same, metrics={name: str(value) for name, value in row.printed.items()})
