"""The digit classifier of the smoke run, with the tensor names of the ADM Inception graph.

`train_classifier` trained its weights, `freeze_classifier` wrote them as a graph; `network` is the same in torch.
"""

from __future__ import annotations

from pathlib import Path

GRAPH = Path(__file__).parent / "digits.pb"
WEIGHTS = Path(__file__).parent / "digits.safetensors"
EDGE = 32
"""Pixels that the network sees; other sizes are resized in the graph, as Inception's does to 299."""
FEATURES = 64
CLASSES = 10
