"""The ADM protocol on the converted Inception in torch: `python -m evaluator.tools.adm_torch`.

The protocol is `adm_protocol`'s, on features that torch computes with the graph's own weights: for machines whose
GPU TensorFlow does not support. Its record never stands in for the TensorFlow route's.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from evaluator.features import extractor
from evaluator.features.cache import folder_name
from evaluator.features.extractor import Array
from evaluator.inception import convert
from evaluator.inception.graph import BLANK, Graph
from evaluator.tools import adm_protocol
from evaluator.tools.adm_protocol import SPATIAL_CHANNELS
from evaluator.tools.base import Result, Task, run
from evaluator.tools.score_record import AdmTorchSettings, NamedFile


class TorchInception:
    """The network of a graph on every GPU, or on the processor."""

    def __init__(self, graph: Graph) -> None:
        network = convert.load(graph)
        self.weights: Array = network.weights.numpy()
        self.replicas = extractor.Replicas(network)
        self.at_once = self.replicas.count
        width = self(np.zeros(BLANK, np.uint8)).shape[1]
        self.widths = (len(self.weights), width - len(self.weights))

    def __call__(self, images: Array) -> Array:
        """(n, H, W, 3) uint8 to pooled and spatial features side by side (n, D + h * w * 7), float32."""
        with self.replicas.one() as (network, device):
            pool, spatial = network(torch.from_numpy(images.copy()).to(device))
            found: Array = torch.cat([pool, spatial[..., :SPATIAL_CHANNELS].flatten(1)], 1).cpu().numpy()
        return found


def score(task: Task) -> list[Result]:
    """The ADM metrics of every sample set."""
    network = TorchInception(task.graph)
    source = convert.source_of(task.graph)
    settings = partial(
        AdmTorchSettings,
        extractor=f"converted from graph {source.name}",
        source=NamedFile(name=source.name, sha256=source.sha256),
        device=network.replicas.kind,
    )
    return adm_protocol.score(task, network, folder_name("adm-torch", source.sha256), settings)


if __name__ == "__main__":
    run("adm-torch", torch.__version__, score, adm_protocol.options)
