"""Bundles: what is inside, what is re-derived from it, and that no change to it goes unseen."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.bundle import CONTENTS, make_bundle, statistics_name
from benchmark.store import read_json, write_json
from benchmark.verify import verify_bundle
from evaluator.metrics import Gaussian, frechet_distance
from sra.errors import UserError

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
    text = make_bundle(run, tmp_path / "b.zip", samples=False)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        names = archive.namelist()
    assert {CONTENTS, "run/plan.json", "run/provenance.json", "run/report/report.json"} <= set(names)
    assert text.count("without the feature statistics of /") == 3
    for path in run.rglob("*"):
        if path.is_file():
            path.unlink()
    text, sound = verify_bundle(tmp_path / "b.zip")
    assert sound, text
    assert "ok: sra: reproduced, from its scores and settings" in text
    assert "not re-derived: sra: FID and sFID" in text
    assert "not re-derived: the samples are not inside" in text


def test_the_default_place_is_beside_the_run(run: Path) -> None:
    make_bundle(run, None, samples=False)
    assert verify_bundle(run.with_suffix(".zip"))[1]


def test_a_changed_file_is_found_by_its_hash(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        name = scores_of(members, "sra")
        members[name] = members[name].replace(b'"count": 50000', b'"count": 50001')

    text, sound = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert not sound
    assert "its content is not that of its hash" in text


@pytest.mark.parametrize("member", ["missing", "added"])
def test_a_missing_or_added_file_is_found(run: Path, tmp_path: Path, member: str) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        if member == "missing":
            del members[scores_of(members, "sra")]
        else:
            members["run/stages/extra.txt"] = b"x"

    text, sound = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert not sound
    assert ("listed, and not in" if member == "missing" else "and not listed") in text


def test_a_score_changed_with_its_hash_contradicts_the_report(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        name = scores_of(members, "sra")
        record = json.loads(members[name])
        record["metrics"]["fid"] -= 1
        members[name] = json.dumps(record).encode()
        rehashed(members)

    text, sound = verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert not sound
    assert "WRONG: sra: the report's metrics, verdict, curve are not those of the files beside it" in text


def test_a_verdict_changed_in_the_report_is_re_derived(run: Path, tmp_path: Path) -> None:
    make_bundle(run, tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        name = "run/report/report.json"
        members[name] = members[name].replace(b'"status": "reproduced"', b'"status": "better"')
        rehashed(members)

    assert not verify_bundle(rewritten(tmp_path / "b.zip", change))[1]


def test_the_printed_digest_covers_every_file(run: Path, tmp_path: Path) -> None:
    digest = make_bundle(run, tmp_path / "b.zip", samples=False).splitlines()[-1].split()[-1]
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

    with pytest.raises(UserError, match="leaves the archive"):
        verify_bundle(rewritten(tmp_path / "b.zip", change))
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize("content", [b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(UserError, match="not an archive made by sra-bench bundle"):
        verify_bundle(tmp_path / "b.zip")
    with pytest.raises(UserError, match="no such file"):
        verify_bundle(tmp_path / "none.zip")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no plan\.json"):
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
    text, sound = verify_bundle(with_statistics(run, tmp_path / "b.zip"))
    assert sound, text
    assert text.count("from feature statistics") == 4
    assert "IS, precision, recall: features are not inside" in text


def test_a_fid_that_its_statistics_do_not_give_is_wrong(run: Path, tmp_path: Path) -> None:
    text, sound = verify_bundle(with_statistics(run, tmp_path / "b.zip", wrong=0.01))
    assert not sound
    assert "WRONG: sra: fid" in text
