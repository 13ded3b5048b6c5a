"""Score images: the ADM protocol, clean-fid and torch-fidelity.

    from evaluator import evaluate, fid, inception_score, precision_recall
    evaluate("samples.npz", "reference.npz", "classify_image_graph_def.pb").metrics["fid"]

From the ground up: `embedded` (digit classifier), `images` (reading), `inception` (networks from graphs), `metrics`,
`features` (cache), `tools` (programs), `dev`. Importing this loads neither numpy nor a framework; `evaluate` runs a
tool in a separate process.
"""

from __future__ import annotations

import sra.common.startup  # noqa: F401 - the first of all  # isort: skip

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.tools import TOOL_MODULES, Tool
from sra.common.errors import EvaluatorError, one_of

if TYPE_CHECKING:
    from evaluator.metrics.rows import Rows
    from evaluator.tools.score_record import ScoreRecord

__all__ = ["EvaluatorError", "evaluate", "fid", "inception_score", "precision_recall"]


def evaluate(samples: str | Path, reference: str | Path, graph: str, *options: str, tool: Tool = "adm") -> ScoreRecord:
    """Score one sample set; the record is the one that the tool writes as `scores.json`.

    Args:
        samples: `.npz`, folder, zip or shards of images.
        reference: the same; statistics stored in a reference batch are used.
        graph: a frozen Inception graph, or `embedded:digits`; the weights, of a tool with another network.
        options: more arguments of the tool, such as "--cache", "features".
        tool: adm, adm-torch, clean-fid, torch-fidelity, dinov2, clip or convnext.

    Raises:
        EvaluatorError: bad input, in one line.
        RuntimeError: the tool failed.
    """
    from evaluator.tools import score_record  # pydantic: not needed by the functions below

    if tool not in TOOL_MODULES:
        raise EvaluatorError(one_of("tool", tool, TOOL_MODULES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.json"
        command = [sys.executable, "-m", TOOL_MODULES[tool], "--samples", str(samples), "--reference", str(reference)]
        command += ["--graph", graph, "--json", str(path), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        if errors:
            raise EvaluatorError(errors[-1].removeprefix("error: "))
        if done.returncode:
            raise RuntimeError(f"{TOOL_MODULES[tool]} ended with exit code {done.returncode}:\n{done.stderr}")
        return score_record.read(path)


def fid(samples: Rows, reference: Rows) -> float:
    """Frechet distance of features (N, D) and (M, D).

    Raises:
        EvaluatorError: another shape, or values that are not finite.
    """
    from evaluator.metrics.frechet import frechet_distance, gaussian
    from evaluator.metrics.rows import check_features

    check_features(2, samples=samples, reference=reference)
    return frechet_distance(gaussian(samples), gaussian(reference))


def inception_score(logits: Any) -> float:
    """Inception score of a classifier's logits (N, classes) without bias, in splits of 5,000.

    Raises:
        EvaluatorError: see `fid`.
    """
    from evaluator.metrics import inception_score
    from evaluator.metrics.rows import check_features

    check_features(1, logits=logits)
    return inception_score.inception_score(logits)


def precision_recall(samples: Rows, reference: Rows, *, half: bool = False) -> tuple[float, float]:
    """Precision and recall of features (N, D) and (M, D), k = 3; exact, or (half) in the public evaluator's float16.

    Raises:
        EvaluatorError: see `fid`; more than three of each are needed.
    """
    from evaluator.metrics import precision_recall
    from evaluator.metrics.rows import check_features

    check_features(precision_recall.NEIGHBOURS + 1, samples=samples, reference=reference)
    return precision_recall.precision_recall(reference, samples, half=half)
