"""The site file: one YAML file with a section of settings for each kind of cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml

from evaluator.tools import Tool
from sra.common.errors import UserError, expected, one_of
from sra.common.validation import matching, parse_yaml, validated, yaml_problem

T = TypeVar("T")
AbsolutePath = Annotated[str, matching("/.*[^/].*", "an absolute path below /")]
Work = (
    Literal[
        "images",
        "latents",
        "standin",
        "train",
        "sample",
        "score",
        "report",
    ]
    | Tool
)
"""A kind of stage, a scoring tool, or the report."""
SECTIONS = ("container", "slurm", "kubernetes", "skypilot")


def section(path: Path, name: str, cls: type[T]) -> T:
    """Read one section of a site file.

    Args:
        path: of the file.
        name: of the section.
        cls: settings class.

    Raises:
        UserError: no such file, not YAML, an unknown section or key, or a bad value.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; --site names the file with the section `{name}:`") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {yaml_problem(error)}") from error
    if not isinstance(document, dict):
        raise UserError(expected(str(path), f"sections {', '.join(SECTIONS)}", document))
    for key in document:
        if key not in SECTIONS:
            raise UserError(one_of(f"{path}: section", str(key), SECTIONS))
    if name not in document:
        raise UserError(f"{path}: expected a section {name!r}, got none")
    return validated(cls, document[name] or {}, f"{path}: {name}")
