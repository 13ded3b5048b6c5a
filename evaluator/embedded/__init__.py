"""The embedded default: a small digit classifier with the tensor interface of the ADM Inception graph."""

from __future__ import annotations

from pathlib import Path

GRAPH = Path(__file__).parent / "digits.pb"
WEIGHTS = Path(__file__).parent / "digits.safetensors"
EDGE = 32
"""Pixels that the network sees; other sizes are resized in the graph, as Inception's does to 299."""
FEATURES = 64
CLASSES = 10
