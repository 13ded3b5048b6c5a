"""Results as records, for notebooks: `from benchmark import load_run, load_bundle`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark import load_bundle, load_run
from benchmark.report.bundle import make_bundle
from sra.common.errors import UserError
from tests.benchmark.test_bundle import ROWS, rehashed, rewritten


def test_a_run_and_its_bundle_give_the_same_numbers(finished: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    run = finished(ROWS)[0]
    make_bundle(run, tmp_path / "b.zip", samples=False)
    numbers = load_run(run).numbers()
    assert numbers == load_bundle(tmp_path / "b.zip").numbers()
    frame = load_run(run).to_dataframe().astype(object)
    assert frame.where(frame.notna(), None).to_dict("records") == numbers
    fid = next(n for n in numbers if (n["variant"], n["tool"], n["metric"]) == ("sra", "adm", "fid"))
    assert fid["value"] is not None
    assert fid["verdict"] == "reproduced"


def test_a_data_frame_without_numbers_or_without_pandas(
    finished: Callable[..., tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(finished(ROWS)[0])
    frame = run.model_copy(update={"rows": []}).to_dataframe()
    assert list(frame) == list(run.numbers()[0])
    assert frame.value.dtype == float
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"to_dataframe: expected package pandas, which sra-bench\[notebook\] installs"):
        run.to_dataframe()


def test_a_bundle_that_contradicts_itself_gives_none(finished: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    make_bundle(finished(ROWS)[0], tmp_path / "b.zip", samples=False)

    def change(members: dict[str, bytes]) -> None:
        members["run/report/report.json"] = members["run/report/report.json"].replace(b"reproduced", b"better")
        rehashed(members)

    with pytest.raises(UserError, match="expected files that agree"):
        load_bundle(rewritten(tmp_path / "b.zip", change))
