"""Bundles: what is inside, what is re-derived from it, and that no change to it goes unseen."""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.plan.run_directory import RunDirectory
from benchmark.report.bundle import CONTENTS, make_bundle, statistics_name
from benchmark.report.verify import verify_bundle
from evaluator import fid, inception_score, precision_recall
from evaluator.features.cache import FeatureCache
from evaluator.features.feature_files import CLASSIFIER, write_weights
from evaluator.features.feature_files import cache_folder as kept_by
from evaluator.images.image_set import ImageSet, open_images
from evaluator.metrics.frechet import Gaussian, frechet_distance
from sra.common.errors import UserError
from sra.common.files import read_json, write_json

Finished = Callable[..., tuple[Path, Any]]
ROWS = {"baseline": "sit-b2-256-400k", "sra": "sit-b2-sra-256-400k"}


@pytest.fixture
def run(finished: Finished) -> Path:
    return finished(ROWS)[0]


def rewritten(bundle: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive with other members."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    other = bundle.with_name("other.zip")
    with zipfile.ZipFile(other, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return other


def rehashed(members: dict[str, bytes]) -> None:
    """Make the list of contents fit again, as somebody would who changes a number."""
    contents = json.loads(members[CONTENTS])
    contents["files"] = {n: hashlib.sha256(c).hexdigest() for n, c in members.items() if n != CONTENTS}
    members[CONTENTS] = json.dumps(contents).encode()


def scores_of(members: dict[str, bytes], variant: str) -> str:
    return next(name for name in members if f"score-adm-{variant}-" in name and name.endswith("scores.json"))


def test_a_bundle_of_a_run_verifies_anywhere(run: Path, tmp_path: Path) -> None:
    text, code = make_bundle(run, tmp_path / "b.zip", samples=False)
    assert code == 3
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        names = archive.namelist()
    assert {CONTENTS, "run/plan.json", "run/provenance.json", "run/report/report.json"} <= set(names)
    assert text.count("without the feature statistics of /") == 3
    assert text.count(": not there\n") == 3
    for path in run.rglob("*"):
        if path.is_file():
            path.unlink()
    text, code = verify_bundle(tmp_path / "b.zip")
    assert code == 3, text
    assert "ok: sra: reproduced" in text
    assert "not re-derived: sra: FID and sFID" in text
    assert "not re-derived: the samples" in text


def test_another_claim_is_found_out(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        report = json.loads(members["run/report/report.json"])
        report["claims"][0]["difference"] -= 1
        members["run/report/report.json"] = json.dumps(report).encode()
        rehashed(members)

    text, code = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert "WRONG: claims of the report" in text
    assert code == 1


def test_the_default_place_is_beside_the_run(run: Path) -> None:
    make_bundle(run, None, samples=False)
    assert verify_bundle(run.with_suffix(".zip"))[1] == 3


def test_a_changed_file_is_found_by_its_hash(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        name = scores_of(members, "sra")
        members[name] = members[name].replace(b'"count": 50000', b'"count": 50001')

    text, code = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert code == 1
    assert re.search(r"WRONG: run/stages/score-adm-sra-\w+/scores.json: .*hash", text)


@pytest.mark.parametrize("member", ["missing", "added"])
def test_a_missing_or_added_file_is_found(run: Path, tmp_path: Path, member: str) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        if member == "missing":
            del members[scores_of(members, "sra")]
        else:
            members["run/stages/extra.txt"] = b"x"

    text, code = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert code == 1
    name = "score-adm-sra-" if member == "missing" else "extra.txt"
    assert re.search(rf"WRONG: run/stages/{name}.*listed", text)


def test_a_score_changed_with_its_hash_contradicts_the_report(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        name = scores_of(members, "sra")
        record = json.loads(members[name])
        record["metrics"]["fid"] -= 1
        members[name] = json.dumps(record).encode()
        rehashed(members)

    text, code = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert code == 1
    assert "WRONG: sra: metrics, verdict, curve" in text


def test_a_verdict_changed_in_the_report_is_re_derived(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        name = "run/report/report.json"
        members[name] = members[name].replace(b'"status": "reproduced"', b'"status": "better"')
        rehashed(members)

    assert verify_bundle(rewritten(tmp_path / "b.zip", change))[1] == 1


def test_without_its_plan_nothing_is_proved(run: Path, tmp_path: Path) -> None:
    """A report alone would agree with itself."""
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        del members["run/plan.json"]
        rehashed(members)

    text, code = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert code == 1
    assert "WRONG: run/plan.json: missing" in text


def test_a_row_added_to_the_report_is_found(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        report = json.loads(members["run/report/report.json"])
        report["rows"].append({**report["rows"][0], "variant": "better"})
        members["run/report/report.json"] = json.dumps(report).encode()
        rehashed(members)

    text, code = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert code == 1
    assert "WRONG: better: " in text


def test_the_printed_digest_covers_every_file(run: Path, tmp_path: Path) -> None:
    digest = make_bundle(run, tmp_path / "b.zip", samples=False)[0].splitlines()[-1].split()[-1]
    assert digest in verify_bundle(tmp_path / "b.zip")[0]

    def change(members: dict[str, bytes]) -> None:
        name = next(n for n in members if n.endswith("log.jsonl"))
        members[name] += b"\n"
        rehashed(members)

    assert digest not in verify_bundle(rewritten(tmp_path / "b.zip", change))[0]


def test_a_path_that_leaves_the_archive_is_refused(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        members["../evil.txt"] = b"x"
        rehashed(members)

    with pytest.raises(UserError, match=r"evil\.txt"):
        verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert not (tmp_path / "evil.txt").exists()


def test_a_comparison_changed_in_the_report_is_found(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        report = json.loads(members["run/report/report.json"])
        report["comparisons"][0]["metrics"][0]["difference"] -= 1
        members["run/report/report.json"] = json.dumps(report).encode()
        rehashed(members)

    text, code = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert code == 1
    assert "WRONG: comparisons of the report" in text


def test_a_bundle_without_rows_proves_nothing(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        for name, keys in (
            ("plan.json", ("runs", "stages")),
            ("report/report.json", ("rows", "claims", "comparisons")),
        ):
            document = json.loads(members[f"run/{name}"]) | {key: [] for key in keys}
            members[f"run/{name}"] = json.dumps(document).encode()
        rehashed(members)

    text, code = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert code == 3, text


@pytest.mark.parametrize("content", [b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"b\.zip: expected (a whole \.zip file|an archive made by sra-bench bundle)"):
        verify_bundle(tmp_path / "b.zip")
    with pytest.raises(UserError, match=r"none\.zip: not found"):
        verify_bundle(tmp_path / "none.zip")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a readable plan\.json"):
        make_bundle(tmp_path, None, samples=False)


# -- statistics -----------------------------------------------------------------------------------------------------


def gaussians(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    parts = {}
    for suffix, width in (("", 6), ("_s", 4)):
        root = random.normal(size=(width, width))
        parts[f"mu{suffix}"], parts[f"sigma{suffix}"] = random.normal(size=width), root @ root.T
    return parts


def with_statistics(run: Path, bundle: Path, wrong: float = 0.0) -> Path:
    """The bundle of a run whose FID is that of some statistics, and these inside."""
    sides = {"samples": gaussians(1), "reference": gaussians(2)}
    values = {}
    for name, suffix in (("fid", ""), ("sfid", "_s")):
        pair = [Gaussian(side[f"mu{suffix}"], side[f"sigma{suffix}"]) for side in sides.values()]
        values[name] = frechet_distance(*pair)
    graph, hashes = "9" * 64, {"samples": "a" * 64, "reference": "b" * 64}
    for path in run.glob("stages/score-adm-*/scores.json"):
        record = read_json(path) or {}
        record["metrics"] |= {**values, "fid": values["fid"] + wrong}
        record["graph"]["sha256"] = graph
        for side, digest in hashes.items():
            record[side]["sha256"] = digest
        write_json(path, record)
    make_bundle(run, bundle, samples=False)

    def change(members: dict[str, bytes]) -> None:
        for side, digest in hashes.items():
            path = bundle.with_name(f"{side}.npz")
            np.savez(path, **sides[side])  # type: ignore[arg-type]
            members[statistics_name(digest, graph)] = path.read_bytes()
        rehashed(members)

    return rewritten(bundle, change)


def test_fid_is_made_again_from_statistics(run: Path, tmp_path: Path) -> None:
    text, code = verify_bundle(with_statistics(run, tmp_path / "b.zip"))
    assert code == 0, text
    assert text.count("from feature statistics") == 4
    assert "not re-derived: sra: IS, precision, recall" in text


def test_without_the_statistics_of_one_row_its_score_is_not_proved(run: Path, tmp_path: Path) -> None:
    """Whoever forges one row takes its proofs out; those of the other row prove nothing for it."""
    bundle = with_statistics(run, tmp_path / "b.zip")

    def change(members: dict[str, bytes]) -> None:
        name = scores_of(members, "sra")
        record = json.loads(members[name])
        record["samples"]["sha256"] = "c" * 64
        members[name] = json.dumps(record).encode()
        rehashed(members)

    text, code = verify_bundle(rewritten(bundle, change))
    assert code == 3, text
    assert "ok: baseline: fid" in text
    assert "not re-derived: sra: FID and sFID" in text


def test_a_fid_that_its_statistics_do_not_give_is_wrong(run: Path, tmp_path: Path) -> None:
    text, code = verify_bundle(with_statistics(run, tmp_path / "b.zip", wrong=0.01))
    assert code == 1
    assert "WRONG: sra: fid" in text


# -- features -------------------------------------------------------------------------------------------------------

COUNT, WIDTHS = 40, (6, 3)


def images_in_cache(run: Path, folder: Path, graph: Path) -> tuple[dict[str, ImageSet], dict[str, float]]:
    """Both image sets, their features and the classifier in the run's cache; and the metrics of these features."""
    random = np.random.default_rng(0)
    matrix = random.normal(size=(48, sum(WIDTHS))).astype(np.float32) / 50
    classifier = random.normal(size=(WIDTHS[0], 4)).astype(np.float32)
    cache = FeatureCache(kept_by(run / "cache", str(graph)))
    images, pools, spatial = {}, {}, {}
    for side in ("samples", "reference"):
        np.savez(folder / f"{side}.npz", arr_0=random.integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8))
        images[side] = open_images(folder / f"{side}.npz")
        found = cache.features(images[side], lambda x: x.reshape(len(x), -1).astype(np.float32) @ matrix, WIDTHS)
        pools[side], spatial[side] = found.pool[0:COUNT], found.spatial[0:COUNT]
    write_weights(classifier, cache.folder / CLASSIFIER)
    metrics = {"fid": fid(**pools), "sfid": fid(**spatial), "is": inception_score(pools["samples"] @ classifier)}
    for suffix, half in (("", True), ("_exact", False)):
        precision, recall = precision_recall(pools["samples"], pools["reference"], half=half)
        metrics |= {f"precision{suffix}": precision, f"recall{suffix}": recall}
    return images, metrics


def with_features(run: Path, folder: Path, wrong: str = "") -> Path:
    """A run whose cache has the features of its images, and whose scores are theirs, but for one that is wrong."""
    graph = folder / "graph.pb"
    graph.write_bytes(b"a graph")
    images, metrics = images_in_cache(run, folder, graph)
    metrics |= {wrong: metrics[wrong] + 0.2} if wrong else {}
    plan = read_json(run / "plan.json") or {}
    for stage in plan["stages"]:
        path = run / "stages" / stage["directory"] / "scores.json"
        if not path.is_file():
            continue
        stage["inputs"]["samples"] = str(images["samples"].path)
        stage["job"] |= {"graph": str(graph), "reference": str(images["reference"].path)}
        record = read_json(path) or {}
        record["metrics"] |= metrics
        record["graph"]["sha256"] = hashlib.sha256(b"a graph").hexdigest()
        record["settings"]["widths"] |= dict(zip(("pool", "spatial"), WIDTHS, strict=True))
        for side, found in images.items():
            record[side]["sha256"] = found.sha256()
        write_json(path, record)
    write_json(run / "plan.json", RunDirectory(run).stored(plan))
    return run


def test_every_metric_is_made_again_from_features_of_a_moved_run(run: Path, tmp_path: Path) -> None:
    moved = with_features(run, run).rename(tmp_path / "moved")
    text, code = make_bundle(moved, tmp_path / "b.zip", samples=False, features=True)
    assert code == 0
    assert "without" not in text
    assert "MB of them features" in text
    shutil.rmtree(moved)
    text, code = verify_bundle(tmp_path / "b.zip")
    assert code == 0, text
    for row in ROWS:
        for metric in ("fid", "sfid", "is", "precision", "recall", "precision_exact", "recall_exact"):
            assert f"ok: {row}: {metric} " in text
    assert "not re-derived: sra" not in text


@pytest.mark.parametrize("metric", ["is", "recall"])
def test_a_metric_that_its_features_do_not_give_is_wrong(run: Path, tmp_path: Path, metric: str) -> None:
    make_bundle(with_features(run, tmp_path, metric), tmp_path / "b.zip", samples=False, features=True)
    text, code = verify_bundle(tmp_path / "b.zip")
    assert code == 1
    assert f"WRONG: sra: {metric} " in text
    assert "ok: sra: precision " in text


def test_features_are_inside_where_they_are_asked_for_and_known(run: Path, tmp_path: Path) -> None:
    make_bundle(with_features(run, tmp_path), tmp_path / "b.zip", samples=False)
    assert "not re-derived: sra: IS, precision, recall" in verify_bundle(tmp_path / "b.zip")[0]
    for path in (run / "cache").rglob("*.npy"):
        path.unlink()
    text, code = make_bundle(run, tmp_path / "b.zip", samples=False, features=True)
    assert code == 3
    assert text.count("without the features of /") == 2
    assert text.count("its features are not in the cache") == 4
    assert f"without the classifier of {tmp_path / 'graph.pb'}: " in text
