"""torch-fidelity on the same samples and reference: `python -m evaluator.fidelity`. Nothing is downloaded."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
import torch
import torch_fidelity
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from evaluator import embedded, tool
from evaluator.embedded.network import load
from evaluator.errors import ToolError
from evaluator.extractor import extractor_of
from evaluator.samples import ImageSet

NAME = "embedded-digits"
IS_SPLIT = 5000


class DigitsExtractor(FeatureExtractorBase):  # type: ignore[misc]
    """The digit classifier behind torch-fidelity's interface; takes uint8 (N, 3, 32, 32)."""

    def __init__(self, name: str, features_list: list[str], **_unused: Any) -> None:
        super().__init__(name, features_list)
        self.network = load()

    def forward(self, x: torch.Tensor) -> Any:
        """The asked features, in order."""
        pool, _ = self.network(x.float())
        found = {str(embedded.FEATURES): pool, "logits": self.network.logits(pool)}
        return tuple(found[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Names of the features."""
        return (str(embedded.FEATURES), "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The feature each metric uses."""
        return "logits" if metric == "isc" else str(embedded.FEATURES)

    @staticmethod
    def can_be_compiled() -> bool:
        """No."""
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> torch.Tensor:
        """One black image."""
        return torch.zeros(1, 3, embedded.EDGE, embedded.EDGE, dtype=torch.uint8)


class Images(Dataset[torch.Tensor]):
    """An image set as torch-fidelity wants it: uint8 (3, H, W)."""

    def __init__(self, images: ImageSet) -> None:
        self.pixels = np.concatenate(list(images.batches())).transpose(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.pixels[index].copy())


def score(task: tool.Task) -> list[tool.Result]:
    """FID, IS, KID, precision and recall of every sample set."""
    extractor_of(task.graph, "torch-fidelity")
    torch_fidelity.register_feature_extractor(NAME, DigitsExtractor)
    reference = Images(task.reference)
    return [_one(Images(images), images, reference) for images in task.samples]


def _one(samples: Images, images: ImageSet, reference: Images) -> tool.Result:
    if images.shape != (embedded.EDGE, embedded.EDGE):
        raise ToolError(f"images are {images.shape}, this extractor takes {embedded.EDGE} x {embedded.EDGE}")
    layer = str(embedded.FEATURES)
    settings: dict[str, Any] = {
        "feature_layer_fid": layer,
        "feature_layer_kid": layer,
        "feature_layer_prc": layer,
        "feature_layer_isc": "logits",
        "isc_splits": max(1, images.count // IS_SPLIT),
        "samples_shuffle": False,
        "kid_subset_size": min(1000, len(samples), len(reference)),
        "prc_neighborhood": 3,
        "rng_seed": 0,
    }
    found = torch_fidelity.calculate_metrics(
        input1=samples,
        input2=reference,
        feature_extractor=NAME,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        cuda=False,
        verbose=False,
        cache=False,
        **settings,
    )
    names = {
        "fid": "frechet_inception_distance",
        "is": "inception_score_mean",
        "kid": "kernel_inception_distance_mean",
        "precision": "precision",
        "recall": "recall",
    }
    return {short: float(found[long]) for short, long in names.items()}, settings


if __name__ == "__main__":
    tool.run("torch_fidelity", metadata.version("torch-fidelity"), score)
