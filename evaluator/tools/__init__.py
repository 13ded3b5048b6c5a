"""Scoring tools: one module each, run as `python -m`, by the names that manifests use."""

from __future__ import annotations

from typing import Literal, TypeAlias

Tool: TypeAlias = Literal["adm", "clean-fid", "torch-fidelity", "adm-torch"]
TOOL_MODULES: dict[str, str] = {
    "adm": "evaluator.tools.adm",
    "clean-fid": "evaluator.tools.clean_fid",
    "torch-fidelity": "evaluator.tools.torch_fidelity",
    "adm-torch": "evaluator.tools.adm_torch",
}
