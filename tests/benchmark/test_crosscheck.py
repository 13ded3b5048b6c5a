"""FIDs of the tools held against each other: what definitions explain passes, what they do not is said."""

import pytest

from benchmark.report.crosscheck import disagreements
from evaluator.tools.score_record import (
    AdmSettings,
    CleanFidMode,
    CleanFidSettings,
    FeatureWidths,
    ImageSetFacts,
    NamedFile,
    ScoreRecord,
)

IMAGES = ImageSetFacts(path="/images", sha256="0", count=10, shape=(32, 32, 3))
WIDTHS = FeatureWidths(pool=1, spatial=1, classes=1)


def record(fid, name="fid", /, *, stored=False, settings=None, **more):
    own = AdmSettings(stored_statistics=stored, trusted_sample_statistics=False, widths=WIDTHS)
    metrics = {name: fid, **more} if fid is not None else more
    return ScoreRecord(
        tool="adm",
        version="1",
        metrics=metrics,
        samples=IMAGES,
        reference=IMAGES,
        graph=NamedFile(name="graph", sha256="0"),
        settings=settings or own,
    )


def clean(fid, name="fid", /, *, resize=None, **more):
    mode = CleanFidMode(extractor="own", resize=resize)
    settings = CleanFidSettings(kid_seed=0, modes={"clean": mode}, reasons={})
    return record(fid, name, settings=settings, **more)


def agreeing(fid=10.0):
    return {
        "adm": record(fid),
        "torch-fidelity": record(fid * (1 + 2e-4)),
        "clean-fid": clean(fid * (1 + 5e-3), "fid_legacy_tensorflow", fid=fid * 1.3, fid_legacy_pytorch=fid * 0.7),
        "adm-torch": record(fid * (1 - 2e-4)),
    }


def test_what_definitions_explain_is_not_flagged():
    assert disagreements(agreeing()) == []
    assert disagreements({"adm": record(0.0001), "torch-fidelity": record(0.0006)}) == []


@pytest.mark.parametrize("tool", ["torch-fidelity", "adm-torch"])
def test_one_per_cent_of_the_same_features_is_flagged(tool):
    (sentence,) = disagreements({**agreeing(), tool: record(10.1)})
    assert f"10.1 by {tool}, 10 by adm" in sentence
    assert "they differ by 0.1" in sentence


def test_clean_fids_tensorflow_mode_is_the_one_compared():
    (sentence,) = disagreements({**agreeing(), "clean-fid": clean(10.3, "fid_legacy_tensorflow", fid=10.0)})
    assert "10.3 by clean-fid" in sentence
    assert disagreements({**agreeing(), "clean-fid": clean(99.0)}) == [], "only the clean mode ran"


def test_where_nothing_is_resized_clean_fids_one_mode_is_compared():
    assert len(disagreements({**agreeing(), "clean-fid": clean(12.0, resize="none needed")})) == 1


def test_stored_statistics_are_compared_with_their_like_only():
    records = {**agreeing(), "adm": record(3.0, stored=True), "adm-torch": record(3.0005, stored=True, fid_images=10.0)}
    assert disagreements(records) == []
    records["adm-torch"] = record(3.1, stored=True, fid_images=11.0)
    sentences = disagreements(records)
    assert [s.split(":")[0] for s in sentences] == [
        "FID against the reference's stored statistics",
        "FID against the reference's images",
        "FID against the reference's images",
    ]


def test_tools_that_could_not_run_are_left_out():
    assert disagreements({"adm": record(3.0), "torch-fidelity": record(None)}) == []
    assert disagreements({"torch-fidelity": record(None), "adm": record(3.0)}) == []
    assert disagreements({}) == []
