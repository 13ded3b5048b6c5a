"""The registry: what it holds, what is refused, and that every number can be traced to a page."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from benchmark.published import registry as published
from benchmark.published.listing import list_published
from benchmark.published.registry import load_registry
from benchmark.published.schema import METRICS, Registry, RegistryError, Spread

PLAIN = yaml.load(published.REGISTRY.read_text(), yaml.BaseLoader)


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[Callable[[str], str]], str]:
    """The one line with which a changed copy of the registry is refused."""

    def refuse(change: Callable[[str], str]) -> str:
        text = published.REGISTRY.read_text()
        changed = change(text)
        assert changed != text
        path = tmp_path / "published.yaml"
        path.write_text(changed)
        with pytest.raises(RegistryError) as caught:
            load_registry(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        (', source: "DiT paper, Table 4"', "", ["row 'dit-s2-256-400k'", "source"]),
        ('source: "DiT paper, Table 4"', 'source: " "', ["row 'dit-s2-256-400k'", "source"]),
        ("protocol: ddpm250_mse, ", "", ["row 'dit-s2-256-400k'", "protocol"]),
        ("protocol: ddpm250_mse, ", "protocol: ddpm251_mse, ", ["ddpm251_mse", "did you mean 'ddpm250_mse'"]),
        ("68.40, null, null, null, null", "68.40, null, null", ["metrics", "got 3", "recall"]),
        ("68.40, null", "about 68, null", ["metrics", "decimal"]),
        ("kind: paper", "kind: rumour", ["kind", "'rumour'"]),
        ("papers: [dit]", "papers: [ditt]", ["ditt", "did you mean 'dit'"]),
        ("papers: [dit]", "papers: []", ["papers"]),
        ("training: dit", "training: dits", ["dits", "did you mean"]),
        ("id: dit-b2-256-400k", "id: dit-s2-256-400k", ["id: "]),
        ("steps: 400000, resolution: 256", "resolution: 256", ["steps and epochs"]),
        ("model: DiT-S/2", "model: DiT-S/2, colour: red", ["colour"]),
        (", convention: vanilla-dit", "", ["checkpoint, convention: "]),
        ("changed: 2026-11-24", "changed: lately", ["changed", "date"]),
        (", align: sra,", ", align: srra,", ["align: ", "'srra'", "did you mean 'sra'"]),
        (
            "{kind: sra, weight: 0.1}",
            "{kind: sra, wieght: 0.1}",
            ["row 'sit-b2-sra-weight0.1': align", "did you mean 'weight'"],
        ),
        ("{kind: sra, weight: 0.1}", "{kind: sra, weight: much}", ["align.weight: ", "'much'"]),
        ("blocks: [2, 8]", "blocks: [8, 2]", ["align.blocks: ", "[8, 2]"]),
        ("blocks: [2, 8]", "blocks: [2, 13]", ["align.blocks: ", "[2, 13]"]),
        ("distance: cosine,", "distance: cosinus,", ["align.distance", "'cosinus'"]),
        ("{kind: sra2, block: 6}", "{kind: sra2, block: 13}", ["align.block: ", "13"]),
        ("checkpoint: DiT-XL-2-256x256.pt", "checkpoint: DiT-XL-2-256.pt", ["checkpoint: ", "did you mean"]),
    ],
)
def test_a_bad_row_is_refused_with_its_line(refusal: Callable[..., str], old: str, new: str, parts: list[str]) -> None:
    text = refusal(lambda content: content.replace(old, new, 1))
    lines = published.REGISTRY.read_text().splitlines()
    for part in parts:
        assert part in text
    number = int(re.search(r"line (\d+)", text)[1])  # type: ignore[index]
    assert lines[number - 1].lstrip().startswith("- {id:")


def test_unknown_settings_of_a_protocol_and_broken_inheritance(refusal: Callable[..., str]) -> None:
    assert "stepps" in refusal(lambda t: t.replace("steps: 250, last_step", "stepps: 250, last_step", 1))
    assert "'sde25'" in refusal(lambda t: t.replace("{extends: sde250, cfg: 1.8", "{extends: sde25, cfg: 1.8", 1))
    assert "extends itself" in refusal(
        lambda t: t.replace("sde250: {family: sit", "sde250: {extends: sde250_cfg1.5", 1)
    )
    assert "'ddpm250'" in refusal(lambda t: t.replace("sampler: ddpm, steps: 250", "sampler: ddpm, steps: null", 1))
    assert "YAML" in refusal(lambda t: t.replace("rows:", "rows: [", 1))


CLAIM = "without: sit-b2-256-400k, with: sit-b2-sra-256-400k, metric: fid"


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        (CLAIM, CLAIM.replace("with: sit-b2-sra-256-400k", "with: sit-b2-256-400k"), ["'sra-b2-400k'", "with: "]),
        (CLAIM, CLAIM.replace("400k, metric", "400k-fid10k, metric"), ["'sra-b2-400k'", "with: ", "images"]),
        (CLAIM, CLAIM.replace("metric: fid", "metric: fidd"), ["claim 'sra-b2-400k'", "metric", "'fidd'"]),
        ("id: sra2-b2-400k", "id: sra-b2-400k", ["claim 'sra-b2-400k'", "id: "]),
        ("{kind: sra, distance:", "{kin: sra, distance:", ["row 'sit-b2-sra", "align"]),
        ("model: SiT-B/2, align: sra,", "model: DiT-B/2, align: sra,", ["protocol: ", "'dit'", "'sde250'"]),
        ("sampler: [dopri5, heun]", "sampler: [dopri5, ddpm]", ["protocol 'heun250'", "sampler", "'ddpm'"]),
        ("sampler: [dopri5, heun]", "sampler: []", ["protocol 'heun250'", "sampler"]),
        ("allowance: {fid: 0.1}", "allowance: {fib: 0.1}", ["heun250.allowance", "'fib'"]),
        ("allowance: {fid: 0.1}", "allowance: {fid: -0.1}", ["heun250.allowance.fid"]),
        ("[33.02, 35.15, 36.80]", "[33.02]", ["spread 'SiT-B/2'", "values"]),
        ("align: sra, steps: 400000, metric", "align: sar, steps: 400000, metric", ["spread of SiT-B/2", "'sar'"]),
        ('curves only", papers: [sra]', 'curves only", papers: [sar]', ["unprinted", "papers", "'sar'"]),
        ("rows:\n", "rows: 5\nother:\n", ["rows: "]),
    ],
)
def test_what_no_verdict_could_use_is_refused(
    refusal: Callable[..., str], old: str, new: str, parts: list[str]
) -> None:
    text = refusal(lambda content: content.replace(old, new, 1))
    for part in parts:
        assert part in text


def test_unknown_names_of_claims_and_samplers(refusal: Callable[..., str]) -> None:
    text = refusal(lambda t: t.replace("without: sit-b2-256-400k, with", "without: sit-b2-256-40k, with", 1))
    assert "claim 'sra-b2-400k': without: " in text
    assert "did you mean 'sit-b2-256-400k'" in text
    # Printed by one of the two only.
    assert "metric of sit-b2-sra2-256-400k" in refusal(
        lambda t: t.replace("with: sit-b2-sra2-256-400k, metric: fid", "with: sit-b2-sra2-256-400k, metric: is", 1)
    )
    assert "protocol 'heun250': sampler: " in refusal(lambda t: t.replace("[dopri5, heun]", "[dopri, heun]", 1))
    assert "protocol 'sde250': sampler: " in refusal(lambda t: t.replace("sampler: euler-maruyama", "sampler: em", 1))


def test_printed_digits_survive(registry: Registry) -> None:
    """Every number is kept with the digits of the file: 29.10 is not 29.1."""
    for plain, row in zip(PLAIN["rows"], registry.rows, strict=True):
        assert ["null" if m is None else str(m) for m in row.metrics] == plain["metrics"]
        assert dict(zip(METRICS, row.metrics, strict=True)).items() >= row.printed.items()
    assert any(str(value).endswith("0") for row in registry.rows for value in row.printed.values())


def test_protocols_inherit(registry: Registry) -> None:
    base, guided = registry.protocols["sde250"], registry.protocols["sde250_cfg1.8i"]
    assert (guided.steps, guided.vae, guided.last_step) == (base.steps, base.vae, base.last_step)
    assert guided.cfg > base.cfg
    assert registry.protocols["heun250_cfg1.5"].samplers == registry.protocols["heun250"].samplers == ("dopri5", "heun")


def test_epochs_drop_the_incomplete_batch(registry: Registry) -> None:
    row = registry.row("sit-xl2-sra-256-800ep-cfg")
    assert registry.steps(row) == row.epochs * 5004  # type: ignore[operator]


def test_every_number_is_two_clicks_from_its_page(registry: Registry) -> None:
    """Source and paper stand with the row, the paper's address and BibTeX with the paper; one name has no address."""
    for row in registry.rows:
        papers = [registry.papers[key] for key in row.papers]
        assert all(p.url or p.title == "RARE" for p in papers)
        for key in row.papers:
            entry = registry.papers[key].bibtex(key)
            assert entry is None or entry.startswith(("@article{", "@inproceedings{"))
            assert entry is None or registry.papers[key].arxiv in entry  # type: ignore[operator]
    assert all(spread.url.startswith("https://") for spread in registry.spread)


@pytest.mark.parametrize(
    ("values", "deviation"),
    [(("1", "2"), 0.5), (("1", "2", "9"), 1.0), (("1", "2", "3", "4", "100"), 1.0), (("5", "5"), 0.0)],
)
def test_spread_is_robust(values: tuple[str, ...], deviation: float) -> None:
    """By hand, in median absolute deviations; one outlier among three counts for nothing."""
    numbers = tuple(map(Decimal, values))
    entry = Spread(what="training", model="SiT-B/2", metric="fid", values=numbers, source="s", url="u")
    assert entry.deviation == pytest.approx(1.4826 * deviation)


def test_every_spread_is_about_a_model_of_the_rows(registry: Registry) -> None:
    for entry in registry.spread:
        assert any(entry.of(row.model) for row in registry.rows) or entry.model == "DiT-B/4"
    assert not any(Decimal("34.7") in entry.values for entry in registry.spread)


def test_claims_are_the_printed_differences(registry: Registry) -> None:
    changes = {claim.id: registry.printed_change(claim) for claim in registry.claims}
    assert changes["sra-b2-400k"] == Decimal("-3.92")
    assert len(changes) == 9


def test_every_row_has_a_date_of_the_change_log(registry: Registry) -> None:
    dates = [change.date for change in registry.changes]
    assert dates == sorted(dates, reverse=True)
    assert {row.changed for row in registry.rows} <= set(dates)


def test_listing_shows_source_protocol_and_everything_else(registry: Registry) -> None:
    text = list_published("SiT-XL/2")
    row = registry.row("sit-xl2-256-7m-cfg1.5")
    assert row.source in text
    assert f"{row.protocol}: family sit, sampler euler-maruyama, steps 250" in text
    assert str(row.printed["fid"]) in text
    assert row.also_printed[0].source in text
    assert "https://arxiv.org/abs/2401.08740" in text
    assert "never comparable" in text
    assert "DiT-XL/2" not in text.split("spread:")[0].split("papers:")[0]


def test_listing_as_json(registry: Registry) -> None:
    document = json.loads(list_published(None, "json"))
    assert [row["id"] for row in document["rows"]] == [row.id for row in registry.rows]
    for row in document["rows"]:
        assert row["source"]
        assert row["settings"]["images"]
        assert {name: str(value) for name, value in registry.row(row["id"]).printed.items()} == row["printed"]
    never = {row["id"] for row in document["rows"] if row["not_comparable"]}
    assert {r.id for r in registry.rows if r.unsettled} <= never
    assert {r.id for r in registry.rows if r.align_kind in ("sra2", "repa")} <= never
    assert not {r.id for r in registry.rows if r.protocol.startswith("heun250")} & never
    assert document["claims"][0]["difference"] == "-3.92"
    assert len(never) < len(registry.rows) / 2
    ablated = next(row for row in document["rows"] if row["id"] == "sit-b2-sra-weight0.4")
    assert ablated["align"]["weight"] == 0.4


def test_listing_of_an_unknown_model() -> None:
    with pytest.raises(RegistryError, match=r"did you mean 'SiT-XL/2'"):
        list_published("SiT-XXL/2")
