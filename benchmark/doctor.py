"""`sra-bench doctor`: what this machine has. Torch and TensorFlow are asked in processes of their own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from benchmark import provenance
from benchmark.runner import job_environment

PROBES = {
    "torch": "import torch; n = torch.cuda.device_count(); "
    "print([torch.cuda.get_device_name(i) for i in range(n)] or 'cpu only')",
    "tensorflow": "import tensorflow as tf; "
    "print([d.name for d in tf.config.list_physical_devices('GPU')] or 'cpu only')",
}
ASSETS = {
    "embedded digits codec": ("sra", "embedded/digits-codec/diffusion_pytorch_model.safetensors"),
    "embedded digits graph": ("evaluator", "embedded/digits.pb"),
}


def examine() -> str:
    """Versions, hardware, devices and embedded assets as text."""
    machine = provenance.hardware()
    lines = [f"{name:16} {version or 'absent'}" for name, version in provenance.versions().items()]
    lines += [f"{name:16} {value if value else 'none'}" for name, value in machine.items()]
    lines += [f"{name + ' devices':20} {_probe(code)}" for name, code in PROBES.items()]
    for name, (package, relative) in ASSETS.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).parent / relative
        lines.append(f"{name:24} {'present' if path.is_file() else 'absent: ' + str(path)}")
    return "\n".join(lines)


def _probe(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=job_environment(), check=False
    )
    return done.stdout.strip() or f"cannot be imported: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
