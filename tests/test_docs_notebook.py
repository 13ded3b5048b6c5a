"""The cells of docs/notebook.ipynb run as written, and print what the notebook shows."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib import pyplot

DOCS = Path(__file__).parents[1] / "docs"


def test_the_cells_print_what_the_notebook_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(DOCS)
    monkeypatch.setattr(pyplot, "show", lambda: None)
    cells = [cell for cell in json.loads((DOCS / "notebook.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in cells:
            exec(compile("".join(cell["source"]), "notebook.ipynb", "exec"), names)
            shown = "".join(line for output in cell["outputs"] for line in output.get("text", ()))
            assert capsys.readouterr().out == shown
            assert len(pyplot.get_fignums()) == sum("data" in output for output in cell["outputs"])
            pyplot.close("all")
