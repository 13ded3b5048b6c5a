"""`sra-bench doctor`: what this machine has and what is missing. Queries torch and TensorFlow in separate processes."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

from benchmark.assets.catalogue import Asset, AssetError, Pins, catalogue, folder, mismatch, remedy
from benchmark.commands.fetch import needed_by
from benchmark.machine import gpus, provenance
from benchmark.machine.environment import job_environment
from benchmark.manifest.schema import load
from benchmark.plan.plan import make_plan
from benchmark.plan.run_directory import RunDirectory
from benchmark.run.executor import interpreter_of
from evaluator.tools import TOOL_MODULES
from sra.common.tables import text_table

PROBES = {
    "torch": "import torch; from sra.runtime.device import attention_kernel; n = torch.cuda.device_count(); "
    "print([torch.cuda.get_device_name(i) for i in range(n)], 'attention in bf16 by', "
    "attention_kernel(torch.device('cuda'), 'bf16'), 'of cuDNN', torch.backends.cudnn.version()) if n else "
    "print('cpu only')",
    "tensorflow": "import tensorflow as tf; "
    "print([d.name for d in tf.config.list_physical_devices('GPU')] or 'cpu only')",
}
USERS = {"torch": "sra.training.train", "tensorflow": TOOL_MODULES["adm"]}
"""Of each framework, a module whose interpreter has it."""
Line = tuple[str, str]
"""What is meant, and its version, value or state; or a state, and what has it."""
EMBEDDED = {
    "embedded digits codec": ("sra", "embedded/digits-codec/diffusion_pytorch_model.safetensors"),
    "embedded digits graph": ("evaluator", "embedded/digits.pb"),
}


def examine(manifest: Path | None = None) -> tuple[str, bool]:
    """Versions, hardware, devices and assets as text, and whether nothing is lacking.

    Args:
        manifest: whose inputs must all be there; without one, only what is shipped must be.

    Raises:
        UserError: a manifest that cannot be loaded, or recorded hashes that cannot be read.
    """
    machine = provenance.hardware()
    shipped, whole = _embedded()
    facts = [(name, version or "absent") for name, version in provenance.versions().items()]
    facts += [(name, str(value or "none")) for name, value in machine.items()]
    facts += [(f"{name} devices", _probe(USERS[name], code)) for name, code in PROBES.items()]
    lines = [_table([*facts, *shipped]), *(f"warning: {line}" for line in gpus.warnings(machine["gpus"]))]
    lines.append(f"assets in {folder()}:")
    if manifest is None:
        return "\n".join([*lines, _table(_assets(list(catalogue().values()))[0])]), whole
    loaded = load(manifest)
    described, complete = _assets(needed_by(loaded))
    absent = make_plan(loaded, RunDirectory(Path("runs") / loaded.name)).absent
    others = [place for place in absent if not remedy(place)]
    described += [("absent", f"{place}, which {manifest} names") for place in others]
    lines += [_table(described)] if described else []
    complete = complete and not others
    verdict = "has everything that it needs" if complete else "lacks the above"
    return "\n".join([*lines, f"{manifest}: {verdict}"]), whole and complete


def _table(rows: list[Line]) -> str:
    return text_table((), rows, left=(0, 1))


def _embedded() -> tuple[list[Line], bool]:
    lines, whole = [], True
    for name, (package, relative) in EMBEDDED.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).parent / relative
        whole = whole and path.is_file()
        lines.append((name, "present" if path.is_file() else f"absent: {path}"))
    return lines, whole


def _assets(assets: list[Asset]) -> tuple[list[Line], bool]:
    """What is there of each, and whether all is; a damaged file counts as missing."""
    root = folder()
    pins = Pins(root)
    described = [_describe(asset, root, pins) for asset in assets]
    return [line for lines, _ in described for line in lines], all(complete for _, complete in described)


def _describe(asset: Asset, root: Path, pins: Pins) -> tuple[list[Line], bool]:
    missing = asset.missing(root)
    if missing and asset.manual:
        return [("absent", f"{asset.name}: {asset.what}"), ("", asset.by_hand(root) or "")], False
    lines = [("absent", f"{path}: {_by_hand(asset, path)}") for path in missing]
    try:
        present = [_present(asset, file, pins) for file in asset.files if root / asset.name / file not in missing]
    except AssetError as error:
        return [*lines, ("damaged", str(error))], False
    lines += [("present", text) for text in present]
    return lines or [("present", f"{asset.name}: {asset.place(root)}")], not missing


def _by_hand(asset: Asset, path: Path) -> str:
    return f"`sra-bench fetch {asset.name}`; by hand: {asset.address(path.name)}, saved as this path"


def _present(asset: Asset, file: str, pins: Pins) -> str:
    """Path and facts of a file; its size is compared, its content is by `fetch` and `run`.

    Raises:
        AssetError: another size than the known one.
    """
    path, facts = pins.root / asset.name / file, pins.facts(asset, file)
    wrong = mismatch(facts, path.stat().st_size, None)
    if wrong:
        raise AssetError(f"{path}: {wrong}")
    pinned = f"SHA-256 {facts.sha256[:12]}..." if facts.sha256 else "hash not recorded yet"
    return f"{path} ({path.stat().st_size:,} bytes, {pinned})"


def _probe(module: str, code: str) -> str:
    command = [interpreter_of(module), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=job_environment(), check=False)
    return done.stdout.strip() or f"cannot be imported: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
