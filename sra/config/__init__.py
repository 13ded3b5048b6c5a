"""Settings of networks, training, alignment, sampling and jobs: frozen dataclasses, one place for each default.

`model`, `training`, `alignment`, `sampling`, and `jobs`, one class per job module. A manifest embeds these classes; a
job reads them back from JSON (`from_plain`). Every class rejects unknown keys; checks across fields of a class are in
its `__post_init__`. Torch-free.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from sra.common.errors import ConfigError, UserError
from sra.common.validation import STRICT, adapter, one_line
from sra.config.alignment import (
    ALIGNMENTS,
    GROUP_0_DIVISOR,
    PUBLIC_DISTANCES,
    SRA_BLOCKS,
    AlignmentWork,
    AlignSettings,
    AnyAlignment,
    DispersiveSettings,
    Distance,
    DtsAsSettings,
    DualTimestepSettings,
    Interval,
    LayerSyncSettings,
    NoDefaultError,
    SelfFlowSettings,
    Sra2Settings,
    SraSettings,
    TeacherInput,
    check_blocks,
    read_alignment,
    settings_class,
)
from sra.config.jobs import (
    IMAGES_PER_FOLDER,
    SPLITS,
    DataConfig,
    ImagesJob,
    LatentsJob,
    SampleJob,
    StandInJob,
    TrainJob,
)
from sra.config.model import (
    CODEC_FILES,
    FAMILIES,
    PIXELS_AT_A_TIME,
    SIZES,
    CodecConfig,
    ModelConfig,
    ModelName,
    Size,
    check_codec_folder,
    parse_model_name,
)
from sra.config.sampling import ADAPTIVE_SAMPLERS, SAMPLERS, SampleConfig, Sampler, check_sampler
from sra.config.training import FP16_NEEDS_GPU, RESUMABLE_KEYS, EmaConfig, TrainConfig, check_seeds

__all__ = [
    "ADAPTIVE_SAMPLERS",
    "ALIGNMENTS",
    "CODEC_FILES",
    "FAMILIES",
    "FP16_NEEDS_GPU",
    "GROUP_0_DIVISOR",
    "IMAGES_PER_FOLDER",
    "PIXELS_AT_A_TIME",
    "PUBLIC_DISTANCES",
    "RESUMABLE_KEYS",
    "SAMPLERS",
    "SIZES",
    "SPLITS",
    "SRA_BLOCKS",
    "STRICT",
    "AlignSettings",
    "AlignmentWork",
    "AnyAlignment",
    "CodecConfig",
    "ConfigError",
    "DataConfig",
    "DispersiveSettings",
    "Distance",
    "DtsAsSettings",
    "DualTimestepSettings",
    "EmaConfig",
    "ImagesJob",
    "Interval",
    "LatentsJob",
    "LayerSyncSettings",
    "ModelConfig",
    "ModelName",
    "NoDefaultError",
    "SampleConfig",
    "SampleJob",
    "Sampler",
    "SelfFlowSettings",
    "Size",
    "Sra2Settings",
    "SraSettings",
    "StandInJob",
    "TeacherInput",
    "TrainConfig",
    "TrainJob",
    "UserError",
    "check_blocks",
    "check_codec_folder",
    "check_sampler",
    "check_seeds",
    "from_plain",
    "parse_model_name",
    "read_alignment",
    "settings_class",
    "to_plain",
]

T = TypeVar("T")
LATER_KEYS: dict[str, Any] = {
    "allow_unused_classes": False,
    "metrics": [],
    "training": None,
    "validation": None,
    "looks": [],
    "on_lost": None,
    "look": False,
    "expected_fid": None,
}
"""Settings that are newer than finished runs: left out at this value, so that stage keys and checkpoints stay valid."""


def to_plain(settings: object) -> Any:
    """Settings as JSON-ready dicts and lists. Keys of stages are hashes of this."""
    return _without_later_keys(to_jsonable_python(settings))


def _without_later_keys(plain: Any) -> Any:
    if isinstance(plain, dict):
        kept = {n: v for n, v in plain.items() if n not in LATER_KEYS or v != LATER_KEYS[n]}
        return {name: _without_later_keys(value) for name, value in kept.items()}
    return [_without_later_keys(value) for value in plain] if isinstance(plain, list) else plain


def from_plain(cls: type[T], plain: dict[str, Any]) -> T:
    """The inverse of `to_plain`.

    Raises:
        ConfigError: an unknown key, or a value or combination that the class refuses.
    """
    try:
        # mypy takes the hash of the instances for that of the class.
        return cast(T, adapter(cls).validate_python(plain))  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(f"{cls.__name__}: {one_line(cls, error)}") from error
