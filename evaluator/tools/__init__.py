"""Scoring tools, each run with `python -m`, by the names that manifests use.

`adm` (TensorFlow) and `adm_torch` share `adm_protocol`; `clean_fid`, `torch_fidelity`. All use `base` and write a
`score_record`; `realism` draws the views.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Tool: TypeAlias = Literal["adm", "clean-fid", "torch-fidelity", "adm-torch"]
TOOL_MODULES: dict[str, str] = {
    "adm": "evaluator.tools.adm",
    "clean-fid": "evaluator.tools.clean_fid",
    "torch-fidelity": "evaluator.tools.torch_fidelity",
    "adm-torch": "evaluator.tools.adm_torch",
}
