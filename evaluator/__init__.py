"""How good images are: the ADM protocol, clean-fid and torch-fidelity.

    from evaluator import evaluate, fid, inception_score, precision_recall
    evaluate("samples.npz", "reference.npz", "classify_image_graph_def.pb")["metrics"]["fid"]

Nothing heavy is imported before it is needed, TensorFlow never: `evaluate` runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluator.metrics.frechet import Rows

__all__ = ["evaluate", "fid", "inception_score", "precision_recall"]


def evaluate(
    samples: str | Path, reference: str | Path, graph: str, *options: str, tool: str = "adm"
) -> dict[str, Any]:
    """The record of one sample set, as `python -m evaluator.<tool>` writes it.

    Args:
        samples: `.npz`, folder, zip or shards.
        reference: the same; a reference batch's stored statistics are used.
        graph: a frozen Inception graph, or `embedded:digits`.
        options: more arguments of the tool, such as "--cache", "features".
        tool: name of its module: adm, adm_torch, clean_fid, torch_fidelity.

    Raises:
        EvaluatorError: what the tool refuses, in one line.
    """
    from sra.common.errors import EvaluatorError

    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "scores.json"
        command = [sys.executable, "-m", f"evaluator.tools.{tool}", "--samples", str(samples)]
        command += ["--reference", str(reference), "--graph", graph, "--json", str(record), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        if errors:
            raise EvaluatorError(errors[-1].removeprefix("error: "))
        if done.returncode:
            raise RuntimeError(f"evaluator.tools.{tool} ended with exit code {done.returncode}:\n{done.stderr}")
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return found


def fid(samples: Rows, reference: Rows) -> float:
    """Frechet distance of features (N, D) and (M, D).

    Raises:
        EvaluatorError: another shape, or values that are no finite numbers.
    """
    from evaluator.metrics.frechet import check_features, frechet_distance, gaussians

    check_features(2, samples=samples, reference=reference)
    return frechet_distance(*gaussians(samples, reference))


def inception_score(logits: Any) -> float:
    """Of a classifier's logits (N, classes) without bias, in splits of 5,000.

    Raises:
        EvaluatorError: see `fid`.
    """
    from evaluator.metrics import frechet

    frechet.check_features(1, logits=logits)
    return frechet.inception_score(logits)


def precision_recall(samples: Rows, reference: Rows, *, half: bool = False) -> tuple[float, float]:
    """Of features (N, D) and (M, D), k = 3; exact, or (half) in the public evaluator's float16.

    Raises:
        EvaluatorError: see `fid`; more than three of each are needed.
    """
    from evaluator.metrics import frechet

    frechet.check_features(frechet.NEIGHBOURS + 1, samples=samples, reference=reference)
    return frechet.precision_recall(reference, samples, half=half)
