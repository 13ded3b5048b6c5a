"""The doctor: what is there, what is missing, and where it belongs."""

from pathlib import Path

import pytest

from benchmark.assets.catalogue import catalogue
from benchmark.commands import doctor

MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path))
    monkeypatch.delenv("IMAGENET", raising=False)
    # Importing torch and TensorFlow to ask for GPUs is theirs to test.
    monkeypatch.setattr(doctor, "_probe", lambda _module, _code: "cpu only")
    return tmp_path


def place(root: Path, name: str) -> None:
    for file in catalogue()[name].files:
        (root / name).mkdir(exist_ok=True)
        (root / name / file).write_bytes(b"x")


def test_the_embedded_manifest_lacks_nothing() -> None:
    text, complete = doctor.examine(MANIFESTS / "smoke.yaml")
    assert complete
    assert "has everything that it needs" in text
    assert "asset" not in text.split("assets in")[1].split("\n", 1)[1]


def test_missing_assets_are_named_with_their_exact_places(elsewhere: Path) -> None:
    text, complete = doctor.examine(MANIFESTS / "sit_xl_256.yaml")
    assert not complete
    for name in ("sd-vae-ft-ema", "inception-graph", "sit-xl2-sra-256-ep800", "torch-fidelity-inception"):
        for file in catalogue()[name].files:
            assert f"absent  {elsewhere / name / file}: `sra-bench fetch {name}`; by hand: https://" in text
    assert "set IMAGENET" in text
    assert "sd-vae-ft-mse" not in text


def test_complete_once_everything_is_placed(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGENET", str(elsewhere))
    for name in ("sd-vae-ft-ema", "inception-graph", "sit-xl2-sra-256-ep800", "imagenet256-reference"):
        place(elsewhere, name)
    assert not doctor.examine(MANIFESTS / "sit_xl_256.yaml")[1]
    for name in ("torch-fidelity-inception", "clean-fid-inception"):
        place(elsewhere, name)
    text, complete = doctor.examine(MANIFESTS / "sit_xl_256.yaml")
    assert complete, text
    assert "hash not recorded yet" in text


def test_a_file_that_no_asset_knows_is_missed_too(tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text((MANIFESTS / "smoke.yaml").read_text().replace('images: "embedded:digits"', "images: /no/such"))
    text, complete = doctor.examine(manifest)
    assert not complete
    assert "absent  /no/such" in text


def test_a_truncated_file_is_damaged(elsewhere: Path) -> None:
    from benchmark.assets.catalogue import Pins, find, verify

    place(elsewhere, "inception-graph")
    verify(find("inception-graph"), Pins(elsewhere))
    (elsewhere / "inception-graph" / "classify_image_graph_def.pb").write_bytes(b"")
    assert "damaged" in doctor.examine(MANIFESTS / "evaluator_selftest.yaml")[0]


def test_the_exit_code_says_whether_something_is_lacking() -> None:
    from typer.testing import CliRunner

    from benchmark.cli.main import app

    runner = CliRunner()
    assert runner.invoke(app, ["doctor", "--manifest", str(MANIFESTS / "smoke.yaml")]).exit_code == 0
    assert runner.invoke(app, ["doctor", "--manifest", str(MANIFESTS / "sit_xl_256.yaml")]).exit_code == 1


def test_without_a_manifest_all_assets_are_listed() -> None:
    text, complete = doctor.examine()
    assert complete
    assert all(name in text for name in catalogue())
