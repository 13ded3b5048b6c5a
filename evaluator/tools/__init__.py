"""Scoring tools, each run with `python -m`, by the names that manifests use.

`adm` (TensorFlow) and `adm_torch` share `adm_protocol`; `clean_fid`, `torch_fidelity`; `dinov2`, `clip` and `convnext`
are `networks`. All use `base` and write a `score_record`; `realism` draws the views, `optional_metrics` has those that
are computed if named.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal, TypeAlias

from evaluator import embedded
from sra.common.errors import did_you_mean
from sra.common.files import is_embedded

Tool: TypeAlias = Literal["adm", "clean-fid", "torch-fidelity", "adm-torch", "dinov2", "clip", "convnext"]
NETWORKS = {"dinov2": "asset:dinov2-vit-l14", "clip": "asset:clip-vit-l14-336", "convnext": "asset:convnext-l-22k"}
"""Tools that compare features of another network than Inception: where its weights are, which they take as graph."""
TOOL_MODULES: dict[str, str] = {
    "adm": "evaluator.tools.adm",
    "clean-fid": "evaluator.tools.clean_fid",
    "torch-fidelity": "evaluator.tools.torch_fidelity",
    "adm-torch": "evaluator.tools.adm_torch",
    **{name: f"evaluator.tools.{name}" for name in NETWORKS},
}
PROTOCOL_TOOLS = ("adm", "adm-torch")
"""Tools of the ADM protocol: they cache features, draw views and have optional metrics."""
OPTIONAL_METRICS = (
    *("kid", "kid_subsets", "density", "coverage", "top1", "top5", "class_histogram", "label_histogram", "class_means"),
    *("is_splits", "fid_infinity", "fid@N", "authenticity", "copying"),
)
"""Of the ADM protocol, computed if named; N is a number of images."""
OF_TRAINING = ("authenticity", "copying")
"""Those that need the training images; the second, validation images as well."""
FURTHER_SETS = ("training", "validation")
"""Image sets beside samples and reference, by their options."""
PREDICTED = re.compile(r"fid@([1-9][0-9]{0,8})")
INCEPTION_FEATURES = 2048
"""Pooled features of the Inception of 2015."""
LEAST_IMAGES_PER_FEATURE = 2
"""For a prediction: with fewer, covariances of half the images are singular, and FID is no smooth function of them."""


def further_sets(tool: str, metrics: Collection[str]) -> tuple[str, ...]:
    """Image sets beside samples and reference that a tool uses: `training`, `validation`."""
    if tool in NETWORKS or (tool in PROTOCOL_TOOLS and "copying" in metrics):
        return FURTHER_SETS
    return FURTHER_SETS[:1] if tool in PROTOCOL_TOOLS and "authenticity" in metrics else ()


def optional_metric(name: str) -> str:
    """The name, checked.

    Raises:
        ValueError: not one of `OPTIONAL_METRICS`, in words.
    """
    if (name not in OPTIONAL_METRICS or name == "fid@N") and not PREDICTED.fullmatch(name):
        near = did_you_mean(name, OPTIONAL_METRICS)
        raise ValueError(f"expected one of {', '.join(OPTIONAL_METRICS)} (such as fid@50000), got {name!r}{near}")
    return name


def least_to_predict(graph: str) -> int:
    """Number of images from which FID can be predicted with a graph: Inception's (a file), or an embedded one."""
    return LEAST_IMAGES_PER_FEATURE * (embedded.FEATURES if is_embedded(graph) else INCEPTION_FEATURES)


def is_optional(metric: str) -> bool:
    """Whether a metric of a record is not one of the protocol's, which papers print."""
    return metric in OPTIONAL_METRICS or metric.startswith("is_split_") or is_predicted(metric)


def is_predicted(metric: str) -> bool:
    """Whether it is what FID would be at another number of images."""
    return metric == "fid_infinity" or PREDICTED.fullmatch(metric) is not None
