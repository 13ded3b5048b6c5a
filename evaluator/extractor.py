"""The torch network that clean-fid and torch-fidelity see in place of their Inception."""

from __future__ import annotations

from evaluator.embedded.network import DigitClassifier, load
from evaluator.errors import ToolError
from evaluator.graphs import Graph


def extractor_of(graph: Graph, tool: str) -> DigitClassifier:
    """The torch version of a graph.

    Raises:
        ToolError: there is none in this version.
    """
    if graph.name != "embedded:digits":
        raise ToolError(f"{tool} has no torch network for graph {graph.name}; this version scores it with adm only")
    return load()
