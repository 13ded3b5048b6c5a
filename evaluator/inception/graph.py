"""Frozen Inception graphs: their files, and the tensors that each must have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluator import embedded
from sra.common.errors import EvaluatorError
from sra.common.files import is_embedded, sha256_file

INPUT, POOL, SPATIAL, LOGITS = "ExpandDims", "pool_3", "mixed_6/conv", "softmax/logits/MatMul"
"""Operations of images, pooled features, spatial features, and the classifier without its bias."""
BLANK = (1, 64, 64, 3)
"""Shape of an image on which a graph shows its widths, which its file need not say."""


@dataclass(frozen=True)
class Graph:
    """A frozen graph file."""

    name: str
    path: Path
    sha256: str


def resolve(name: str) -> Graph:
    """The graph of a path, or of `embedded:digits`.

    Raises:
        EvaluatorError: no such file.
    """
    path = embedded.GRAPH if name == "embedded:digits" else Path(name)
    if not path.is_file():
        wanted = "a frozen .pb file, weights of a network or embedded:digits"
        raise EvaluatorError(f"--graph: expected {wanted}, got {name!r}: not found")
    shown = name if is_embedded(name) else path.name
    return Graph(shown, path, sha256_file(path))
