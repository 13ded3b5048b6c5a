"""Every single difference from a row's protocol makes it not comparable, and is named; harmless ones are notes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.manifest.schema import Run, load
from benchmark.published.comparability import (
    UNSETTLED,
    Compared,
    Evidence,
    blocking,
    compare,
    show,
)
from benchmark.published.registry import load_registry
from benchmark.published.schema import Registry, Row
from sra.config import CODEC_FILES, SIZES

Matching = Callable[[Row], tuple[Run, Evidence]]
Change = Callable[[Run, Evidence], tuple[Run, Evidence]]

REGISTRY = load_registry()
# Rows that can be matched at all; the others are the subject of a test of their own.
NEVER = {
    row.id
    for row in REGISTRY.rows
    if row.unsettled
    or REGISTRY.protocols[row.protocol].unknown
    or row.align_kind in REGISTRY.unsettled_alignments
    or (row.align_kind in REGISTRY.foreign_alignments and not row.checkpoint)
}
RUNNABLE = [row for row in REGISTRY.rows if row.id not in NEVER]
SAMPLED = [row for row in RUNNABLE if not REGISTRY.protocols[row.protocol].scores_only]


def change(part: str, **values: Any) -> Change:
    """Another value of some setting of one section."""

    def apply(run: Run, evidence: Evidence) -> tuple[Run, Evidence]:
        return dataclasses.replace(run, **{part: dataclasses.replace(getattr(run, part), **values)}), evidence

    return apply


def record(part: str, **values: Any) -> Change:
    """Another fact in one part of the score record."""

    def apply(run: Run, evidence: Evidence) -> tuple[Run, Evidence]:
        changed = getattr(evidence.record, part).model_copy(update=values)
        return run, dataclasses.replace(evidence, record=evidence.record.model_copy(update={part: changed}))

    return apply


def ema(**values: Any) -> Change:
    def apply(run: Run, evidence: Evidence) -> tuple[Run, Evidence]:
        assert run.train is not None
        train = dataclasses.replace(run.train, ema=dataclasses.replace(run.train.ema, **values))
        return dataclasses.replace(run, train=train), evidence

    return apply


def other_size(run: Run, evidence: Evidence) -> tuple[Run, Evidence]:
    return change("model", size=next(name for name in SIZES if name != run.model.size))(run, evidence)


def other_convention(run: Run, evidence: Evidence) -> tuple[Run, Evidence]:
    other = f"vanilla-{run.model.family}" if run.model.convention == "sra" else "sra"
    return change("model", convention=other)(run, evidence)


def longer(run: Run, evidence: Evidence) -> tuple[Run, Evidence]:
    train = run.train
    assert train is not None
    return change("train", steps=(train.steps or 0) * 2)(run, evidence)


def fewer_scored(run: Run, evidence: Evidence) -> tuple[Run, Evidence]:
    return record("samples", count=evidence.record.samples.count - 1)(run, evidence)


def no_alignment(run: Run, evidence: Evidence) -> tuple[Run, Evidence]:
    return dataclasses.replace(run, align=None), evidence


def checkpoint(name: str) -> Change:
    return lambda run, evidence: (dataclasses.replace(run, checkpoint=name), evidence)


def evidence(**values: Any) -> Change:
    return lambda run, found: (run, dataclasses.replace(found, **values))


def always(_row: Row, _run: Run) -> bool:
    return True


def sampled(row: Row, _run: Run) -> bool:
    return not REGISTRY.protocols[row.protocol].scores_only


def is_sde(row: Row, run: Run) -> bool:
    return sampled(row, run) and run.sample.sampler == "euler-maruyama"


def is_ode(row: Row, run: Run) -> bool:
    return sampled(row, run) and run.sample.sampler == "heun"


def of_fixed_steps(row: Row, run: Run) -> bool:
    return sampled(row, run) and not is_ode(row, run)


def sampled_in_tf32(row: Row, run: Run) -> bool:
    return sampled(row, run) and run.sample.precision == "tf32"


def of_known_path(row: Row, run: Run) -> bool:
    return sampled(row, run) and REGISTRY.training[row.training or ""].interpolant is not None


def guided(row: Row, run: Run) -> bool:
    return sampled(row, run) and run.sample.cfg > 1


def guided_sit(row: Row, run: Run) -> bool:
    return guided(row, run) and run.model.family == "sit"


def trained(_row: Row, run: Run) -> bool:
    return run.train is not None


def stated(name: str) -> Callable[[Row, Run], bool]:
    def applies(row: Row, run: Run) -> bool:
        return trained(row, run) and getattr(REGISTRY.training[row.training or ""], name) is not None

    return applies


def of_sra(_row: Row, run: Run) -> bool:
    return run.align is not None and run.align.kind == "sra"


def of_checkpoint(row: Row, run: Run) -> bool:
    return sampled(row, run) and run.checkpoint is not None


# field that must be named, change, rows that it applies to
DIFFERENCES: list[tuple[str, Change, Callable[[Row, Run], bool]]] = [
    ("sample.sampler", change("sample", sampler="heun"), is_sde),
    ("sample.sampler", change("sample", sampler="euler"), is_ode),
    ("sample.steps", change("sample", steps=251), of_fixed_steps),
    ("sample.steps", change("sample", steps=124), is_ode),
    ("sample.last_step", change("sample", last_step=0.05), is_sde),
    ("sample.cfg", change("sample", cfg=3.5), sampled),
    ("sample.guidance_interval", change("sample", guidance_interval=(0.1, 0.6)), guided_sit),
    ("sample.labels", change("sample", labels="balanced"), sampled),
    ("sample.images", change("sample", images=49_999), sampled),
    ("sample.weights", change("sample", weights="model"), sampled),
    ("sample.precision", change("sample", precision="bf16"), sampled_in_tf32),
    ("sample.precision", change("sample", precision="fp16"), sampled_in_tf32),
    ("sample.precision", evidence(sample_precision="fp16"), sampled_in_tf32),
    ("codec.path", change("codec", path="CompVis/another-vae"), sampled),
    ("codec.path", evidence(codec="embedded:digits"), sampled),
    ("codec.scale", change("codec", scale=1.0), sampled),
    ("codec.factor", change("codec", factor=4), sampled),
    ("codec.channels", change("codec", channels=16), sampled),
    ("model.size", other_size, sampled),
    ("model.patch", change("model", patch=8), sampled),
    ("model.resolution", change("model", resolution=128), sampled),
    ("model.classes", change("model", classes=10), sampled),
    ("model.time_scale", change("model", time_scale=1000.0), sampled),
    ("model.interpolant", change("model", interpolant="cosine"), of_known_path),
    ("model.convention", other_convention, of_checkpoint),
    ("checkpoint", checkpoint("/assets/another.pt"), of_checkpoint),
    ("train.steps", longer, trained),
    ("train.global_batch", change("train", global_batch=512), stated("global_batch")),
    ("train.lr", change("train", lr=2e-4), stated("lr")),
    ("train.betas", change("train", betas=(0.9, 0.95)), stated("betas")),
    ("train.eps", change("train", eps=1e-6), stated("eps")),
    ("train.weight_decay", change("train", weight_decay=0.01), stated("weight_decay")),
    ("train.warmup_steps", change("train", warmup_steps=1000), stated("warmup_steps")),
    ("train.clip", change("train", clip=2.0), stated("clip")),
    ("train.label_dropout", change("train", label_dropout=0.2), stated("label_dropout")),
    ("train.precision", change("train", precision="bf16"), stated("precision")),
    ("train.ema.decay", ema(decay=0.999), stated("ema_decay")),
    ("train.ema.schedule", ema(schedule="ramp"), stated("ema_schedule")),
    (
        "train.times",
        change("train", times="lognormal"),
        lambda row, run: stated("times")(row, run) and run.model.family == "sit",
    ),
    ("model.label_init_std", change("model", label_init_std=0.5), trained),
    ("training images", evidence(images=1797), trained),
    ("training classes", evidence(classes=10), trained),
    ("align.kind", no_alignment, lambda row, run: row.align is not None and trained(row, run)),
    ("align.blocks", change("align", blocks=(1, 2)), of_sra),
    ("align.distance", change("align", distance="l2"), of_sra),
    ("align.weight", change("align", weight=0.3), of_sra),
    ("align.weight_schedule", change("align", weight_schedule="public-code"), of_sra),
    ("scored images", fewer_scored, always),
    ("scored resolution", record("samples", shape=(32, 32, 3)), always),
    ("repeated images", record("samples", duplicates=7), always),
    ("evaluator graph", record("graph", name="embedded:digits"), always),
    ("reference batch", record("reference", path="/run/images"), always),
    ("reference statistics stored in the file", record("settings", stored_statistics=False), always),
    ("sample statistics", record("settings", trusted_sample_statistics=True), always),
    ("samples", record("samples", path="/run/other.npz"), lambda row, _run: row.samples is not None),
]


def fields(items: list[Compared]) -> set[str]:
    return {item.field for item in items}


def test_most_rows_can_be_run() -> None:
    assert len(RUNNABLE) > 2 * len(NEVER) > 0


@pytest.mark.parametrize("row", RUNNABLE, ids=lambda row: row.id)
def test_a_matching_run_is_comparable(registry: Registry, matching: Matching, row: Row) -> None:
    run, found = matching(row)
    items = compare(registry, row, run, found)
    assert not blocking(items)
    assert len(items) > 5


@pytest.mark.parametrize("row", RUNNABLE, ids=lambda row: row.id)
def test_each_single_difference_is_named(registry: Registry, matching: Matching, row: Row) -> None:
    """Every difference of the table that applies to the row blocks it, alone and by its name."""
    run, found = matching(row)
    applied = 0
    for field, make, applies in DIFFERENCES:
        if applies(row, run):
            items = compare(registry, row, *make(run, found))
            assert fields(blocking(items)) == {field}, field
            (item,) = blocking(items)
            assert show(item.published) in item.text()
            assert show(item.ours) in item.text()
            applied += 1
    assert applied >= 6


def test_the_table_of_differences_reaches_every_blocking_field(registry: Registry, matching: Matching) -> None:
    """A setting that is compared without a test of its difference would go unnoticed."""
    tested = {field for field, _, _ in DIFFERENCES}
    # Tested below, where they apply.
    tested |= {"sample.cfg_channels", "align.interval", "align.head", "train.flip", "model.family"}
    tested |= {"align.teacher", "align.separated", "codec precision", "pixel rounding"}
    tested |= {"align.block", "align.tau", "align.local_batch"}
    compared = set()
    for row in SAMPLED:
        items = compare(registry, row, *matching(row))
        compared |= {i.field for i in items if i.effect == "none" and i.field != "align.teacher_precision"}
    # Rounding of what is stored: a note by definition.
    assert compared - tested == {"data.latent_dtype"}


def test_guided_channels_flips_interval_and_head(registry: Registry, matching: Matching) -> None:
    for row in SAMPLED:
        run, found = matching(row)
        changes: list[tuple[str, Change]] = []
        if guided(row, run):
            changes.append(
                ("sample.cfg_channels", change("sample", cfg_channels="all" if run.sample.cfg_channels == 3 else 3))
            )
        if stated("flip")(row, run):
            assert run.train is not None
            changes.append(("train.flip", change("train", flip=not run.train.flip)))
        if run.align is not None and run.align.kind == "sra":
            interval = run.align.interval  # type: ignore[attr-defined]
            other = dataclasses.replace(interval, random=None, fixed=0.15)
            changes.append(("align.interval", change("align", interval=other)))
            changes.append(("align.head", change("align", head=not run.align.head)))  # type: ignore[attr-defined]
        if run.align is not None and run.align.kind == "dispersive":
            changes += [(f"align.{key}", change("align", **{key: 7})) for key in ("block", "tau", "local_batch")]
        for field, make in changes:
            assert fields(blocking(compare(registry, row, *make(run, found)))) == {field}


@pytest.mark.parametrize("name", sorted(NEVER))
def test_rows_with_unsettled_settings_are_never_comparable(registry: Registry, matching: Matching, name: str) -> None:
    row = registry.row(name)
    blocks = blocking(compare(registry, row, *matching(row)))
    assert blocks
    assert any(item.published == UNSETTLED or item.field == "align.kind" for item in blocks)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("sample.precision", change("sample", precision="fp32")),
        ("sample.seeding", change("sample", seeding="per-image")),
        ("train.precision", change("train", precision="tf32")),
        ("train.precision", change("train", precision="fp32")),
        ("data.latent_dtype", change("data", latent_dtype="float16")),
        ("align.teacher_precision", change("align", teacher_precision="fp32")),
        ("codec folder", evidence(codec="/cluster/models/sd-vae-ft-ema")),
    ],
)
def test_harmless_differences_are_notes(registry: Registry, matching: Matching, field: str, make: Change) -> None:
    row = registry.row("sit-b2-sra-256-400k")
    items = compare(registry, row, *make(*matching(row)))
    assert not blocking(items)
    assert next(item for item in items if item.field == field).effect == "harmless"


def test_settings_that_a_source_leaves_out_are_shown_and_not_compared(registry: Registry, matching: Matching) -> None:
    row = registry.row("dit-xl2-256-400k")
    run, found = matching(row)
    for clip in (0.5, 5.0):
        items = compare(registry, row, *change("train", clip=clip)(run, found))
        assert next(item for item in items if item.field == "train.clip").effect == "not stated"
        assert not blocking(items)


@pytest.mark.parametrize(
    ("field", "values"), [("codec precision", {"vae_precision": "fp32"}), ("pixel rounding", {"pixels": "round"})]
)
def test_another_arithmetic_of_pixels_is_a_difference(
    registry: Registry, matching: Matching, field: str, values: dict[str, str]
) -> None:
    """This suite has one way to decode, so it is the protocol that is changed."""
    row = registry.row("sit-b2-sra-256-400k")
    protocol = registry.protocols[row.protocol].model_copy(update=values)
    changed = registry.model_copy(update={"protocols": {row.protocol: protocol}})
    assert fields(blocking(compare(changed, row, *matching(row)))) == {field}


def test_finer_arithmetic_than_bf16_is_a_note(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-xl2-selfflow-256-4m")
    items = compare(registry, row, *change("sample", precision="tf32")(*matching(row)))
    assert not blocking(items)
    notes = {item.field for item in items if item.why == "more exact than published"}
    assert notes == {"sample.precision", "codec precision"}


def test_an_adaptive_sampler_has_no_steps_to_compare(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-xl2-256-400k-ode")
    run, found = matching(row)
    sample = dataclasses.replace(run.sample, sampler="dopri5", steps=2)
    items = compare(registry, row, dataclasses.replace(run, sample=sample), found)
    assert not blocking(items)
    assert "sample.steps" not in fields(items)


def test_a_rounded_length_is_a_note(registry: Registry, matching: Matching) -> None:
    """4M steps and 800 epochs, which are 4,003,200, are the same statement."""
    row = registry.row("sit-xl2-sra-256-4m")
    items = compare(registry, row, *change("train", steps=None, epochs=800)(*matching(row)))
    assert not blocking(items)
    assert next(item for item in items if item.field == "train.steps").effect == "harmless"


def test_a_checkpoint_stands_for_its_rows_training_only(registry: Registry, matching: Matching) -> None:
    published = registry.row("sit-xl2-sra-256-800ep-cfg")
    run, found = matching(published)
    assert run.train is None
    items = compare(registry, published, run, found)
    assert "train.lr" not in fields(items)
    assert next(i for i in items if i.field == "checkpoint").published == published.checkpoint
    without = registry.row("sit-xl2-sra-256-400ep-cfg")
    blocks = blocking(compare(registry, without, run, found))
    assert fields(blocks) == {"checkpoint"}


def test_training_where_a_checkpoint_is_published_compares_its_settings(registry: Registry, matching: Matching) -> None:
    """The 800-epoch row may be trained anew: then every training setting counts."""
    short, long = registry.row("sit-xl2-sra-256-400ep-cfg"), registry.row("sit-xl2-sra-256-800ep-cfg")
    run, found = matching(short)
    assert fields(blocking(compare(registry, long, run, found))) == {"train.steps"}
    doubled = change("train", steps=None, epochs=long.epochs)(run, found)
    assert not blocking(compare(registry, long, *doubled))


def test_hashes_are_compared_where_both_are_known(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-b2-sra-256-400k")
    run, found = matching(row)
    graph = registry.evaluator.graph
    same = dataclasses.replace(found, pins={graph: found.record.graph.sha256})
    items = compare(registry, row, run, same)
    assert next(i for i in items if i.field == "evaluator graph sha256").effect == "none"
    other = dataclasses.replace(found, pins={graph: "f" * 64})
    assert fields(blocking(compare(registry, row, run, other))) == {"evaluator graph sha256"}
    unknown = next(i for i in compare(registry, row, run, found) if i.field == "evaluator graph sha256")
    assert unknown.effect == "harmless"
    assert "no hash is pinned" in unknown.why


def test_a_given_file_says_nothing_of_how_it_was_made(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-b2-sra-256-400k")
    run, found = matching(row)
    given = dataclasses.replace(run, train=None, align=None, samples="/home/me/samples.npz")
    (block,) = blocking(compare(registry, row, given, found))
    assert block.field == "samples"
    assert "not known" in block.text()


MANIFESTS = sorted((Path(__file__).parents[2] / "manifests").glob("*.yaml"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_shipped_manifests_lead_to_comparable_rows(registry: Registry, matching: Matching, path: Path) -> None:
    """Run as they are, on the assets that they name, every row can be held against the one it claims; or never can."""
    for run in load(path).runs:
        if run.published is None:
            continue
        row = registry.row(run.published)
        blocks = blocking(compare(registry, row, run, matching(row)[1]))
        assert bool(blocks) == (row.id in NEVER), [block.text() for block in blocks]


def test_hashes_of_assets_are_those_of_the_session(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-xl2-sra-256-800ep-cfg")
    run, found = matching(row)
    assert row.checkpoint is not None
    names = (row.checkpoint, registry.evaluator.references[row.resolution], "sd-vae-ft-ema/" + CODEC_FILES[1])
    for name in names:
        same = dataclasses.replace(found, pins={name: "a"}, files={name: "a"})
        assert not blocking(compare(registry, row, run, same))
        other = dataclasses.replace(found, pins={name: "a"}, files={name: "b"})
        (block,) = blocking(compare(registry, row, run, other))
        assert block.field.endswith("sha256")


def test_published_alignment_is_the_papers() -> None:
    """SRA paper, section 4: blocks by size, smooth-L1, weight 0.2, interval up to 0.2, with a head."""
    base = REGISTRY.row("sit-b2-sra-256-400k").alignment()
    assert (base.blocks, base.distance, base.weight, base.head) == ((3, 8), "smooth-l1", 0.2, True)  # type: ignore[attr-defined]
    assert base.interval.random == 0.2  # type: ignore[attr-defined]
    assert base.weight_schedule == "constant"  # type: ignore[attr-defined]
    assert REGISTRY.row("sit-xl2-sra-256-4m").alignment().blocks == (8, 20)  # type: ignore[attr-defined]
    ablated = REGISTRY.row("sit-b2-sra-k0").alignment()
    assert ablated == dataclasses.replace(base, interval=ablated.interval)  # type: ignore[attr-defined]
