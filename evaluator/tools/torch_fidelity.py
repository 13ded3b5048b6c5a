"""torch-fidelity on the same samples and reference: `python -m evaluator.tools.torch_fidelity`.

Nothing is downloaded.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from evaluator.embedded import network as digits
from evaluator.features import extractor
from evaluator.features.extractor import Array, Weights
from evaluator.images.image_set import BATCH, ImageSet
from evaluator.inception import convert
from evaluator.inception.graph import resolve
from evaluator.tools.base import Result, Task, run
from evaluator.tools.score_record import NamedFile, TorchFidelitySettings
from sra.common.files import sha256_file

IS_SPLIT = 5000
METRICS = {
    "fid": "frechet_inception_distance",
    "is": "inception_score_mean",
    "kid": "kernel_inception_distance_mean",
    "precision": "precision",
    "recall": "recall",
}
"""Our names of metrics: torch-fidelity's."""
FEATURES, LOGITS = "features", "logits"
WEIGHTS = Weights(
    "torch-fidelity-inception",
    ("weights-inception-2015-12-05-6726825d.pth",),
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)


class _Extractor(FeatureExtractorBase):  # type: ignore[misc]
    """A network behind torch-fidelity's interface; takes uint8 (N, 3, H, W)."""

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Names of the features."""
        return (FEATURES, LOGITS)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The feature each metric uses."""
        return LOGITS if metric == "isc" else FEATURES

    @staticmethod
    def can_be_compiled() -> bool:
        """No."""
        return False

    def _chosen(self, features: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        found = {FEATURES: features, LOGITS: logits}
        return tuple(found[name] for name in self.features_list)


class DigitsExtractor(_Extractor):
    """The embedded digit classifier; images of its own size only."""

    def __init__(self, name: str, features_list: list[str], **_unused: Any) -> None:
        super().__init__(name, features_list)
        self.network = digits.load()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The asked features, in order."""
        features, _ = self.network(x.float())
        return self._chosen(features, self.network.logits(features))


class GraphExtractor(_Extractor):
    """The network of a frozen graph, converted; resizes by itself, as the graph does."""

    def __init__(self, name: str, features_list: list[str], **options: Any) -> None:
        super().__init__(name, features_list)
        self.network = convert.load(resolve(options["feature_extractor_weights_path"]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The asked features, in order."""
        features, _ = self.network(x.permute(0, 2, 3, 1))
        return self._chosen(features, features @ self.network.weights)


class Images(Dataset[Tensor]):
    """An image set as torch-fidelity wants it, uint8 (3, H, W): read in order, a batch in memory at a time."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.batch: Array
        self._rewind()

    def _rewind(self) -> None:
        self.batches = self.images.batches()
        self.place = -1

    def __len__(self) -> int:
        return self.images.count

    def __getitem__(self, index: int) -> Tensor:
        if index >= len(self):
            raise IndexError(index)
        wanted = index // BATCH
        if wanted < self.place:
            self._rewind()
        while self.place < wanted:
            self.batch = next(self.batches)
            self.place += 1
        return torch.from_numpy(self.batch[index % BATCH].transpose(2, 0, 1).copy())


def score(task: Task) -> list[Result]:
    """FID, IS, KID, precision and recall of every sample set."""
    task.require_images()
    chosen, description, weights = _network(task)
    return [_score(images, task.reference, chosen, description, weights) for images in task.samples]


def _network(task: Task) -> tuple[dict[str, str], str, NamedFile | None]:
    """torch-fidelity's options of the network; its description and file of weights for the record."""
    if task.options.extractor == extractor.GRAPH:
        torch_fidelity.register_feature_extractor("graph", GraphExtractor)
        network = {"feature_extractor": "graph", "feature_extractor_weights_path": str(task.graph.path)}
        return network, f"converted from graph {convert.source_of(task.graph).name}", None
    if task.graph.name == extractor.EMBEDDED:
        extractor.check_size(task.reference, *task.samples)
        torch_fidelity.register_feature_extractor("embedded-digits", DigitsExtractor)
        return {"feature_extractor": "embedded-digits"}, "embedded digits classifier", None
    path = extractor.find_weights(WEIGHTS, task.options.assets)
    # torch-fidelity unpickles the file as it is: check first that it holds nothing but tensors.
    extractor.state_dict(path)
    network = {"feature_extractor": "inception-v3-compat", "feature_extractor_weights_path": str(path)}
    return network, "torch-fidelity's own", NamedFile(name=path.name, sha256=sha256_file(path))


def _score(
    images: ImageSet, reference: ImageSet, network: dict[str, str], description: str, weights: NamedFile | None
) -> Result:
    settings = TorchFidelitySettings(
        extractor=description,
        weights=weights,
        isc_splits=max(1, images.count // IS_SPLIT),
        samples_shuffle=False,
        kid_subset_size=min(1000, images.count, reference.count),
        prc_neighborhood=3,
        rng_seed=0,
        # One process reads the images in order, and distances are computed in blocks.
        save_cpu_ram=True,
    )
    found = torch_fidelity.calculate_metrics(
        input1=Images(images),
        input2=Images(reference),
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        cuda=extractor.devices()[0].type == "cuda",
        verbose=False,
        cache=False,
        **network,
        **settings.model_dump(exclude={"extractor", "weights"}),
    )
    return Result(metrics={name: float(found[key]) for name, key in METRICS.items()}, settings=settings)


if __name__ == "__main__":
    run("torch-fidelity", metadata.version("torch-fidelity"), score, extractor.options)
