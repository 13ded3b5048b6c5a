"""Packages that only some jobs need, and which extra of sra-bench installs them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from benchmark.machine.gpus import in_container
from evaluator.tools import NETWORKS, TOOL_MODULES
from sra.common.errors import UserError

NEEDED = {
    "sra": ("train", "trainer", ("torch", "diffusers")),
    "evaluator.tools.adm": ("evaluate", "evaluator", ("tensorflow",)),
    "evaluator.tools.clean_fid": ("evaluate", "trainer", ("torch", "cleanfid")),
    "evaluator.tools.torch_fidelity": ("evaluate", "trainer", ("torch", "torch_fidelity")),
    "evaluator.tools.adm_torch": ("evaluate", "trainer", ("torch",)),
    **{TOOL_MODULES[tool]: ("evaluate", "trainer", ("torch", "timm")) for tool in NETWORKS},
    "evaluator.inception.convert": ("evaluate", "trainer", ("torch",)),
    "evaluator.dev.perf": ("evaluate", "evaluator", ("tensorflow",)),
}
"""Extra, container image and importable packages, by module or by the package that it is in."""


def require(module: str) -> None:
    """Refuse a job whose packages are not installed, without importing them.

    Raises:
        UserError: which package, and the extra that installs it.
    """
    for prefix, (extra, image, packages) in NEEDED.items():
        missing = [name for name in packages if f"{module}.".startswith(f"{prefix}.") and find_spec(name) is None]
        if missing:
            command = " ".join(["sra-bench", *sys.argv[1:2]])
            inside = f" (the images {image} and all have it)" if in_container() else ""
            raise UserError(
                f"{command}: expected package {missing[0]}, which sra-bench[{extra}] installs, got none{inside}"
            )
