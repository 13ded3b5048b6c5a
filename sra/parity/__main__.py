"""`python -m sra.parity DIR`: compare and print. Exit code 0: all equal within tolerance; 1: not; 2: bad input."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from sra.common.errors import FALLS_SHORT
from sra.parity.compare import ROUNDING, Mode
from sra.parity.folder import check_folder
from sra.parity.golden import open_golden
from sra.parity.wide import check_wide
from sra.runtime import job
from sra.runtime.device import facts_of


def main(arguments: list[str]) -> None:
    """`python -m sra.parity DIR [--json] [--compile] [--precision fp32|tf32|fp16|bf16]`."""
    parser = argparse.ArgumentParser(prog="python -m sra.parity", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=list(ROUNDING), default="fp32")
    options = parser.parse_args(arguments)
    golden = open_golden(options.folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mode = Mode(device, facts_of(device, options.precision)["precision"], options.compile)
    mode.start()
    report = check_folder(golden, mode)
    if mode.kernels_differ:
        check_wide(mode, report)
    how = {"device": str(device), "precision": mode.precision, "compiled": mode.compiled, "torch": torch.__version__}
    if options.json:
        print(json.dumps({"schema": 1, "folder": str(options.folder), **how, **report.document()}, indent=2))
    else:
        print(report.table())
        print(
            f"{len(report.items)} items on {device}, {mode.precision}{', compiled' if mode.compiled else ''}: ", end=""
        )
        print(f"{len(report.failed)} fall short" if report.failed else "all hold")
    if report.failed:
        sys.exit(FALLS_SHORT)


if __name__ == "__main__":
    job.run(main)
