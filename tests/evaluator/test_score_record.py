"""The score record: what is written is read again, records of schema 1 too, and one line for what is none."""

import json

import pytest

from evaluator.tools import score_record
from evaluator.tools.score_record import (
    AdmSettings,
    CleanFidMode,
    CleanFidSettings,
    FeatureWidths,
    ImageSetFacts,
    NamedFile,
    NearestReferences,
    ScoreRecord,
    Views,
)
from sra.common.errors import EvaluatorError

IMAGES = {"path": "a.npz", "sha256": "0" * 64, "count": 9, "shape": [8, 8, 3]}
GRAPH = {"name": "test.pb", "sha256": "1" * 64}
SCHEMA_1 = {
    "schema": 1,
    "tool": "clean_fid",
    "version": "0.1.35",
    "metrics": {"fid": None, "kid": 0.5},
    "intervals": {},
    "samples": IMAGES,
    "reference": IMAGES,
    "graph": GRAPH,
    "warnings": ["a warning"],
    "settings": {
        "kid_seed": 0,
        "modes": {"clean": {"extractor": "clean-fid's own", "weights": {"file": "a.pt", "sha256": "2" * 64}}},
        "reasons": {"clean": "few images"},
    },
    "views": {},
    "seconds": 3.5,
    "error": None,
}
RECORD = ScoreRecord(
    tool="adm",
    version="2.21.0",
    metrics={"fid": 1.5},
    intervals={"fid": (1.0, 2.0)},
    samples=ImageSetFacts(**IMAGES),
    reference=ImageSetFacts(**IMAGES),
    graph=NamedFile(**GRAPH),
    settings=AdmSettings(
        stored_statistics=True,
        trusted_sample_statistics=False,
        widths=FeatureWidths(pool=64, spatial=343, classes=10),
    ),
    views=Views(
        nearest="nearest.png",
        classes="classes.json",
        equal_to_a_reference=1,
        classes_without_samples=0,
        largest_class_share=0.5,
        worst=(),
        best=(NearestReferences(sample=3, realism=None, references=(1, 2, 3), distances=(0.0, 1.0, 2.0)),),
    ),
)


def saved(path, document):
    path.write_text(json.dumps(document))
    return path


def test_a_record_is_read_as_it_was_written(tmp_path):
    score_record.write(RECORD, tmp_path / "scores.json")
    assert score_record.read(tmp_path / "scores.json") == RECORD
    assert json.loads((tmp_path / "scores.json").read_text())["schema"] == 4


def test_schema_1_is_read(tmp_path):
    record = score_record.read(saved(tmp_path / "scores.json", SCHEMA_1))
    assert record.tool == "clean-fid"
    assert record.metrics == {"kid": 0.5}
    assert record.views is None
    weights = NamedFile(name="a.pt", sha256="2" * 64)
    modes = {"clean": CleanFidMode(extractor="clean-fid's own", weights=weights)}
    assert record.settings == CleanFidSettings(kid_seed=0, modes=modes, reasons={"clean": "few images"})


def test_schema_1_of_a_tool_that_could_not_run(tmp_path):
    failed = {**SCHEMA_1, "tool": "torch_fidelity", "metrics": {}, "settings": {}, "error": "no weights"}
    record = score_record.read(saved(tmp_path / "scores.json", failed))
    assert (record.tool, record.settings, record.error) == ("torch-fidelity", None, "no weights")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"schema": 5}, "schema: expected 1 to 4, got 5"),
        ({"tool": "unknown"}, "tool: "),
        ({"samples": {**IMAGES, "count": "many"}}, r"samples\.count: "),
        ({"more": 1}, r"expected one of the keys .*, got 'more'"),
    ],
)
def test_other_documents_are_refused_by_place(tmp_path, change, place):
    with pytest.raises(EvaluatorError, match=rf"scores\.json: {place}"):
        score_record.read(saved(tmp_path / "scores.json", {**SCHEMA_1, **change}))


@pytest.mark.parametrize("document", [{"schema": 1}, {**SCHEMA_1, "settings": {"weights": {"name": "a.pt"}}}])
def test_schema_1_without_a_key_is_refused(tmp_path, document):
    with pytest.raises(
        EvaluatorError, match=r"scores\.json: expected a record of schema 1, got one without '(tool|file)'"
    ):
        score_record.read(saved(tmp_path / "scores.json", document))


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "scores.json").write_text("{")
    for name in ("scores.json", "absent.json"):
        with pytest.raises(EvaluatorError, match=name):
            score_record.read(tmp_path / name)
