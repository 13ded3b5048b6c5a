"""Checks of a golden folder: its list of files, and the checks of the small ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image

from sra.common.errors import DataError
from sra.data.images import center_crop
from sra.model.transformer import build, position_encoding
from sra.model.weights import load_network
from sra.parity import dit, siblings, sit
from sra.parity.checks import attempt, run_sections
from sra.parity.compare import Mode, Report, exact, table
from sra.parity.golden import Arrays, Golden, Scope, open_golden
from sra.runtime import job

FAMILIES: dict[str, Literal["sit", "dit"]] = {"sit_state_dict": "sit", "dit_state_dict": "dit"}
OTHER_TESTS = {"adm"}
"""Folders of the evaluator's tests."""


def check_folder(golden: Golden, mode: Mode) -> Report:
    """Run every check of a folder.

    A precision below float32 hides errors of its own rounding's size: a wrong number in the folder is then noticed in
    float32, in which everything is computed too.

    Raises:
        DataError: a file is damaged.
    """
    report = check_once(golden, mode)
    if mode.precision != "fp32":
        exact = Mode(mode.device)
        exact.start()
        report.add_failures(check_once(golden, exact), exact.precision)
        mode.start()
    return report


def check_once(golden: Golden, mode: Mode) -> Report:
    """Run every check of a folder, and of golden folders in it, in one mode.

    Raises:
        DataError: a file is damaged.
    """
    report = Report(mode.limit)
    # A folder holds the numbers of SRA's code or of other methods; no file of the others is missed.
    sets = [checks for checks in (CHECKS, SIBLINGS) if any((golden.folder / name).is_file() for name in checks)]
    checks = {"config.json": state_dicts} | {name: check for known in sets for name, check in known.items()}
    for name, check in checks.items():
        job.check_stop()
        if (golden.folder / name).is_file():
            check(golden, mode, report)
        else:
            report.absent.append(name)
    for path in sorted(golden.folder.iterdir()):
        if (path / "config.json").is_file():
            report.add(check_once(open_golden(path), mode), path.name)
        elif path.name not in checks.keys() | OTHER_TESTS and not path.name.startswith("."):
            report.fail(path.name, "unknown file")
    return report


def state_dicts(golden: Golden, _mode: Mode, report: Report) -> None:
    """Check the names and shapes of weights in `config.json`."""
    for key, pairs in golden.state_dicts.items():
        try:
            listed = {str(name): [int(size) for size in shape] for name, shape in pairs}
        except (TypeError, ValueError):
            report.fail(f"config/{key}", "expected a list of names and shapes")
            continue
        if key not in FAMILIES:
            report.fail(f"config/{key}", "unknown key")
            continue
        network = build(golden.config.model(FAMILIES[key]), golden.config.codec, head=True)
        found = {name: list(value.shape) for name, value in network.state_dict().items()}
        for name in found | listed:
            report.same(f"config/{key}/{name}", found.get(name), listed.get(name))


def published_format(golden: Golden, _mode: Mode, report: Report) -> None:
    """Load the authors' checkpoint format safely and strictly; compare it with the weights of `sit.npz`."""
    path, reference = golden.folder / "published_format.pt", golden.folder / "sit.npz"
    if not reference.is_file():
        report.absent.append("published_format (without sit.npz)")
        return
    expected = Arrays(reference).state("model")
    for which in ("model", "ema"):
        try:
            network = load_network(path, golden.config.model("sit"), golden.config.codec, which)
        except DataError as error:
            report.fail(f"published_format/{which}", str(error))
            continue
        for name, value in network.state_dict().items():
            item = f"published_format/{which}/{name}"
            if name in expected:
                report.compare(item, value, expected[name], exact)
            else:
                report.absent.append(item)


def position_encodings(scope: Scope) -> None:
    """Check position encodings `<D>x<G>`: width D, grid G x G."""
    for name in scope.children:
        match = re.fullmatch(r"(\d+)x(\d+)", name)
        if match:
            scope.compare(name, position_encoding(int(match[1]), int(match[2])), table)
    run_sections(scope, {})


def center_crops(scope: Scope) -> None:
    """Check crops `<k>/crop<size>` of `<k>/image`."""
    for name in scope.children:
        attempt(scope.at(name), _crops)
    run_sections(scope, {})


def _crops(case: Scope) -> None:
    for name in case.children:
        match = re.fullmatch(r"crop(\d+)", name)
        if match:
            image = Image.fromarray(case.given("image").cpu().numpy())
            found = np.array(center_crop(image, int(match[1])))
            case.compare(name, torch.from_numpy(found), exact)


def _arrays(check: Callable[[Scope], None], name: str) -> Callable[[Golden, Mode, Report], None]:
    def run(golden: Golden, mode: Mode, report: Report) -> None:
        check(Scope(Arrays(golden.folder / name), report, mode, golden.config))

    return run


Checks = dict[str, Callable[[Golden, Mode, Report], None]]
"""By file, in the order of the report."""


def _files(checks: dict[str, Callable[[Scope], None]]) -> Checks:
    return {name: _arrays(check, name) for name, check in checks.items()}


CHECKS: Checks = {
    "published_format.pt": published_format,
    **_files(
        {
            "pos_embed.npz": position_encodings,
            "center_crop.npz": center_crops,
            "sit.npz": sit.check,
            "vanilla_sit.npz": sit.check_vanilla,
            "dit.npz": dit.check,
        }
    ),
}
"""Files with the numbers of SRA's code."""
SIBLINGS = _files(
    {
        "layersync.npz": siblings.check_layersync,
        "dispersive.npz": siblings.check_dispersive,
        "self_flow.npz": siblings.check_self_flow,
        "dopri5.npz": siblings.check_dopri5,
    }
)
"""Files with the numbers of other methods' code, in a folder of their own."""
