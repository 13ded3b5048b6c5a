"""What a method changes: pairs of variants for each claim, the interval of the difference, the verdict in words."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from benchmark.report.check import check
from benchmark.report.collect import load_report
from benchmark.report.model import ClaimVerdict, read_report
from benchmark.report.render import show_report
from benchmark.report.tables import claim_lines, terminal_summary

Finished = Callable[..., tuple[Path, Any]]
ROWS = {"baseline": "sit-b2-256-400k", "sra": "sit-b2-sra-256-400k"}
SEEDS = {"baseline": [1, 2], "sra": [3, 4]}
PRINTED, RERUN = -3.92, -6.31
DEVIATION = 1.4826 * abs(PRINTED - RERUN) / 2
"""Of the two claims about SRA at SiT-B/2: the allowance for training noise."""
ROUNDING = 0.005 + 0.005
REACH = 0.1
"""Half of the sampling interval of each side."""


def claim_of(root: Path, name: str = "sra-b2-400k") -> ClaimVerdict:
    return next(claim for claim in load_report(root).claims if claim.claim == name)


def run_with(finished: Finished, change: float, reach: float | None = REACH, rows: dict[str, str] = ROWS) -> Path:
    """A baseline at its printed FID, and a variant that lies `change` away from it."""
    values = {"baseline": 33.02, "sra": 33.02 + change}
    intervals = {name: {"fid": [value - reach, value + reach]} for name, value in values.items()} if reach else {}
    metrics = {name: {"fid": value} for name, value in values.items()}
    return finished(rows, metrics=metrics, intervals=intervals)[0]


NOISE = REACH * math.sqrt(2)
"""Of a difference of two sides."""
OWN = NOISE + DEVIATION
AGAINST = NOISE * math.sqrt(2) + DEVIATION + ROUNDING


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (PRINTED, "reproduced"),
        (PRINTED + 0.99 * AGAINST, "reproduced"),
        (-1.01 * OWN, "reproduced in sign, smaller"),
        (-0.99 * OWN, "not reproduced"),
        (0.99 * OWN, "not reproduced"),
        (1.01 * OWN, "reversed"),
        (PRINTED - 0.99 * AGAINST, "reproduced"),
        (PRINTED - 1.01 * AGAINST, "reproduced in sign, larger"),
    ],
)
def test_the_sign_then_the_size(finished: Finished, change: float, status: str) -> None:
    claim = claim_of(run_with(finished, change))
    assert claim.status == status
    assert claim.printed == "-3.92"
    assert claim.difference == pytest.approx(change)
    assert claim.interval == pytest.approx((change - OWN, change + OWN))
    assert claim.against == pytest.approx(change - PRINTED)
    assert claim.against_interval == pytest.approx((change - PRINTED - AGAINST, change - PRINTED + AGAINST))
    assert claim.ratio == pytest.approx(change / PRINTED)
    assert any("allowance for training noise: 1.8" in note for note in claim.notes)
    assert "baseline and sra also differ in train.flip" in claim.notes


def test_a_noisy_run_is_undecided(finished: Finished) -> None:
    assert claim_of(run_with(finished, PRINTED, reach=3.0)).status == "undecided"


def test_unknown_noise_is_said(finished: Finished) -> None:
    claim = claim_of(run_with(finished, PRINTED, reach=None))
    assert any("no sampling interval" in note for note in claim.notes)
    assert claim.interval == pytest.approx((PRINTED - DEVIATION, PRINTED + DEVIATION))


def test_several_seeds_measure_the_training_noise_themselves(finished: Finished) -> None:
    """By hand: three paired differences with a deviation of 0.1; t(0.975, 2) = 4.3027; the printed one is a fourth."""
    changes = [-3.0, -3.2, -3.1]
    metrics = {f"baseline-seed{i}": {"fid": 33.0 + 5 * i} for i in range(3)}
    metrics |= {f"sra-seed{i}": {"fid": 33.0 + 5 * i + change} for i, change in enumerate(changes)}
    overrides = [f"variants.{name}.train.seeds=[0, 1, 2]" for name in ROWS]
    claim = claim_of(finished(ROWS, metrics=metrics, overrides=overrides)[0])
    half, middle = 4.302652729911275 * 0.1 / math.sqrt(3), fmean(changes)
    assert claim.seeds == 3
    assert claim.interval == pytest.approx((middle - half, middle + half))
    wide = 2 * half + ROUNDING
    assert claim.against_interval == pytest.approx((middle - PRINTED - wide, middle - PRINTED + wide))
    assert claim.status == "reproduced in sign, smaller"
    assert not any("allowance" in note for note in claim.notes)


def test_other_seeds_are_not_paired(finished: Finished) -> None:
    metrics = {f"{name}-seed{seed}": {"fid": 30.0} for name, seeds in SEEDS.items() for seed in seeds}
    overrides = [f"variants.{name}.train.seeds={seeds}" for name, seeds in SEEDS.items()]
    claim = claim_of(finished(ROWS, metrics=metrics, overrides=overrides)[0])
    assert (claim.status, claim.difference) == ("not comparable", None)
    assert "no training seed in common" in claim.reasons[0]


def test_variants_are_found_by_their_settings_and_named_ones_first(finished: Finished) -> None:
    """RARE's rows are without flips: the unflipped baseline, and the variant that names the paper's row."""
    root, _ = finished({"baseline": "sit-b2-256-400k-rerun", "flipped": "sit-b2-256-400k", "sra": ROWS["sra"]})
    paper, rare = claim_of(root), claim_of(root, "sra-b2-400k-rare")
    assert (paper.baseline, paper.variant) == ("flipped", "sra")
    assert (rare.baseline, rare.variant) == ("baseline", "sra")
    assert rare.status != "not comparable"
    assert not any("also differ" in note for note in rare.notes)


def test_a_baseline_that_is_not_the_papers_is_named(finished: Finished) -> None:
    root, _ = finished({"baseline": "sit-b2-256-400k-rerun", "sra": ROWS["sra"]})
    claim = claim_of(root)
    assert claim.status == "not comparable"
    assert claim.reasons == ["baseline: train.flip: published yes, ours no"]
    assert claim.difference is not None


def test_another_protocol_is_not_comparable_and_another_network_no_pair(finished: Finished) -> None:
    changed = finished(ROWS, overrides=["variants.sra.sample.steps=50"], name="steps")[0]
    claim = claim_of(changed)
    assert (claim.status, claim.reasons) == ("not comparable", ["sra: sample.steps: published 250, ours 50"])
    xl = finished({"a": "sit-xl2-256-400k", "b": "sit-xl2-sra-256-4m"}, name="xl")[0]
    assert [claim.claim for claim in load_report(xl).claims] == [None]
    (unclaimed,) = load_report(xl).claims
    assert unclaimed.status == "no published value"


def test_a_side_that_was_not_scored_leaves_the_claim_open(finished: Finished) -> None:
    root, plan = finished(ROWS)
    shutil.rmtree(next(s for s in plan.stages if s.name == "score-adm-sra").directory)
    claim = claim_of(root)
    assert (claim.status, claim.reasons) == ("not finished", ["sra: score-adm-sra has not ended"])


def test_a_row_read_in_a_summary_carries_its_caution(finished: Finished) -> None:
    root, _ = finished({"baseline": "sit-b2-256-400k", "sra2": "sit-b2-sra2-256-400k"})
    assert claim_of(root, "sra2-b2-400k").status == "not comparable"
    assert claim_of(root, "sra2-b2-400k").caution is None


def test_every_format_shows_it_before_the_rows(finished: Finished) -> None:
    root = run_with(finished, -2.3)
    (line, _) = claim_lines(load_report(root))
    assert line.text == (
        "SRA at SiT-B/2, 400K steps (SRA paper, Table 1): −3.92 FID printed; here −2.3 [−4.2, −0.4]: reproduced "
        "(0.59 of the printed change)"
    )
    markdown, html, latex = (show_report(root, format) for format in ("md", "html", "latex"))
    assert line.text in markdown
    assert markdown.index(line.text) < markdown.index("## Verdicts")
    assert html.index("what a method changes") < html.index("<th>variant</th>")
    assert "SRA at SiT-B/2, 400K steps & $-$2.3" in latex
    assert line.text in terminal_summary(load_report(root))
    assert f"claim: {line.text}" in check(root)[0]
    first = json.loads(show_report(root, "json"))["claims"][0]
    assert (first["claim"], first["status"], first["printed"]) == ("sra-b2-400k", "reproduced", "-3.92")


def test_a_report_from_before_claims_is_read(finished: Finished) -> None:
    root = run_with(finished, PRINTED)
    show_report(root, "md")
    path = root / "report" / "report.json"
    document = json.loads(path.read_text())
    del document["claims"]
    path.write_text(json.dumps({**document, "schema": 3}))
    report = read_report(path)
    assert report is not None
    assert report.claims == []
